"""INA3221: the power monitors of NVIDIA's Jetson modules, under hwmon (JetPack 5 and newer) or iio (older)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgewright.protocols import Meter
from edgewright.types import Device, Source

CHANNELS = (1, 2, 3)
"""Inputs 4 to 6 are the voltages over the shunts, 7 is their sum: no rails."""

PERIOD_NS = 430_000_000
"""JetPack has the chip average 512 conversions; `update_interval` says 430 ms then, and another time elsewhere."""

WHOLE = ("VDD_IN", "POM_5V_IN")
"""What the board takes in. AGX Orin has no such rail, and the sum of its rails is less than its input."""

HWMON = "/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*"
IIO = "/sys/bus/i2c/drivers/ina3221x/*/iio:device*"


class Ina3221:
    """Every named channel: millivolts times milliamperes under hwmon, milliwatts under iio."""

    name = "ina3221"
    needs_python = False

    def sources(self, device: Device) -> Sequence[Source]:
        """Three channels of each chip, in either form; kernels have one of them."""
        if device.isa != "aarch64":
            return ()
        hwmon = [_channel(HWMON, f"in{n}_label", (f"in{n}_input", f"curr{n}_input"), "mV mA", 1e-6) for n in CHANNELS]
        iio = [_channel(IIO, f"rail_name_{n - 1}", (f"in_power{n - 1}_input",), "mW", 1e-3) for n in CHANNELS]
        return (*hwmon, *iio)


def _channel(folder: str, label: str, values: tuple[str, ...], unit: str, scale: float) -> Source:
    return Source(
        rail=label,
        scope="rail of the module; VDD_IN and POM_5V_IN are the board's input",
        kind="power",
        unit=unit,
        scale=scale,
        period_ns=PERIOD_NS,
        period="update_interval",
        folder=folder,
        values=values,
        label=label,
        skip=("NC",),
        whole=WHOLE,
    )


INA3221 = Ina3221()


def edgewright_meters() -> Iterable[Meter]:
    """What this module offers."""
    return (INA3221,)
