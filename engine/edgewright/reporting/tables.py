"""Numbers and small tables as people read them: three significant digits, a unit that fits, an interval."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.types import Device, Measurement

_SCALES = {
    "ms": ((1e-3, "ns", 1e6), (1.0, "µs", 1e3), (1e3, "ms", 1.0), (float("inf"), "s", 1e-3)),
    "B": ((1e3, "B", 1.0), (1e6, "kB", 1e-3), (1e9, "MB", 1e-6), (float("inf"), "GB", 1e-9)),
    "mJ": ((1.0, "µJ", 1e3), (1e3, "mJ", 1.0), (float("inf"), "J", 1e-3)),
}


def amount(value: float, unit: str) -> str:
    """`0.0421, "ms"` as `42.1 µs`."""
    for below, name, factor in _SCALES.get(unit, ()):
        if abs(value) < below:
            return f"{digits(value * factor)} {name}"
    return f"{digits(value)}{'' if unit in ('%', 'x', '') else ' '}{unit}"


def digits(value: float) -> str:
    """Three significant digits, without an exponent for everyday sizes."""
    if value == 0 or 0.001 <= abs(value) < 1e6:
        shown = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return shown
    return f"{value:.2e}"


def describe(measurement: Measurement) -> str:
    """One line: quantity, value, interval, kind, instrument; or why there is no value."""
    name = " ".join(filter(None, (measurement.quantity, measurement.statistic)))
    if measurement.value is None:
        return f"{name}: - ({measurement.reason})"
    text = f"{name}: {amount(measurement.value, measurement.unit)}"
    if measurement.interval:
        low, high = measurement.interval
        text += f" [{amount(low, measurement.unit)}, {amount(high, measurement.unit)}]"
    about = [measurement.kind, f"n={measurement.n}" if measurement.n else "", measurement.instrument]
    text += f" ({', '.join(filter(None, about))})"
    return text + (" UNSTABLE" if measurement.unstable else "")


def describe_device(device: Device) -> str:
    """What something was measured on, and what its times are worth where that is emulated."""
    words = f"{device.cpu}, {device.cores} cores, {device.os}"
    return f"{words} (emulated: timings are simulated)" if device.emulated else words


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to the widest cell."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
