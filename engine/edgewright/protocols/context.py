"""What a method may ask for while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgewright.protocols.kernels import Kernel
from edgewright.types import Arrays, Cost, GraphFile, Json, Measurement, Model, Offer, StageCost, Target

if TYPE_CHECKING:
    from edgewright.task import Task


class Context(Protocol):
    """What a method may ask for while it works."""

    @property
    def target(self) -> Target: ...
    @property
    def task(self) -> Task | None:
        """The task without its test split; None when no data was given."""
        ...

    @property
    def original(self) -> Model: ...
    @property
    def seed(self) -> int: ...
    @property
    def scratch(self) -> Path:
        """A folder for this step alone, kept until the step is done, so that a killed step can go on."""
        ...

    @property
    def max_drop(self) -> float | None:
        """How much of the metric's full scale may be lost, as a share; None when accuracy binds nothing."""
        ...

    @property
    def tune_seconds(self) -> int:
        """How long an exporter may search for quicker code, in all runs together; 0 where nobody asked for it."""
        ...

    @property
    def kernels(self) -> Sequence[Offer[Kernel]]:
        """What an exporter may call, in the order in which they look at a graph."""
        ...

    def folder(self, name: str) -> Path:
        """A folder of the cache for what other steps and runs can use too, named by all it depends on."""
        ...

    def keep(self, data: bytes, format: str = "onnx") -> GraphFile:
        """Store the bytes of a graph and get the file that a Model carries."""
        ...

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        """Tell the user what goes on; `done` of `total` draws a bar."""
        ...

    def remember(self, key: str, compute: Callable[[], Json]) -> Json:
        """The value under `key`, computed once for this step and kept across a kill. `key` is all it depends on."""
        ...

    def score(self, model: Model) -> Measurement:
        """The task's metric on the selection split (on this host)."""
        ...

    def cost(self, candidates: Mapping[str, Model], quantity: str = "latency") -> Mapping[str, Cost]:
        """What each candidate costs, interleaved on the connected device, else predicted."""
        ...

    def stage_costs(self, model: Model) -> Sequence[StageCost]:
        """What each stage of a chain takes while the chain runs, measured on the connected device, else predicted."""
        ...

    def settled(self, model: Model) -> Model:
        """A chain whose gates have thresholds, fitted towards its goal; exits that earn nothing are gone."""
        ...

    def profile(self, model: Model) -> Sequence[OperatorTime]:
        """Time per node of the graph as the runtime ran it."""
        ...

    def feed(self, model: Model, split: str = "calibration", limit: int | None = None) -> Iterable[Arrays]:
        """What the model's inputs take, example batch by example batch; seeded noise when there is no task."""
        ...

    def outputs(self, model: Model, split: str = "selection", limit: int | None = None) -> Arrays:
        """The model's outputs over `feed`, joined on the example axis."""
        ...

    def lower(self, model: Model) -> Model:
        """The ONNX form of a torch model."""
        ...


@dataclass(frozen=True)
class OperatorTime:
    """What one node of a running graph took. `median_us` is microseconds per run, the median over runs."""

    node: str
    operator: str
    provider: str
    median_us: float
