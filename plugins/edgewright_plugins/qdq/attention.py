"""Which nodes are attention's own: its two products, what stands between them, and what only prepares their operands.

They stay float: their sums are short, so that bytes save little, while scores of 8 bits and shares in steps of 1/256
lose much; and a kernel that computes all of attention at once takes floats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import onnx

VIEWS = ("Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
"""They only arrange what they are given."""
BETWEEN = ("Add", "Cast", "Div", "Identity", "Mul", "Softmax", "Where", *VIEWS)
"""What may stand between the products: scales, masks, and the softmax that must."""


@dataclass(frozen=True, eq=False)
class _Graph:
    """Who makes and who reads each value, and the shapes of constants."""

    makers: dict[str, onnx.NodeProto]
    readers: dict[str, list[onnx.NodeProto]]
    constants: dict[str, tuple[int, ...]]

    def multiplies(self, node: onnx.NodeProto) -> bool:
        """Whether it is a product of two values that are computed."""
        return node.op_type == "MatMul" and not any(name in self.constants for name in node.input)

    def scales(self, node: onnx.NodeProto) -> bool:
        """Whether it multiplies by one number."""
        return node.op_type in ("Mul", "Div") and any(prod(self.constants.get(name, (0,))) == 1 for name in node.input)


def attention_nodes(proto: onnx.ModelProto) -> frozenset[str]:
    """The names of these nodes in a graph."""
    graph = _graph_of(proto)
    found = {n.name for last in proto.graph.node if graph.multiplies(last) for n in _behind(graph, last, ())}
    kept = {value.name for value in proto.graph.output}
    for node in reversed(proto.graph.node):
        readers = [reader.name for name in node.output for reader in graph.readers.get(name, [])]
        prepares = node.op_type in VIEWS or graph.scales(node)
        if prepares and readers and found.issuperset(readers) and kept.isdisjoint(node.output):
            found.add(node.name)
    return frozenset(found)


def _graph_of(proto: onnx.ModelProto) -> _Graph:
    graph = _Graph({}, {}, {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer})
    for node in proto.graph.node:
        graph.makers.update(dict.fromkeys(node.output, node))
        for name in node.input:
            graph.readers.setdefault(name, []).append(node)
    return graph


def _behind(graph: _Graph, node: onnx.NodeProto, path: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes of every way from a product, by its first operand, back through a softmax to a product."""
    path = (*path, node)
    for name in node.input[:1] if len(path) == 1 else node.input:
        maker = graph.makers.get(name)
        if maker is None:
            continue
        if maker.op_type in BETWEEN:
            yield from _behind(graph, maker, path)
        elif graph.multiplies(maker) and any(each.op_type == "Softmax" for each in path):
            yield from (*path, maker)
