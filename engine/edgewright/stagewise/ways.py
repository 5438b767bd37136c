"""What every row would be answered at every way out of a chain, and which of these answers it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.gates import depth_of
from edgewright.types import Array, Arrays, Stage


@dataclass(frozen=True, eq=False)
class Way:
    """What rows are answered where they may leave: outputs by name, and the gate's score; None at the last stage."""

    outputs: Arrays
    score: Array | None
    threshold: float | None


def ways_of(stages: Sequence[Stage], results: Sequence[Sequence[Array]], last: Stage) -> list[Way]:
    """The ways out that stages are, from all that their graphs returned; `last` is the last of the chain."""
    return [
        Way(
            dict(zip(stage.outputs, each)),
            each[-1] if stage.gate else None,
            stage.gate.threshold if stage.gate else None,
        )
        for stage, each in zip(stages, results, strict=True)
        if stage.gate is not None or stage is last
    ]


def joined(chunks: Sequence[Sequence[Way]]) -> list[Way]:
    """The ways of chunks of rows, one after the other."""
    return [_joined(column) for column in zip(*chunks, strict=True)]


def _joined(column: Sequence[Way]) -> Way:
    outputs = {name: np.concatenate([each.outputs[name] for each in column]) for name in column[0].outputs}
    scores = [each.score for each in column if each.score is not None]
    return Way(outputs, np.concatenate(scores) if scores else None, column[0].threshold)


def spread(way: Way, places: Array, count: int) -> Way:
    """A way whose rows are put at `places` of `count`; the others have left before, so that nobody reads them."""

    def put(values: Array) -> Array:
        whole = np.zeros((count, *values.shape[1:]), values.dtype)
        whole[places] = values
        return whole

    outputs = {name: put(values) for name, values in way.outputs.items()}
    return Way(outputs, None if way.score is None else put(way.score), way.threshold)


def depths(ways: Sequence[Way]) -> Array:
    """The way that each row takes; `len(ways)` where none of them lets it out. int64 [rows]."""
    gated = [(way.score, way.threshold) for way in ways if way.score is not None]
    return depth_of(np.stack([score for score, _ in gated]), [threshold for _, threshold in gated])


def answers(ways: Sequence[Way]) -> Arrays:
    """The outputs of each row at the first way that lets it out; the last way keeps whoever gets there."""
    taken = depths(ways) if len(ways) > 1 else np.zeros(len(next(iter(ways[0].outputs.values()))), np.int64)
    rows = np.arange(len(taken))
    return {name: np.stack([way.outputs[name] for way in ways])[taken, rows] for name in ways[-1].outputs}
