"""One stage of a chain as a model of its own: its data is what reaches it, its metric that of the whole chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgewright.bench import Bench
from edgewright.stagewise.metric import chain_score, own_metric, seen
from edgewright.stagewise.rows import Part
from edgewright.stagewise.ways import Way, depths
from edgewright.store import key_of
from edgewright.task import Examples
from edgewright.types import Array, Arrays, Model, Signature, Stage, TensorSpec, Variant

SPLITS = ("calibration", "selection")
"""What methods that rewrite ONNX look at."""
FEW = 32
"""With fewer rows than this a stage would be fitted to chance: rows that would have left are added."""


def alone(model: Model, stage: Stage, example: Sequence[Array] | None = None) -> Model:
    """A stage as a model: what its graph takes and returns, the gate's score too, are its inputs and outputs.

    `example` holds what it takes, in the order of its graph; zeros when it is not known.
    """
    from edgewright import onnxkit

    graph = onnxkit.read(stage.graph).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = tuple(onnxkit.tensor_spec(value) for value in graph.input if value.name not in weights)
    outputs = tuple(onnxkit.tensor_spec(value) for value in graph.output)
    names = tuple(spec.name for spec in inputs), tuple(spec.name for spec in outputs)
    variant = Variant("main", (Stage(stage.name, stage.graph, *names, free_rows=stage.free_rows),))
    values = [np.zeros(_sizes(spec), spec.dtype) for spec in inputs] if example is None else example
    given = dict(zip(names[0], values, strict=True))
    return Model(
        f"{model.name}-{stage.name}", Signature(inputs, outputs), (variant,), given, model.history, model.source
    )


def _sizes(spec: TensorSpec) -> list[int]:
    return [1 if isinstance(dim, str) else dim for dim in spec.shape]


# ------------------------------------------------------------------ data


@dataclass(frozen=True, eq=False)
class Reaching:
    """Examples as they reach a stage; computed when they are asked for.

    Their labels are their own numbers: by these the chain's answers are put together.
    """

    examples: Examples
    part: Part
    names: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Changes with the examples, and with the stages that they go through."""
        return key_of(self.examples.digest, self.part.position, [piece.stage.digest for piece in self.part.before])

    @property
    def labelled(self) -> bool:
        """Always: each has its number."""
        return True

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, indices: Sequence[int]) -> tuple[Arrays, Any]:
        """What reaches the stage of the examples at `indices`."""
        inputs, _ = self.examples.take(indices)
        return dict(zip(self.names, self.part.values(inputs), strict=True)), self.labels_at(indices)

    def labels_at(self, indices: Sequence[int]) -> Any:
        """Their numbers."""
        return np.asarray(indices, np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of a split that reach a stage, by number; what all were answered before; how many were added."""

    ids: Sequence[int]
    ways: Sequence[Way]
    added: int


def reaching(part: Part, bench: Bench, split: str) -> Split:
    """Who gets to the stage. Where too few do, those that left last are added."""
    indices = bench.task.splits[split][1]
    if not any(piece.stage.gate and piece.stage.gate.threshold is not None for piece in part.before):
        return Split(indices, (), 0)
    ways = seen(part.pieces, bench, split, until=part.position)
    depth = depths(ways)
    going = int(np.sum(depth == len(ways)))
    enough = min(max(going, FEW, bench.recipe.batch), len(depth))
    chosen = np.sort(np.argsort(-depth, kind="stable")[:enough])
    return Split([indices[place] for place in chosen], ways, enough - going)


def stage_bench(part: Part, model: Model, chain: Bench, max_drop: float | None) -> tuple[Bench, tuple[str, ...]]:
    """The bench of the stage, and what is to be said of its data.

    Args:
        part: the stage.
        model: what `alone` makes of it.
        chain: the bench of the chain.
        max_drop: the share of the metric's full scale that it may lose; None when nothing binds.
    """
    task = chain.task
    found = {split: reaching(part, chain, split) for split in SPLITS if task.size(split)}
    names = model.stages[0].inputs
    splits = {split: (Reaching(task.splits[split][0], part, names), each.ids) for split, each in found.items()}
    before = found["selection"].ways if "selection" in found else ()

    def score(outputs: Arrays, ids: Any) -> float:
        return chain_score(part, chain, before, results=[outputs[name] for name in model.stages[0].outputs], ids=ids)

    def progress(message: str, done: int, total: int) -> None:
        chain.progress(f"{part.stage.name}: {message}", done, total)

    bounds = chain.recipe.bounds
    if bounds.max_drop is not None and max_drop is not None:
        bounds = replace(bounds, max_drop=replace(bounds.max_drop, share=max_drop))
    own = replace(
        chain,
        env=replace(chain.env, progress=progress),
        recipe=replace(chain.recipe, bounds=bounds),
        task=replace(task, splits=splits, metric=own_metric(part, task.metric), score=score, each=None, notes=()),
        original=model,
        reference=model,
    )
    return own, _told(found)


def _told(found: dict[str, Split]) -> tuple[str, ...]:
    added = [f"{each.added} of {len(each.ids)} ({split})" for split, each in found.items() if each.added]
    return (f"few rows reach it, so rows that leave before were added: {', '.join(added)}",) if added else ()
