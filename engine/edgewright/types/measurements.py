"""Numbers with all it takes to believe them, and the costs that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Measurement:
    """One number with all it takes to believe it.

    `kind` is `measured`, `simulated` (emulator or fake sensor) or `predicted`. A value that could not be
    had is None, and `reason` says why. `interval` is the 95 % one.
    """

    quantity: str
    value: Optional[float]
    unit: str
    n: int = 0
    interval: Optional[tuple[float, float]] = None
    statistic: str = ""
    instrument: str = ""
    resolution: Optional[float] = None
    kind: str = "measured"
    reason: str = ""
    unstable: bool = False
    conditions: Mapping[str, Any] = field(default_factory=dict)


def unknown(quantity: str, unit: str, reason: str) -> Measurement:
    """A measurement that could not be made, and why."""
    return Measurement(quantity, None, unit, reason=reason)


@dataclass(frozen=True)
class Metric:
    """What a task is judged by. `full_scale` is what `--max-drop 1%` is a hundredth of."""

    name: str
    unit: str = ""
    direction: str = "higher"
    full_scale: float = 1.0


@dataclass(frozen=True)
class Cost:
    """A candidate's cost beside the first candidate's: `ratio` is first / this, so above 1 is faster."""

    value: Measurement
    ratio: Measurement


@dataclass(frozen=True)
class StageCost:
    """What one stage takes in the running chain, in ms: from the end of the one before to its own end.

    `high_ms` is what all but one in a thousand of `n` runs stayed below, leaving out runs that the system interrupted.
    """

    stage: str
    median_ms: float
    mean_ms: float
    high_ms: float
    n: int
