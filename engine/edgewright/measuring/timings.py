"""From raw nanoseconds to measurements: latency by statistic, ratio, load, first inference, peak memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.measuring import stats
from edgewright.types import Measurement, Recording, Spread, unknown

CLOCK = "perf_counter_ns on the device"
WORST = "latency of runs to the end"
"""What it takes a model with gates when no gate lets go."""


@dataclass(frozen=True)
class Energy:
    """What a candidate takes: mJ per inference in all, at idle in that time, and beyond it.

    `ratio` is the reference's energy over this one's, so above 1 is less; `recording` holds what was read.
    """

    total: Measurement
    idle: Measurement
    net: Measurement
    ratio: Measurement | None = None
    recording: Recording | None = None


@dataclass(frozen=True)
class Measured:
    """What was found out about one candidate.

    `latency` maps p50, mean, and the percentiles that the runs support, to milliseconds; `ratio` is the
    reference's latency over this one's, so above 1 is faster (None when it was measured alone).
    `runs_ns` is every run, round by round, and `depths` the last stage of each (the latest exit, where the graph
    decides inside). `deepest` is what runs took that went to the end of a model with gates. For a model in which all
    runs are alike it is None, and `depths` are empty. `energy` is None where nobody asked for it.
    """

    latency: Mapping[str, Measurement]
    load: Measurement
    first: Measurement
    memory: Measurement
    ratio: Measurement | None
    runs_ns: tuple[tuple[int, ...], ...]
    deepest: Measurement | None = None
    depths: tuple[tuple[int, ...], ...] = ()
    energy: Energy | None = None

    @property
    def typical(self) -> Measurement:
        """The latency that counts: the median, and the mean where inputs differ in what they cost."""
        return self.latency["p50" if self.deepest is None else "mean"]


@dataclass(frozen=True)
class Setting:
    """What all measurements of one candidate share: their kind and conditions."""

    kind: str
    conditions: Mapping[str, Any]

    def noting(self, **more: Any) -> Setting:
        """The same setting with more conditions."""
        return replace(self, conditions={**self.conditions, **more})


def latency_of(
    setting: Setting, runs_ns: Sequence[Sequence[int]], depths: Sequence[Sequence[int]] = ()
) -> dict[str, Measurement]:
    """Latency in ms by statistic, from every run of every round.

    With `depths`, runs are steady when those that ended at the same place are.
    """
    rounds_ms = [np.asarray(runs, np.float64) / 1e6 for runs in runs_ns]
    everything = np.concatenate(rounds_ms)
    steady = stats.stability(_levelled(everything, [depth for each in depths for depth in each]))
    mean, mean_interval = stats.mean_interval([float(r.mean()) for r in rounds_ms])
    values = {f"p{percent:g}": value for percent, value in stats.percentiles(everything).items()}
    intervals = {"p50": _median_interval(everything, rounds_ms), "mean": mean_interval}
    plain = Measurement(
        "latency",
        None,
        "ms",
        n=len(everything),
        instrument=CLOCK,
        resolution=1e-6,
        kind=setting.kind,
        unstable=steady.verdict == "unstable",
        conditions=setting.noting(cov=steady.cov, stability=steady.verdict).conditions,
    )
    return {
        name: replace(plain, value=value, statistic=name, interval=intervals.get(name))
        for name, value in {**values, "mean": mean}.items()
    }


def spread_of(runs_ns: Sequence[Sequence[int]], kind: str) -> Spread:
    """How long the runs of all rounds took, in ms, at every hundredth."""
    everything = np.concatenate([np.asarray(runs, np.float64) for runs in runs_ns]) / 1e6
    hundredths = np.percentile(everything, np.arange(101))
    return Spread(tuple(float(f"{ms:.4g}") for ms in hundredths), len(everything), kind)


def _levelled(runs: npt.NDArray[np.float64], depths: Sequence[int]) -> npt.NDArray[np.float64]:
    """Runs over the median of those that ended at the same place: that some go deeper is no unrest."""
    if not depths:
        return runs
    reached, levelled = np.asarray(depths), runs.copy()
    for depth in np.unique(reached):
        levelled[reached == depth] /= np.median(runs[reached == depth])
    return levelled


def deepest_of(setting: Setting, runs_ns: Sequence[int], depths: Sequence[int], last: int) -> Measurement | None:
    """How slow runs to the end were, in ms: the highest percentile that they support; None without depths.

    `last` is the number of the last stage, 0 where the graph decides inside: there the deepest run counts.
    """
    if not depths:
        return None
    end = last or max(depths)
    reached = [ns / 1e6 for ns, depth in zip(runs_ns, depths, strict=True) if depth == end]
    if not reached:
        return unknown(WORST, "ms", f"none of {len(depths)} runs went to the end")
    supported = stats.percentiles(reached)
    percent = max(supported)
    return Measurement(
        WORST,
        supported[percent],
        "ms",
        n=len(reached),
        statistic=f"p{percent:g}",
        instrument=CLOCK,
        kind=setting.kind,
        conditions=setting.noting(share=len(reached) / len(runs_ns)).conditions,
    )


Depths = tuple[Mapping[int, float], Mapping[int, float]]
"""By depth: the share of runs that ended there, and a low percentile of what they took, in ns."""


def depths_seen(runs: Sequence[int], depths: Sequence[int], percent: float) -> Depths:
    """The depths of all rounds together."""
    taken, reached = np.asarray(runs, np.float64), np.asarray(depths)
    found = {int(depth): taken[reached == depth] for depth in np.unique(reached)}
    shares = {depth: len(times) / len(taken) for depth, times in found.items()}
    return shares, {depth: float(np.percentile(times, percent)) for depth, times in found.items()}


def undisturbed_ns(runs: Sequence[int], depths: Sequence[int], percent: float, everywhere: Depths | None) -> float:
    """What runs of a round take when nothing disturbs them: a low percentile, which interruptions hardly move.

    Where runs differ in depth it is that of each depth, weighted by the shares of all rounds together; a depth that
    the round did not see has its usual time.
    """
    if everywhere is None:
        return float(np.percentile(runs, percent))
    shares, usual = everywhere
    taken, reached = np.asarray(runs, np.float64), np.asarray(depths)
    return sum(
        share * (float(np.percentile(taken[reached == depth], percent)) if (reached == depth).any() else usual[depth])
        for depth, share in shares.items()
    )


def ratio_of(setting: Setting, log_ratios: Sequence[float]) -> Measurement:
    """The speed-up over the reference, from one log ratio per round."""
    value, interval = stats.ratio_over_rounds(log_ratios)
    return Measurement(
        "speed-up",
        value,
        "x",
        n=len(log_ratios),
        interval=interval,
        statistic="ratio of the fifth percentiles of a round, trimmed mean over rounds",
        instrument=CLOCK,
        kind=setting.kind,
        conditions=setting.conditions,
    )


def median_of(setting: Setting, quantity: str, times_ms: Sequence[float]) -> Measurement:
    """The median of times that were taken once per process that was started from nothing."""
    if not times_ms:
        return unknown(quantity, "ms", "no process was started from nothing")
    return Measurement(
        quantity,
        float(np.median(times_ms)),
        "ms",
        n=len(times_ms),
        interval=stats.median_interval(times_ms),
        statistic="median",
        instrument=CLOCK,
        kind=setting.kind,
        conditions=setting.conditions,
    )


def peak_of(setting: Setting, readings: Sequence[Mapping[str, int | None]]) -> Measurement:
    """The largest peak over processes that were started from nothing; `before_load_bytes` is without the model."""
    peaks = [r["peak_bytes"] for r in readings if r["peak_bytes"] is not None]
    if not readings:
        return unknown("peak memory", "B", "no process was started from nothing")
    if not peaks:
        return unknown("peak memory", "B", "this system does not tell a process's peak memory")
    before = [r["baseline_bytes"] for r in readings if r["baseline_bytes"] is not None]
    return Measurement(
        "peak memory",
        float(max(peaks)),
        "B",
        n=len(peaks),
        statistic="largest",
        instrument="VmHWM of the worker process",
        resolution=1024.0,
        kind=setting.kind,
        conditions=setting.noting(before_load_bytes=max(before, default=None)).conditions,
    )


def _median_interval(
    everything: npt.NDArray[np.float64], rounds_ms: Sequence[npt.NDArray[np.float64]]
) -> tuple[float, float] | None:
    """Over rounds when there are several, widened to hold the pooled median; else over the runs."""
    if len(rounds_ms) == 1:
        return stats.median_interval(everything)
    _, interval = stats.mean_interval([float(np.median(r)) for r in rounds_ms])
    pooled = float(np.median(everything))
    return None if interval is None else (min(interval[0], pooled), max(interval[1], pooled))
