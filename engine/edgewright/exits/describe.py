"""How a model with gates was used on the test split: its ways out, and which examples left first and last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.bench import Bench
from edgewright.deploying.job import Candidate
from edgewright.types import Arrays, Exit, Exits, Plan, StageCost

SHOWN = 8
"""Examples named at each end."""


def describe_exits(shipped: Candidate, plan: Plan, bench: Bench) -> Exits | None:
    """What the report tells of exits; None for a model in which every row takes the same way."""
    variant = shipped.model.variants[0]
    if not variant.gated or bench.task.size("test") == 0:
        return None
    left = bench.deployed_exits(shipped.model, "test", plan)
    outputs = bench.deployed_outputs(shipped.model, "test", plan)
    names, thresholds = _ways(shipped, int(left.max()) + 1)
    answers = _answers(shipped, bench) if len(variant.stages) > 1 else [None] * len(names)
    costs = _cumulative(shipped.costs, len(names))
    exits = tuple(
        Exit(
            names[number],
            thresholds[number],
            float(np.mean(left == number)),
            int(np.sum(left == number)),
            _metric(outputs, left == number, bench),
            None if answers[number] is None else _metric(answers[number], np.ones(len(left), np.bool_), bench),
            *costs[number],
        )
        for number in range(len(names))
    )
    first, last = (np.flatnonzero(left == end) for end in (left.min(), left.max()))
    ids = _ids(bench)
    return Exits(
        split="test",
        metric=f"{bench.task.metric.name} {bench.task.metric.unit}".strip(),
        exits=exits,
        tradeoffs=shipped.tradeoffs,
        early=tuple(ids[i] for i in first[:SHOWN]),
        late=tuple(ids[i] for i in last[:SHOWN]),
    )


def _ways(shipped: Candidate, seen: int) -> tuple[list[str], list[float | None]]:
    """The name and the threshold of every way out; those inside one graph are numbered, as far as any was taken."""
    stages = shipped.model.variants[0].stages
    if len(stages) > 1:
        return [stage.name for stage in stages], [stage.gate.threshold if stage.gate else None for stage in stages]
    return [f"way {number + 1}" for number in range(seen)], [None] * seen


def _answers(shipped: Candidate, bench: Bench) -> list[Arrays | None]:
    outputs = [spec.name for spec in shipped.model.signature.outputs]
    return [{name: each[name] for name in outputs} for each in bench.explored(shipped.model, "test")]


def _metric(outputs: Arrays | None, rows: npt.NDArray[np.bool_], bench: Bench) -> float | None:
    """The task's metric of some rows alone; None where there are none, or nothing to judge by."""
    if outputs is None or not rows.any() or bench.task.synthetic or bench.task.each is None:
        return None
    each: Any = bench.task.each(outputs, bench.labels("test"))
    return float(np.mean(np.asarray(each, np.float64)[rows]))


def _cumulative(costs: Sequence[StageCost], ways: int) -> list[tuple[float | None, float | None]]:
    """Mean and high time from the start to each exit; unknown where stages were not timed."""
    if len(costs) != ways:
        return [(None, None)] * ways
    sums = np.cumsum([[cost.mean_ms, cost.high_ms] for cost in costs], axis=0)
    return [(float(mean), float(high)) for mean, high in sums]


def _ids(bench: Bench) -> list[int]:
    return [number for batch in bench.task.batches("test", 256) for number in batch.ids]
