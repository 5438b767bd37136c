"""Reads the nodes of an ONNX graph once: every rule looks at their wiring, which is slow to get from the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import onnx


class Node(NamedTuple):
    """What rules ask of a node most often, beside the node as the file has it (`proto`)."""

    op_type: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    proto: onnx.NodeProto

    @property
    def name(self) -> str:
        """The node's own name, else that of what it writes."""
        return self.proto.name or self.output[0]

    @property
    def domain(self) -> str:
        """Whose operator it is; empty for ONNX's own."""
        return self.proto.domain

    @property
    def attribute(self) -> Sequence[onnx.AttributeProto]:
        """Its attributes in the order of the file."""
        return self.proto.attribute


def nodes_of(graph: onnx.GraphProto) -> list[Node]:
    """All nodes of `graph` in its order."""
    return [Node(node.op_type, tuple(node.input), tuple(node.output), node) for node in graph.node]
