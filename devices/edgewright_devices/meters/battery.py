"""The battery of a phone: its gauge under `power_supply`, voltage times current (ABI/testing/sysfs-class-power)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgewright.protocols import Meter
from edgewright.types import Device, Source

PERIOD_NS = 250_000_000
"""Gauges differ; most have a new value four times a second or less."""

LEAST_UA = 10_000
"""A phone that computes draws more than 10 mA: smaller numbers are of drivers that give mA, where µA are the rule."""


class Battery:
    """Current and voltage of the battery. The sign is the driver's choice and left out; charging is refused instead."""

    name = "battery"
    needs_python = False

    def sources(self, device: Device) -> Sequence[Source]:
        """The battery of an aarch64 device."""
        if device.isa != "aarch64":
            return ()
        return (
            Source(
                rail="battery",
                scope="the whole device, screen and radios included",
                kind="power",
                unit="µA µV",
                scale=1e-12,
                period_ns=PERIOD_NS,
                folder="/sys/class/power_supply/battery",
                values=("current_now", "voltage_now"),
                state="status",
                states=("Discharging",),
                coarse_below=LEAST_UA,
                whole=("battery",),
            ),
        )


BATTERY = Battery()


def edgewright_meters() -> Iterable[Meter]:
    """What this module offers."""
    return (BATTERY,)
