"""The bounds of the no-regression contract, as a user writes them: what a candidate must keep or gain."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from edgewright.errors import RecipeError
from edgewright.types import Metric

_SIZES = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_TIMES = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_ENERGIES = {"uj": 1e-3, "µj": 1e-3, "mj": 1.0, "j": 1e3}


@dataclass(frozen=True)
class Drop:
    """How much of the metric may be lost: a share of its full scale, or of the original's value."""

    share: float
    relative: bool = False

    def allowed(self, metric: Metric, original: float) -> float:
        """In the metric's own unit."""
        return self.share * (abs(original) if self.relative else metric.full_scale)

    def __str__(self) -> str:
        return f"{100 * self.share:g}%{'rel' if self.relative else ''}"


@dataclass(frozen=True)
class Bounds:
    """The bounds of one contract; `written` names those the user wrote. Units: ms, mJ, bytes."""

    max_drop: Drop | None = field(default_factory=lambda: Drop(0.01))
    min_speedup: float | None = 1.0
    max_latency: float | None = None
    latency_statistic: str = "p50"
    max_energy: float | None = None
    max_size: float | None = None
    minimise: str = "latency"
    written: frozenset[str] = frozenset()


def parse_bounds(given: Mapping[str, Any]) -> Bounds:
    """Bounds from text (`1%`, `1%rel`, `10ms:p99`, `5mJ`, `4MB`, `off`).

    Raises: RecipeError with the bound, the text, and an example that works.
    """
    values: dict[str, Any] = {}
    for name, text in given.items():
        values |= _READERS[name](str(text).strip()) if str(text) != "off" else {name: None}
    return Bounds(**values, written=frozenset(n for n in given if str(given[n]) != "off"))


def parse_time(flag: str, text: str) -> float:
    """Milliseconds from `12ms` or `0.5s`. Raises: RecipeError with the flag and an example that works."""
    return _read_quantity(flag, text, _TIMES, "12ms")


def _read_drop(text: str) -> dict[str, Any]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%(rel)?", text)
    if not match or float(match[1]) > 100:
        raise RecipeError(f"--max-drop {text!r} is not a share; write 1% (of full scale), 1%rel (of the value) or off")
    return {"max_drop": Drop(float(match[1]) / 100, relative=bool(match[2]))}


def _read_speedup(text: str) -> dict[str, Any]:
    try:
        value = float(text.removesuffix("x"))
    except ValueError:
        value = math.nan
    if not 0 < value < 1e6:
        raise RecipeError(f"--min-speedup {text!r} is not a factor; write 1.2 or off")
    return {"min_speedup": value}


def _read_latency(text: str) -> dict[str, Any]:
    amount, _, statistic = text.partition(":")
    if statistic not in ("", "mean", "p50", "p90", "p99", "p99.9"):
        raise RecipeError(f"--max-latency {text!r}: {statistic!r} is none of mean, p50, p90, p99, p99.9")
    return {
        "max_latency": _read_quantity("--max-latency", amount, _TIMES, "10ms or 10ms:p99"),
        "latency_statistic": statistic or "p50",
    }


def _read_energy(text: str) -> dict[str, Any]:
    return {"max_energy": _read_quantity("--max-energy", text, _ENERGIES, "5mJ")}


def _read_size(text: str) -> dict[str, Any]:
    return {"max_size": _read_quantity("--max-size", text, _SIZES, "4MB")}


def _read_minimise(text: str) -> dict[str, Any]:
    if text not in ("latency", "energy", "size"):
        raise RecipeError(f"--minimise {text!r} is not possible; allowed: latency, energy, size")
    return {"minimise": text}


def _read_quantity(flag: str, text: str, units: Mapping[str, float], example: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-zµ]+)", text.strip())
    if not match or match[2].lower() not in units or float(match[1]) <= 0:
        raise RecipeError(f"{flag} {text!r} has no value with a unit; write {example}")
    return float(match[1]) * units[match[2].lower()]


_READERS = {
    "max_drop": _read_drop,
    "min_speedup": _read_speedup,
    "max_latency": _read_latency,
    "max_energy": _read_energy,
    "max_size": _read_size,
    "minimise": _read_minimise,
}

BOUND_NAMES = tuple(f.name for f in fields(Bounds) if f.name in _READERS)
