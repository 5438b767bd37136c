"""What a translator sees of an ONNX node, and what it answers with: one torch call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from torch import Tensor, fx, nn

from edgewright.errors import RefusedError


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph: what it is on the example inputs, and where it comes from.

    `source` is None for a constant, which is then known for every input.
    """

    name: str
    tensor: Tensor
    source: fx.Node | None = None

    @property
    def constant(self) -> bool:
        """Whether it depends on no input."""
        return self.source is None


@dataclass(frozen=True, eq=False)
class Call:
    """A torch function, or a layer, on values, other calls and plain Python arguments.

    A layer says where it would stand in the module, best first, and what the file calls its weight.
    """

    target: Union[Callable[..., Any], nn.Module]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    weight: str = ""


@dataclass(frozen=True, eq=False)
class Node:
    """An ONNX node with its inputs resolved.

    With `free_batch`, axis 0 is taken for the batch and left free where a shape is written out.
    """

    op: str
    name: str
    opset: int
    inputs: tuple[Value | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    free_batch: bool = True

    @property
    def x(self) -> Value:
        """The first input."""
        return self.value(0)

    def has(self, index: int) -> bool:
        """Whether the input was given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def value(self, index: int) -> Value:
        """The input at `index`. Raises: RefusedError when it was left out."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise self.refusal(f"has no input {index}")
        return found

    def constant(self, index: int) -> Tensor:
        """The value of an input that must not depend on data. Raises: RefusedError when it does."""
        value = self.value(index)
        if not value.constant:
            raise self.refusal(f"computes its input {value.name!r} from data")
        return value.tensor

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, or what the operator's definition says for its absence."""
        return self.attributes.get(name, default)

    def ints(self, name: str, index: int) -> list[int] | None:
        """Integers that older operators keep in an attribute and newer ones in an input; None when absent."""
        if name in self.attributes:
            return [int(i) for i in self.attributes[name]]
        if not self.has(index):
            return None
        return [int(i) for i in self.constant(index).reshape(-1).tolist()]

    def axis(self, name: str = "axis", default: int = 0) -> int:
        """An axis of the first input, counted from the front."""
        axis = int(self.attr(name, default))
        return axis + self.x.tensor.ndim if axis < 0 else axis

    def refusal(self, what: str) -> RefusedError:
        """The error for something about this node that torch cannot do."""
        return RefusedError(f"lift: {self.op} (opset {self.opset}) at node {self.name!r} {what}")
