"""Writes measurements as people read them: a fitting unit, three digits, the interval where there is one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgewright.types import Measurement

SCALES: Mapping[str, tuple[tuple[str, float], ...]] = {
    "ms": (("s", 1e3), ("ms", 1.0), ("µs", 1e-3), ("ns", 1e-6)),
    "mJ": (("J", 1e3), ("mJ", 1.0), ("µJ", 1e-3)),
    "B": (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)),
}
"""Per unit of the engine: what else it is written in, and how many of the engine's units that is."""


@dataclass(frozen=True)
class Scale:
    """A unit to write in, and how many of the measurement's own units it is."""

    unit: str
    size: float


def fitting_scale(unit: str, value: float | None) -> Scale:
    """The largest unit in which `value` is at least 1; the unit itself where there is no choice."""
    steps = SCALES.get(unit, ((unit, 1.0),))
    chosen = next((step for step in steps if value is not None and abs(value) >= step[1]), None)
    if chosen is None:
        chosen = steps[-1] if value else (unit, 1.0)
    return Scale(*chosen)


def figure(measurement: Measurement, scale: Scale) -> str:
    """The value in `scale`, with what qualifies it: `0.612 ms`, `12.3 ms (predicted)`, `-` when there is none."""
    if measurement.value is None or not math.isfinite(measurement.value):
        return "-"
    marks = [mark for mark in (measurement.kind,) if mark != "measured"] + ["unstable"] * measurement.unstable
    note = f" ({', '.join(marks)})" if marks else ""
    return f"{_number(measurement.value / scale.size, scale.unit)} {scale.unit}".rstrip() + note


def ratio(measurement: Measurement | None) -> str:
    """A factor, `2.02x [1.95, 2.09]`, or a change, `-0.20 % [-0.45, 0.05]`; `-` when there is none."""
    if measurement is None or measurement.value is None or not math.isfinite(measurement.value):
        return "-"
    if measurement.quantity == "change":
        value, digits = f"{_signed(measurement.value, measurement.unit)} {measurement.unit}".rstrip(), measurement.unit
    else:
        value, digits = f"{measurement.value:.2f}x", "x"
    marks = f" ({measurement.kind})" if measurement.kind != "measured" else ""
    return value + _interval(measurement, digits) + marks


def _interval(measurement: Measurement, unit: str) -> str:
    if measurement.interval is None:
        return ""
    low, high = (_number(end, unit) for end in measurement.interval)
    return f" [{low}, {high}]"


def _signed(value: float, unit: str) -> str:
    written = _number(value, unit)
    return f"+{written}" if value > 0 else written


def _number(value: float, unit: str) -> str:
    """Shares and factors with two decimals, whole bytes, anything else with three digits."""
    if unit in ("%", "x"):
        return f"{value + 0.0:.2f}"
    if unit == "B" or value == 0:
        return f"{value:.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}"
