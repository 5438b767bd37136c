"""What is found out about each candidate: on the selection split to choose, on the test split once to judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from edgewright.bench import Bench
from edgewright.deploying.job import Candidate
from edgewright.deploying.race import Raced
from edgewright.measuring import stats
from edgewright.measuring.timings import Energy, Measured, spread_of
from edgewright.task import AGREEMENT, Task, agreement
from edgewright.types import Arrays, Cost, Evidence, Measurement, Spread, unknown

RESAMPLES = 200
"""Bootstrap draws for the interval of a metric that is not a mean over examples."""


def read_selection(candidate: Candidate, raced: Raced, bench: Bench, energy: Measurement | None = None) -> Evidence:
    """Metric and drop on the selection split, computed on this host; the cost is the race's.

    `energy` is what was measured of it, if it decides; else it is predicted, or read when the test split is.
    """
    original = bench.outputs(bench.reference, "selection")
    outputs = bench.outputs(candidate.model, "selection")
    metric, drop = judge_outputs(bench, "selection", original, outputs)
    return Evidence(
        candidate.name,
        latency={raced.cost.value.statistic or "p50": raced.cost.value},
        speedup=raced.cost.ratio,
        energy=energy or _predicted_energy(candidate, bench),
        size=_size(candidate),
        metric=metric,
        drop=drop,
    )


def read_energies(
    candidates: Sequence[Candidate], raced: Mapping[str, Raced], bench: Bench
) -> Mapping[str, Measurement]:
    """What each candidate takes on the device, all of them in one interleaved measurement; nothing without a device."""
    if bench.device is None:
        return {}
    plans = {c.name: (c.model, raced[c.name].plan) for c in candidates}
    return {name: cost.value for name, cost in bench.plan_costs(plans, "energy").items()}


def read_test(candidates: Sequence[Candidate], raced: Mapping[str, Raced], bench: Bench) -> Mapping[str, Evidence]:
    """Everything about the original (first) and the frozen candidates, on the device where there is one."""
    outputs = {c.name: bench.deployed_outputs(c.model, "test", raced[c.name].plan) for c in candidates}
    first = outputs[candidates[0].name]
    timed = _timed(candidates, raced, bench)
    found: dict[str, Evidence] = {}
    for candidate in candidates:
        metric, drop = judge_outputs(bench, "test", first, outputs[candidate.name])
        cost, latency, energy, others, spread = timed[candidate.name]
        found[candidate.name] = Evidence(
            candidate.name,
            latency=latency,
            speedup=cost.ratio,
            energy=energy.total,
            size=_size(candidate),
            metric=metric,
            drop=drop,
            others=(*others, *_agreement(first, outputs[candidate.name], bench)),
            saving=energy.ratio,
            recording=energy.recording,
            spread=spread,
        )
    return found


Timed = tuple[Cost, Mapping[str, Measurement], Energy, tuple[Measurement, ...], Optional[Spread]]


def _timed(candidates: Sequence[Candidate], raced: Mapping[str, Raced], bench: Bench) -> Mapping[str, Timed]:
    """Cost, latency by statistic, energy, what else was read while they were timed, and how far runs differed."""
    if bench.device is None:
        costs = bench.costs({c.name: c.model for c in candidates})
        energies = bench.costs({c.name: c.model for c in candidates}, "energy")
        return {
            name: (cost, {"p50": cost.value}, _in_all(energies[name].value), (), None) for name, cost in costs.items()
        }
    found = bench.timed({c.name: (c.model, raced[c.name].plan) for c in candidates}, bench.recipe.preset)
    return {
        name: (
            Cost(each.typical, each.ratio or unknown("speed-up", "x", "measured alone")),
            each.latency,
            each.energy or _in_all(unknown("energy", "mJ", "no meter was read")),
            _others(each),
            spread_of(each.runs_ns, each.typical.kind),
        )
        for name, each in found.items()
    }


def _in_all(total: Measurement) -> Energy:
    nothing = unknown("energy", "mJ", "only energy in all is known")
    return Energy(total, nothing, nothing)


def _others(found: Measured) -> tuple[Measurement, ...]:
    """What else was read; idle and net energy where a meter was."""
    energy = (found.energy.idle, found.energy.net) if found.energy and found.energy.recording else ()
    return (found.memory, found.load, found.first, *energy, *((found.deepest,) if found.deepest else ()))


def judge_outputs(bench: Bench, split: str, original: Arrays, outputs: Arrays) -> tuple[Measurement, Measurement]:
    """The metric of `outputs`, and by how much it is worse than the original's, with the paired interval."""
    if bench.task.synthetic:
        reason = "no task was given; see agreement with the original on seeded inputs"
        return unknown("accuracy", "%", reason), unknown("drop", "%", "no task was given")
    labels = bench.labels(split)
    metric = metric_of(bench.task, split, outputs, labels)
    return metric, drop_of(bench.task, split, (original, outputs), labels, bench.recipe.seed)


def metric_of(task: Task, split: str, outputs: Arrays, labels: Any) -> Measurement:
    """The task's metric over a split."""
    n, unit = task.size(split), task.metric.unit
    where = {"split": split, "full_scale": task.metric.full_scale}
    value = task.judge(outputs, labels)
    return Measurement(task.metric.name, value, unit, n, instrument=f"{split} split", conditions=where)


def drop_of(task: Task, split: str, pair: tuple[Arrays, Arrays], labels: Any, seed: int) -> Measurement:
    """By how much the second outputs of a pair are worse than the first, with the paired interval."""
    first, second = (task.judge(each, labels) for each in pair)
    worse = first - second if task.metric.direction == "higher" else second - first
    interval = _drop_interval(task, *pair, labels, seed)
    where = {"split": split, "full_scale": task.metric.full_scale}
    return Measurement("drop", worse, task.metric.unit, task.size(split), interval, "paired", conditions=where)


def _drop_interval(task: Task, original: Arrays, outputs: Arrays, labels: Any, seed: int) -> tuple[float, float]:
    """The 95 % interval of the loss over pairs of examples."""
    sign = 1.0 if task.metric.direction == "higher" else -1.0
    if task.each is not None:
        scale = task.metric.full_scale
        pair = [np.asarray(task.each(each, labels)) / scale for each in (original, outputs)]
        _, (low, high) = stats.paired_difference(pair[0], pair[1])
        ends = (sign * scale * low, sign * scale * high)
    else:
        drawn = [sign * d for d in _redrawn(task, original, outputs, labels, seed)]
        low, high = np.percentile(drawn, (2.5, 97.5))
        ends = (float(low), float(high))
    return min(ends), max(ends)


def _redrawn(task: Task, original: Arrays, outputs: Arrays, labels: Any, seed: int) -> list[float]:
    """original - candidate on resampled examples."""
    rng = np.random.default_rng(seed)
    n = len(next(iter(outputs.values())))
    found: list[float] = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, n, n)
        chosen = _rows(labels, rows)
        pair = [task.judge({k: v[rows] for k, v in each.items()}, chosen) for each in (original, outputs)]
        found.append(pair[0] - pair[1])
    return found


def _rows(labels: Any, rows: Any) -> Any:
    return {k: v[rows] for k, v in labels.items()} if isinstance(labels, dict) else np.asarray(labels)[rows]


def _agreement(original: Arrays, outputs: Arrays, bench: Bench) -> tuple[Measurement, ...]:
    """The share of examples that both decide alike; nothing where outputs are no decisions."""
    first = next(iter(original.values()))
    if bench.task.metric.name == AGREEMENT.name and not bench.task.synthetic:
        return ()
    if first.ndim != 2 or first.shape[-1] < 2:
        return ()
    where = "seeded noise" if bench.task.synthetic else "test split"
    value = agreement(outputs, original)
    return (Measurement(AGREEMENT.name, value, "%", n=len(first), instrument=where),)


def _size(candidate: Candidate) -> Measurement:
    return Measurement("size", candidate.size, "B", n=1, instrument="file size")


def _predicted_energy(candidate: Candidate, bench: Bench) -> Measurement:
    if bench.device is not None:
        return unknown("energy", "mJ", "it is read with the latency on the test split")
    return bench.costs({candidate.name: candidate.model}, "energy")[candidate.name].value
