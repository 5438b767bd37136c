"""What one run of a network showed: calls of modules, uses of weights, attentions, and which layers lie behind what."""

from __future__ import annotations

from dataclasses import dataclass, field

Names = frozenset[str]
Shape = tuple[int, ...]

NOTHING: Names = frozenset()


@dataclass(frozen=True)
class Layer:
    """One use of a weight on some `positions`, the batch included.

    `fed` names the layers whose results reached it with no other layer in between.
    """

    at: int
    path: str
    kind: str
    wide_in: int
    wide_out: int
    positions: int
    fed: Names = NOTHING
    pointwise: bool = True
    depthwise: bool = False


@dataclass(frozen=True)
class Attend:
    """One attention: the layers behind its queries, keys and values, the shape of its scores, channels per head."""

    at: int
    query: Names
    key: Names
    value: Names
    scores: Shape
    head_dim: int
    value_dim: int

    @property
    def mark(self) -> str:
        """What `Layer.fed` of the layers behind it holds."""
        return f"@attended {self.at}"


@dataclass(frozen=True)
class Norm:
    """One normalisation."""

    at: int
    path: str


@dataclass(frozen=True)
class Call:
    """One call of a module, from `at` to `end`: layers behind its first input and output, and their shapes."""

    path: str
    at: int
    end: int
    fed: Names
    gives: Names
    in_shape: Shape
    out_shape: Shape

    @property
    def residual(self) -> bool:
        """Whether what comes in also leaves without passing a layer."""
        return bool(self.fed & self.gives)

    def holds(self, at: int) -> bool:
        """Whether something happened within this call."""
        return self.at <= at <= self.end


@dataclass
class Trace:
    """Everything that one run showed, in the order it happened; `gives` are the layers behind the result."""

    calls: list[Call] = field(default_factory=list[Call])
    layers: list[Layer] = field(default_factory=list[Layer])
    attends: list[Attend] = field(default_factory=list[Attend])
    norms: list[Norm] = field(default_factory=list[Norm])
    activated: set[str] = field(default_factory=set[str])
    gives: Names = NOTHING

    def layers_of(self, call: Call) -> list[Layer]:
        """The weights that were used within a call."""
        return [layer for layer in self.layers if call.holds(layer.at)]

    def calls_of(self, path: str) -> list[Call]:
        """Every call of one module."""
        return [call for call in self.calls if call.path == path]
