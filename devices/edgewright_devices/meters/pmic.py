"""The power chip of the Raspberry Pi 5, as `vcgencmd pmic_read_adc` prints it.

Its text was not seen on a board by us: it is as users publish it, `VDD_CORE_A current(7)=1.75A` and
`VDD_CORE_V volt(15)=0.72V`. A rail that the command does not print so is absent, with that reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgewright.protocols import Meter
from edgewright.types import Device, Source

RAILS = (
    *("3V7_WL_SW", "3V3_SYS", "1V8_SYS", "DDR_VDD2", "DDR_VDDQ", "1V1_SYS"),
    *("0V8_SW", "VDD_CORE", "3V3_DAC", "3V3_ADC", "0V8_AON", "HDMI"),
)

PERIOD_NS = 50_000_000
"""Each reading starts a program, which takes some milliseconds."""


class Pmic:
    """Every rail behind the chip: not what USB, the fan and boards on top take, nor what the chip loses."""

    name = "pmic"
    needs_python = False

    def sources(self, device: Device) -> Sequence[Source]:
        """All rails of a Raspberry Pi 5; no other board has them."""
        return tuple(map(_rail, RAILS)) if "Raspberry Pi 5" in device.cpu else ()


def _rail(name: str) -> Source:
    return Source(
        rail=name,
        scope="rails behind the power chip, without USB and boards on top; the text's format is not verified",
        kind="power",
        unit="A V",
        scale=1.0,
        period_ns=PERIOD_NS,
        argv=("vcgencmd", "pmic_read_adc"),
        values=tuple(
            rf"\b{name}_{letter} +{what}\([0-9]+\)=([0-9.]+)" for letter, what in (("A", "current"), ("V", "volt"))
        ),
    )


PMIC = Pmic()


def edgewright_meters() -> Iterable[Meter]:
    """What this module offers."""
    return (PMIC,)
