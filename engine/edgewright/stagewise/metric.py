"""The metric of a whole chain, with what one of its stages returned put in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgewright.bench import CHUNK, Bench
from edgewright.stagewise.rows import Part, Piece, carried_of, walk
from edgewright.stagewise.ways import Way, answers, joined, spread, ways_of
from edgewright.types import Array, Metric


def chain_score(part: Part, bench: Bench, before: Sequence[Way], *, results: Sequence[Array], ids: Array) -> float:
    """The chain's metric on the selection split with these results of the stage.

    Args:
        part: the stage.
        bench: that of the chain.
        before: what all examples were answered before; nothing when none may leave.
        results: what the stage returned for the examples that reach it, in the order of its graph.
        ids: the numbers of these examples.
    """
    order = {int(number): place for place, number in enumerate(bench.task.splits["selection"][1])}
    places = np.array([order[int(number)] for number in ids], np.int64)
    ways = [spread(way, places, len(order)) for way in _onward(part, bench, results, ids)]
    return judged([*before, *ways], bench)


def _onward(part: Part, bench: Bench, results: Sequence[Array], ids: Array) -> list[Way]:
    """The ways out from this stage on."""
    stages = [part.stage, *(piece.stage for piece in part.after)]
    examples = bench.task.splits["selection"][0]
    chunks: list[list[Way]] = []
    for start in range(0, len(ids), CHUNK):
        rows = slice(start, start + CHUNK)
        own = [each[rows] for each in results]
        inputs, _ = examples.take([int(number) for number in ids[rows]])
        later = walk(part.after, inputs, carried_of(part.stage, own))
        chunks.append(ways_of(stages, [own, *later], part.last))
    return joined(chunks)


def seen(pieces: Sequence[Piece], bench: Bench, split: str, *, until: int | None = None) -> list[Way]:
    """The ways out of a chain (of its stages before `until`) over a split, with nothing leaving."""
    stages = [piece.stage for piece in pieces[:until]]
    batches = bench.task.batches(split, CHUNK)
    return joined([ways_of(stages, list(walk(pieces[:until], b.inputs)), pieces[-1].stage) for b in batches])


def judged(ways: Sequence[Way], bench: Bench) -> float:
    """The metric over the selection split when every row leaves where its gate says.

    Without any threshold nothing is known of who leaves where: then it is the mean over these ways out, each answering
    all rows, so that a change counts in every answer that it has a part in.
    """
    labels = bench.labels("selection")
    if all(way.threshold is None for way in ways):
        return float(np.mean([bench.task.judge(way.outputs, labels) for way in ways]))
    return bench.task.judge(answers(ways), labels)


def own_metric(part: Part, metric: Metric) -> Metric:
    """The metric by which a stage is judged: as `judged` finds it, so it is called."""
    stages = [piece.stage for piece in part.pieces]
    gates = [stage.gate for stage in stages[part.position :] if stage.gate is not None]
    if not gates or any(stage.gate and stage.gate.threshold is not None for stage in stages):
        return metric
    return replace(metric, name=f"{metric.name}, mean of {len(gates) + 1} exits")


def own_ways(ways: Sequence[Way], first: int) -> Sequence[Way]:
    """Of all ways out of a chain those that `judged` looks at for a stage, before which there are `first`."""
    return ways if any(way.threshold is not None for way in ways) else ways[first:]
