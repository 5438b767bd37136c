"""The Context of one step: what a method may ask for while it works, and a key under which it keeps what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgewright.asking.recipe import kernels_of
from edgewright.bench import Bench, holding
from edgewright.bundle import plain
from edgewright.protocols import Kernel, OperatorTime
from edgewright.task import Task
from edgewright.types import Arrays, Cost, GraphFile, Json, Measurement, Model, Offer, StageCost, Target


@dataclass(frozen=True, eq=False)
class Workbench:
    """The Context of one step: the bench, and a key under which the step keeps what it found."""

    bench: Bench
    key: str

    @property
    def target(self) -> Target:
        """What the model is for."""
        return self.bench.target

    @property
    def task(self) -> Task | None:
        """The user's task without its test split; None when there is no data."""
        return None if self.bench.task.synthetic else self.bench.task.without("test")

    @property
    def original(self) -> Model:
        """The model as it was loaded."""
        return self.bench.original

    @property
    def seed(self) -> int:
        """What every random choice starts from."""
        return self.bench.recipe.seed

    @property
    def scratch(self) -> Path:
        """A folder for this step, the same after a kill."""
        return self.bench.store.scratch(self.key)

    @property
    def max_drop(self) -> float | None:
        """The share of the metric's full scale that may be lost; None when accuracy binds nothing."""
        drop = self.bench.recipe.bounds.max_drop
        return None if drop is None else drop.share

    @property
    def tune_seconds(self) -> int:
        """How long an exporter may search for quicker code."""
        return self.bench.recipe.tune

    @property
    def kernels(self) -> Sequence[Offer[Kernel]]:
        """Those that the recipe names."""
        return kernels_of(self.bench.recipe.kernels, self.bench.registry)

    def folder(self, name: str) -> Path:
        """A folder of the cache that every step and run shares."""
        return self.bench.store.folder(name)

    def keep(self, data: bytes, format: str = "onnx") -> GraphFile:
        """Store the bytes of a graph."""
        return self.bench.store.keep(data, format)

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        """Tell the user what goes on."""
        self.bench.progress(message, done, total)

    def remember(self, key: str, compute: Callable[[], Json]) -> Json:
        """The value under `key`, computed once for this step."""
        return self.bench.store.remember(self.key, key, compute)

    def score(self, model: Model) -> Measurement:
        """The metric on the selection split; agreement with the original when there is no task."""
        outputs = self.bench.outputs(self.lower(model), "selection")
        metric = self.bench.task.metric
        value = self.bench.score(outputs, "selection")
        return Measurement(
            metric.name, value, metric.unit, n=self.bench.task.size("selection"), instrument="selection split"
        )

    def cost(self, candidates: Mapping[str, Model], quantity: str = "latency") -> Mapping[str, Cost]:
        """What each candidate costs beside the first."""
        return self.bench.costs({name: self.lower(model) for name, model in candidates.items()}, quantity)

    def stage_costs(self, model: Model) -> Sequence[StageCost]:
        """What each stage of a chain takes while the chain runs."""
        return self.bench.stage_costs(self.lower(model))

    def settled(self, model: Model) -> Model:
        """The ONNX form of a chain with fitted thresholds."""
        from edgewright.exits.settle import settle

        return settle(self.lower(model), self.bench).model

    def profile(self, model: Model) -> Sequence[OperatorTime]:
        """Time per node as the runtime ran it; empty when no device is connected."""
        if self.bench.device is None:
            return ()
        lowered = self.lower(model)
        found = self.remember(f"profile {lowered.digest}", lambda: self._profile(lowered))
        return tuple(OperatorTime(**entry) for entry in cast("Sequence[Any]", found))

    def _profile(self, model: Model) -> Json:
        plan = self.bench.plan(model)
        assert self.bench.device is not None
        with holding(self.bench.device, self.bench.trial(model, plan), self.bench.entries(plan)) as opened:
            return plain(self.bench.device.profile(opened, runs=30))

    def feed(self, model: Model, split: str = "calibration", limit: int | None = None) -> Iterator[Arrays]:
        """Full batches of what one run of the model takes; recurrent states are zero, and steps the first."""
        batch = self.bench.recipe.batch
        for each in self.bench.task.batches(split, batch, limit=limit):
            if len(each.ids) == batch:
                yield {**next(model.signature.steps(each.inputs)), **zero_states(model)}

    def outputs(self, model: Model, split: str = "selection", limit: int | None = None) -> Arrays:
        """The model's outputs over a split, computed on this host."""
        return self.bench.outputs(self.lower(model), split, limit)

    def lower(self, model: Model) -> Model:
        """The ONNX form of a model."""
        from edgewright.deploying.steps import lowered

        return lowered(model, self.bench)


def zero_states(model: Model) -> Arrays:
    """The recurrent inputs of a model at their start."""
    recurrent = {link.input for link in model.signature.state}
    return {
        spec.name: np.zeros([1 if isinstance(d, str) else d for d in spec.shape], spec.dtype)
        for spec in model.signature.inputs
        if spec.name in recurrent
    }
