"""Numbers with all it takes to believe them, and the costs that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Measurement:
    """One number with all it takes to believe it.

    `kind` is `measured`, `simulated` (emulator or fake sensor), `predicted`, or `modelled` (from a table of what
    primitives take). A value that could not be
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


@dataclass(frozen=True)
class KernelCost:
    """What one kernel of a graph is predicted to take, and what it asks for.

    `kind` is the predictor's class of kernel, `operator` the ONNX operator that does the same work. `ops` counts a
    multiply-add as two; `bytes` is all that moves between the kernel and memory when nothing stays in a cache, so
    ops / bytes is its arithmetic intensity. `peak_gops` (10^9 operations a second) and `bandwidth_gbs` are the
    profile's figures for its `dtype`: the roof is min(peak, intensity x bandwidth). `energy_mj` is None where the
    profile tells no power.
    """

    name: str
    operator: str
    kind: str
    dtype: str
    ops: int
    bytes: int
    latency_ms: float
    energy_mj: Optional[float]
    peak_gops: float
    bandwidth_gbs: float
