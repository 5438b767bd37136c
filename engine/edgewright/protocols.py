"""What plugins satisfy. Structural: a plugin needs no base class, only these members.

`Params` is a frozen dataclass; the command line, the recipe file, `engine plugins` and the documentation
read names, types, defaults and `field(metadata={"help": ..., "low": ..., "high": ..., "choices": ...})` from it.
A parameter whose metadata say `"nodes": True` holds names of nodes; each stage of a model is given its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, runtime_checkable

from edgewright.types import (
    Array,
    Arrays,
    Artifact,
    Cost,
    Device,
    GraphFile,
    Json,
    Measurement,
    Model,
    Refusal,
    Report,
    StageCost,
    Target,
)

if TYPE_CHECKING:
    import numpy as np

    from edgewright.task import Task


@dataclass(frozen=True)
class NoParams:
    """The `Params` of a plugin that has none."""


@dataclass(frozen=True)
class LoadRequest:
    """What a loader may need besides the source: sizes for free dimensions, batch, task, a place for files."""

    store: GraphStore
    shapes: Mapping[str, tuple[int, ...]]
    batch: int = 1
    seed: int = 0
    task: Task | None = None


class GraphStore(Protocol):
    """Where graphs are kept by content."""

    def keep(self, data: bytes, format: str) -> GraphFile:
        """Store the bytes of a graph; the same bytes are stored once."""
        ...


@runtime_checkable
class Loader(Protocol):
    """Reads a model. Offered with `edgewright_loaders`."""

    @property
    def name(self) -> str: ...

    def accepts(self, source: str) -> bool:
        """Whether the source looks like this loader's, judged by its name alone."""
        ...

    def load(self, source: str, request: LoadRequest) -> Model:
        """Read it. Raises: ModelError with one sentence a user can act on."""
        ...


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


@runtime_checkable
class OnnxTransform(Protocol):
    """A method that rewrites ONNX. Offered with `edgewright_transforms`.

    `needs` is `nothing`, `calibration` or `training`; `reads` names what the result depends on besides
    model, parameters and seed (`task`, `target`, `device`), which goes into the cache key.

    A method from ONNX to ONNX gets one graph. On a model of several stages it is applied to each in turn: `feed` is
    then what reaches the stage, `score` the metric of the whole model. One that has to see all stages at once says so
    with an attribute `whole = True`, and gets the model as it is.
    """

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str:
        """One line for `engine plugins`."""
        ...

    @property
    def Params(self) -> type[Any]: ...
    @property
    def takes(self) -> str: ...
    @property
    def gives(self) -> str: ...
    @property
    def needs(self) -> str: ...
    @property
    def reads(self) -> tuple[str, ...]: ...

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Whether it can work on this model for this target, before anything is done."""
        ...

    def apply(self, model: Model, params: Any, context: Context) -> Model:
        """A new model, with one more Step in its history."""
        ...


@runtime_checkable
class TorchTransform(Protocol):
    """A method that rewrites and trains torch modules. Offered with `edgewright_transforms`.

    Three calls, so that it goes on after a kill without pickles: the decision is JSON and cached, the
    rewrite is replayed, the fit is checkpointed.
    """

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def Params(self) -> type[Any]: ...
    @property
    def takes(self) -> str: ...
    @property
    def gives(self) -> str: ...
    @property
    def needs(self) -> str: ...
    @property
    def reads(self) -> tuple[str, ...]: ...

    def check(self, model: Model, target: Target) -> Refusal | None: ...
    def decide(self, model: Model, params: Any, context: Context) -> Json:
        """What to do (which heads, channels, exits) and how to train it."""
        ...

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The structure only; the same decision gives the same structure."""
        ...

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """A new value with trained weights; the input itself when nothing trains."""
        ...


@runtime_checkable
class Exporter(Protocol):
    """Writes a model in a format that runtimes open. Offered with `edgewright_exporters`."""

    @property
    def name(self) -> str: ...
    @property
    def format(self) -> str: ...
    def check(self, model: Model, target: Target) -> Refusal | None: ...
    def export(self, model: Model, context: Context) -> Sequence[Artifact]:
        """One artifact per stage of each variant, numerics against the source model included."""
        ...


@runtime_checkable
class Runtime(Protocol):
    """Runs artifacts on a device; part of the device set. Offered with `edgewright_runtimes`."""

    @property
    def name(self) -> str: ...
    @property
    def formats(self) -> tuple[str, ...]: ...
    def probe(self, device: Device) -> Refusal | None:
        """Whether it can work on this device."""
        ...

    def options(self, artifact: Artifact, target: Target) -> Sequence[Mapping[str, Any]]:
        """The settings worth racing, the usual one first. Each holds `provider`."""
        ...

    def open(self, path: str, options: Mapping[str, Any]) -> Session:
        """Load one artifact. Raises: InputError when the runtime cannot hold it."""
        ...


class Session(Protocol):
    """One loaded artifact."""

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs, in the graph's order."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    def profile(self, feeds: Mapping[str, Any], runs: int) -> list[dict[str, Any]]:
        """Per executed node: `node`, `operator`, `provider`, `median_us`."""
        ...


class Process(Protocol):
    """A running command on the far side of a link."""

    @property
    def stdin(self) -> IO[bytes]: ...
    @property
    def stdout(self) -> IO[bytes]: ...
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def errors(self) -> str:
        """What it wrote on its standard error."""
        ...


class Link(Protocol):
    """An open connection to one device."""

    @property
    def address(self) -> str: ...
    @property
    def root(self) -> Path:
        """Our folder on the device."""
        ...

    @property
    def python(self) -> str:
        """The interpreter that runs our agent there."""
        ...

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60) -> tuple[int, bytes, bytes]: ...
    def start(self, argv: Sequence[str]) -> Process: ...
    def put(self, local: Path, remote: str) -> str:
        """Copy a file or folder to the device; returns where it lies there."""
        ...

    def get(self, remote: str, local: Path) -> None: ...
    def close(self) -> None: ...


@runtime_checkable
class Connection(Protocol):
    """A way to reach devices. Offered with `edgewright_connections`."""

    @property
    def scheme(self) -> str: ...
    def open(self, address: str) -> Link:
        """Raises: DeviceError when nothing answers."""
        ...


@runtime_checkable
class Predictor(Protocol):
    """Tells what a model would cost on a target it does not have. Offered with `edgewright_predictors`."""

    @property
    def name(self) -> str: ...
    def predict(self, model: Model, target: Target, quantity: str) -> Measurement:
        """A measurement of kind `predicted`, with its interval."""
        ...

    def predict_ratio(self, first: Model, other: Model, target: Target, quantity: str) -> Measurement:
        """How many times `other` is cheaper than `first`, with its own interval: the errors of a pair go together."""
        ...


@runtime_checkable
class Meter(Protocol):
    """Yields traces of energy. Offered with `edgewright_meters`."""

    @property
    def name(self) -> str: ...
    def sources(self, device: Device) -> Sequence[Mapping[str, Any]]: ...


@runtime_checkable
class Kernel(Protocol):
    """An operator of our own. Offered with `edgewright_kernels`."""

    @property
    def name(self) -> str: ...


class Probe(Protocol):
    """A model with exits as an attack sees it: it can be asked, and nothing of its inside is known."""

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """The least and the greatest value of real data, by input."""
        ...

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of the gates in `scores`: a row leaves at the first whose score is at least its threshold."""
        ...

    @property
    def queries(self) -> int:
        """How often an attack may ask, for scores or depths."""
        ...

    def scores(self, inputs: Arrays) -> Array:
        """What each gate would decide by, float32 [gates, rows]; no gates where a graph decides inside."""
        ...

    def depths(self, inputs: Arrays) -> Array:
        """The number of the exit at which each row leaves, from 0, int64 [rows]."""
        ...


@runtime_checkable
class Attack(Protocol):
    """Crafts inputs that make a model with exits slow. Offered with `edgewright_attacks`."""

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str:
        """One line for `engine plugins` and `engine stress`."""
        ...

    def craft(self, probe: Probe, inputs: Arrays, rng: np.random.Generator) -> Arrays:
        """As many rows as the real `inputs` have, of the same types and shapes, within the limits of real data.

        Raises: RefusedError for inputs that it cannot work on.
        """
        ...


@runtime_checkable
class Renderer(Protocol):
    """Turns a report into text. Offered with `edgewright_renderers`."""

    @property
    def name(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    def render(self, report: Report) -> str: ...


@runtime_checkable
class PageRenderer(Protocol):
    """A renderer that also sets several reports on one page, with pictures of examples. Offered as any other."""

    def render_page(self, reports: Sequence[Report], pictures: Sequence[Mapping[int, bytes]]) -> str:
        """`pictures` holds, for each report, the PNG of examples by id; a report may have none."""
        ...
