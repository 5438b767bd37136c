"""Reads the table that a power meter's program writes: a column of time, and one of power or those of volt and ampere.

Units stand in the heading (`Power (mW)`, `current_ma`, `t [ms]`); without one they are s, W, V and A. Columns are
separated by commas, semicolons or tabs; after semicolons and tabs a comma may be the decimal point.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Optional

from edgewright.errors import RefusedError

SCALES: Mapping[str, Mapping[str, float]] = {
    "time": {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0},
    "power": {"w": 1.0, "watt": 1.0, "watts": 1.0, "mw": 1e-3, "uw": 1e-6, "µw": 1e-6, "kw": 1e3},
    "volt": {"v": 1.0, "mv": 1e-3, "uv": 1e-6, "µv": 1e-6},
    "ampere": {"a": 1.0, "ma": 1e-3, "ua": 1e-6, "µa": 1e-6},
}
WORDS: Mapping[str, Sequence[str]] = {
    "time": ("time", "timestamp", "t", "date", "elapsed"),
    "power": ("power", "p", "watts", "watt"),
    "volt": ("voltage", "volt", "volts", "u", "v"),
    "ampere": ("current", "ampere", "amps", "amp", "i", "a"),
}


@dataclass(frozen=True)
class Column:
    """Where a quantity stands, and what to multiply it by for s, W, V or A."""

    place: int
    scale: float


@dataclass(frozen=True)
class Powers:
    """Seconds of the instrument's clock and W, as they came; `missed` rows had no number where one was due."""

    samples: tuple[tuple[float, float], ...]
    missed: int


def read_log(text: str, origin: str) -> Powers:
    """The readings of a log. Raises: RefusedError with what a heading has to say."""
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip() and not line.startswith("#")]
    if not lines:
        raise RefusedError(f"{origin} is empty; write a heading such as `time_s,power_mw`, and a row per reading")
    separator = next((each for each in ("\t", ";") if each in lines[0]), ",")
    columns = columns_of(lines[0].split(separator), origin)
    rows = [_reading(line.split(separator), columns, decimal_comma=separator != ",") for line in lines[1:]]
    found = tuple(row for row in rows if row is not None)
    return Powers(found, len(rows) - len(found))


def columns_of(heading: Sequence[str], origin: str) -> Mapping[str, Column]:
    """Time, and power or else volt and ampere. Raises: RefusedError."""
    found: dict[str, Column] = {}
    for place, name in enumerate(heading):
        quantity, scale = _meaning(name)
        if quantity:
            found.setdefault(quantity, Column(place, scale))
    if "time" not in found or not ("power" in found or {"volt", "ampere"} <= found.keys()):
        raise RefusedError(
            f"{origin} has the columns {', '.join(map(str.strip, heading))}; it needs a time and a power, "
            "or a time, a voltage and a current, such as `time_s,power_mw` or `time_ms,voltage_v,current_ma`"
        )
    return found


def _meaning(name: str) -> tuple[str, float]:
    words = [word for word in re.split(r"[^a-zµ]+", name.strip().strip('"').lower()) if word]
    for quantity, known in WORDS.items():
        if words and words[0] in known:
            units = [SCALES[quantity][word] for word in words[1:] if word in SCALES[quantity]]
            return quantity, units[-1] if units else 1.0
    for quantity, units in SCALES.items():
        if quantity != "time" and len(words) == 1 and words[0] in units:
            return quantity, units[words[0]]
    return "", 1.0


def _reading(
    cells: Sequence[str], columns: Mapping[str, Column], *, decimal_comma: bool
) -> Optional[tuple[float, float]]:
    """None where a number is missing."""

    def value(quantity: str) -> float:
        column = columns[quantity]
        cell = cells[column.place].strip().strip('"') if column.place < len(cells) else ""
        return column.scale * _number(cell.replace(",", ".") if decimal_comma else cell, clock=quantity == "time")

    with suppress(ValueError):
        watts = value("power") if "power" in columns else value("volt") * value("ampere")
        return value("time"), watts
    return None


def _number(cell: str, *, clock: bool) -> float:
    """Raises: ValueError."""
    try:
        found = float(cell)
    except ValueError:
        if not clock:
            raise
        found = datetime.fromisoformat(cell.replace("Z", "+00:00")).timestamp()
    if not math.isfinite(found):
        raise ValueError(cell)
    return found
