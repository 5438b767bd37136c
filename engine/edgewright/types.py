"""The values that flow: Model -> Artifact -> Plan -> Bundle -> Measurement -> Report.

Part of the device set: Python 3.9 and numpy only, and numpy itself is needed for type checking alone.
Values that hold arrays or modules compare by identity and carry a `digest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Optional, TypeVar, Union

from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Arrays = Mapping[str, Array]
else:
    Array = Any
    Arrays = Mapping[str, Any]

T_co = TypeVar("T_co", covariant=True)

Dim = Union[int, str]
"""A size, or the name of a free dimension."""

Json = Union[None, bool, int, float, str, list[Any], dict[str, Any]]


@dataclass(frozen=True)
class Refusal:
    """Why something cannot be done: one sentence that also says what would help."""

    reason: str


# ------------------------------------------------------------------ models


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor of a signature; `dtype` is numpy's name, free dimensions are strings."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def describe(self) -> str:
        """As people write it: `image float32 [1, 3, 224, 224]`."""
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"

    @property
    def free(self) -> tuple[str, ...]:
        """The names of the dimensions that have no size."""
        return tuple(dim for dim in self.shape if isinstance(dim, str))


@dataclass(frozen=True)
class State:
    """A recurrent state: after each run, output `output` becomes input `input` of the next."""

    output: str
    input: str


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives. Inputs named by `state` are fed by the session, not by the caller."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[State, ...] = ()

    @property
    def fed(self) -> tuple[TensorSpec, ...]:
        """The inputs a caller gives: all but the recurrent ones."""
        recurrent = {link.input for link in self.state}
        return tuple(spec for spec in self.inputs if spec.name not in recurrent)


@dataclass(frozen=True)
class GraphFile:
    """A graph on disk, known by its content."""

    path: Path = field(compare=False)
    digest: str
    format: str = "onnx"


@dataclass(frozen=True, eq=False)
class TorchGraph:
    """A torch module in memory; `digest` covers its code and its weights."""

    module: Any
    digest: str
    format: str = "torch"


Graph = Union[GraphFile, TorchGraph]


@dataclass(frozen=True)
class Gate:
    """Which rows of a stage may leave: those whose score is at least the threshold; NaN goes on.

    `score` names the last output of the stage's graph, float32 [rows]; `rule` says what it is (`max-probability`,
    `entropy`, which is negated, or `patience`, which is counted in the graph). Without a threshold nothing leaves.
    """

    score: str
    rule: str
    threshold: Optional[float] = None


@dataclass(frozen=True)
class Goal:
    """What thresholds are fitted to, against running every row to the end.

    At most `drop` of the metric's full scale is lost, or at most `cost` of the mean latency is spent; both are
    shares, and one of them is None.
    """

    drop: Optional[float] = None
    cost: Optional[float] = None


@dataclass(frozen=True)
class Stage:
    """A static graph, one piece of a model.

    It takes its `inputs` (of the model's), then the `carry` of the stage before it, and returns the
    model's `outputs` if inference ends here, then its own `carry` for the next stage, then the score of its gate.
    `free_rows` says that axis 0 of everything takes any size, so that only the rows that go on need be computed.
    A graph that decides inside (nested `If`s) returns last, as `exits`, the number of the exit of each row, int64.
    """

    name: str
    graph: Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    carry: tuple[str, ...] = ()
    gate: Optional[Gate] = None
    free_rows: bool = False
    exits: str = ""

    @property
    def returns(self) -> tuple[str, ...]:
        """The names of what its graph returns, in order."""
        last = (self.gate.score,) if self.gate else (self.exits,) if self.exits else ()
        return (*self.outputs, *self.carry, *last)

    @property
    def digest(self) -> str:
        """What it computes, and when it lets a row leave."""
        return self.graph.digest if self.gate is None else f"{self.graph.digest}@{self.gate.threshold!r}"


@dataclass(frozen=True)
class Variant:
    """One way to run a model: stages in order. Most models have one variant with one stage.

    `goal` is what the thresholds of its gates are fitted to.
    """

    name: str
    stages: tuple[Stage, ...]
    goal: Optional[Goal] = None

    @property
    def gated(self) -> bool:
        """Whether rows may take different ways, so that inputs differ in what they cost."""
        return any(stage.gate is not None or stage.exits for stage in self.stages)


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
class Step:
    """What one transform did: its name, plugin, parameters, and what it has to say about the outcome.

    `declined` says that it could have worked, and found the model better off as it was.
    """

    name: str
    plugin: str
    params: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    declined: bool = False


@dataclass(frozen=True, eq=False)
class Model:
    """A network on its way to a device. Transforms return new ones and never change theirs."""

    name: str
    signature: Signature
    variants: tuple[Variant, ...]
    example: Arrays
    history: tuple[Step, ...] = ()
    source: str = ""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage of every variant."""
        return tuple(stage for variant in self.variants for stage in variant.stages)

    @property
    def format(self) -> str:
        """`torch` or `onnx`: what its graphs are."""
        return self.stages[0].graph.format

    @property
    def digest(self) -> str:
        """What the graphs are, whatever the model is called."""
        return "+".join(stage.digest for stage in self.stages)

    @property
    def graph(self) -> Graph:
        """The only graph. Raises: EdgewrightError when there are several."""
        if len(self.stages) != 1:
            raise EdgewrightError(f"{self.name} has {len(self.stages)} stages; work on them one by one")
        return self.stages[0].graph

    def with_graph(self, graph: Graph) -> Model:
        """The same model with another only graph."""
        stage = replace(self.variants[0].stages[0], graph=graph)
        return replace(self, variants=(replace(self.variants[0], stages=(stage,)),))

    def after(self, step: Step) -> Model:
        """The same model with one more step in its history."""
        return replace(self, history=(*self.history, step))


# ------------------------------------------------------------------ targets and devices


@dataclass(frozen=True)
class Figure:
    """A number about a device, with its unit and where it was read."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Target:
    """What we expect of a device. `compute` is the peak per dtype, `recipe` what runs when nothing is asked.

    `default` marks the one target of a `family` that the family's name stands for.
    Units: memory in bytes, compute in GFLOP/s (or GOP/s for integers), bandwidth in GB/s, power in W;
    each Figure repeats its own.
    """

    name: str
    title: str
    isa: str
    memory: Figure
    compute: Mapping[str, Figure]
    bandwidth: Figure
    cores: Figure
    unit: str = "cpu"
    family: str = ""
    default: bool = False
    power: Mapping[str, Figure] = field(default_factory=dict)
    runtimes: tuple[str, ...] = ("ort",)
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    predictor: str = "roofline"
    recipe: tuple[str, ...] = ("simplify",)
    features: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True)
class Device:
    """What was found behind a connection. `fingerprint` changes when anything that moves a latency does."""

    fingerprint: str
    isa: str
    cpu: str
    cores: int
    memory_bytes: int
    os: str
    libc: str
    python: str
    features: tuple[str, ...]
    versions: Mapping[str, str]
    providers: tuple[str, ...]
    governor: str
    emulated: bool


# ------------------------------------------------------------------ artifacts, plans


@dataclass(frozen=True)
class Artifact:
    """A file in one format that covers one stage of one variant.

    `numerics` holds the error against the source model: `max_abs`, `max_rel`, `n`.
    """

    name: str
    path: Path = field(compare=False)
    digest: str
    size: int
    format: str
    variant: str
    stage: str
    ir: int = 0
    opsets: Mapping[str, int] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)
    numerics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Placement:
    """Where and how one stage runs."""

    variant: str
    stage: str
    artifact: str
    runtime: str
    provider: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A placement for each stage of each variant, in running order."""

    placements: tuple[Placement, ...]


# ------------------------------------------------------------------ measurements


@dataclass(frozen=True)
class Measurement:
    """One number with all it takes to believe it.

    `kind` is `measured`, `simulated` (emulator or fake sensor) or `predicted`. A value that could not be
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
class Evidence:
    """What was found out about one candidate.

    `latency` maps a statistic (`p50`, `mean`, `p99`) to its measurement in ms; `drop` is in the metric's unit,
    positive when the candidate is worse than the original. `others` are shown and judged by nothing.
    """

    name: str
    latency: Mapping[str, Measurement]
    speedup: Measurement
    energy: Measurement
    size: Measurement
    metric: Measurement
    drop: Measurement
    others: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the table: a quantity of the original, of the candidate, and their ratio."""

    quantity: str
    original: Measurement
    candidate: Measurement
    ratio: Optional[Measurement] = None


@dataclass(frozen=True)
class Judgement:
    """One bound of the contract and whether it holds; `holds` is None when it could not be judged."""

    bound: str
    written: bool
    holds: Optional[bool]
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """What the contract decided: `met`, `not met` or `predicted ...`, and which candidate ships."""

    status: str
    shipped: str
    judgements: tuple[Judgement, ...]
    test_reads: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exit:
    """One way out of a model with gates, as rows really took it.

    `n` rows, the `share` of all, left here; `metric` is the task's, of these rows alone; `everyone` is the metric if
    every row left here. `cost_ms` is the mean time from the start to this exit in the running chain, `high_ms` what
    999 of 1000 stayed below.
    """

    stage: str
    threshold: Optional[float]
    share: float
    n: int
    metric: Optional[float]
    everyone: Optional[float]
    cost_ms: Optional[float]
    high_ms: Optional[float]


@dataclass(frozen=True)
class Tradeoff:
    """A choice of thresholds, what it costs on average (ms, from the calibrated stages) and the metric it reaches."""

    thresholds: tuple[Optional[float], ...]
    cost_ms: float
    metric: float
    chosen: bool = False


@dataclass(frozen=True)
class Exits:
    """How a model with gates was used: its ways out, the choices there were, and which examples left first and last.

    `metric` and `cost` say what the numbers are (`top-1 %`), `split` where exits were counted; `tradeoffs` were found
    on the splits that thresholds are fitted on. `early` and `late` are example ids of `split`.
    """

    split: str
    metric: str
    exits: tuple[Exit, ...]
    tradeoffs: tuple[Tradeoff, ...]
    early: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Original and candidate side by side, and everything that was skipped or left out, with reasons."""

    model: str
    target: str
    device: str
    rows: tuple[Row, ...]
    verdict: Verdict
    steps: tuple[Step, ...]
    candidates: tuple[Mapping[str, Any], ...]
    skipped: tuple[str, ...]
    settings: Mapping[str, Any]
    bundle: str = ""
    notes: tuple[str, ...] = ()
    exits: Optional[Exits] = None


# ------------------------------------------------------------------ plugins


@dataclass(frozen=True)
class Offer(Generic[T_co]):
    """A value and who offered it: how every error gets its name."""

    value: T_co
    plugin: str
    version: str
    entry: str = ""

    @property
    def label(self) -> str:
        """`edgewright-acme 0.3`."""
        return f"{self.plugin} {self.version}"
