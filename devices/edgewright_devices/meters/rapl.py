"""RAPL: the energy counters of x86 processors, as Linux shows them under powercap (Intel since 3.13, AMD since 5.8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgewright.protocols import Meter
from edgewright.types import Device, Source

ENERGY = "energy_uj"
ZONES = "/sys/class/powercap/intel-rapl:*"
"""AMD's are called so too. The same counters under `intel-rapl-mmio` would be counted twice."""

PERIOD_NS = 5_000_000
"""The counters move every millisecond; reading them as often would disturb what is measured."""


class Rapl:
    """Packages and their memory. Zones inside a package (core, uncore) are part of it and left out."""

    name = "rapl"
    needs_python = False

    def sources(self, device: Device) -> Sequence[Source]:
        """All packages and memories of an x86 processor."""
        if device.isa not in ("x86_64", "i686"):
            return ()
        return (
            Source(
                rail="package",
                scope="processor package or its memory, without the rest of the board",
                kind="counter",
                unit="µJ",
                scale=1e-6,
                period_ns=PERIOD_NS,
                folder=ZONES,
                values=(ENERGY,),
                label="name",
                only=("package-*", "dram"),
                wrap="max_energy_range_uj",
                fix=f"sudo chmod a+r {ZONES}/{ENERGY}",
            ),
        )


RAPL = Rapl()


def edgewright_meters() -> Iterable[Meter]:
    """What this module offers."""
    return (RAPL,)
