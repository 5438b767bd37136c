"""A network on its way to a device: graphs, the stages and variants they form, and the steps that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional, Union

from edgewright.errors import EdgewrightError
from edgewright.types.tensors import Arrays, Signature


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
