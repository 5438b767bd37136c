"""A graph taken apart into nodes and constants, and put together again without what nobody reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edgewright.types import Array


@dataclass(frozen=True, eq=False)
class Parts:
    """The nodes of a graph in running order and its constants by name; both are there to be changed."""

    source: onnx.ModelProto
    nodes: list[onnx.NodeProto]
    constants: dict[str, onnx.TensorProto]

    def value(self, name: str) -> Array:
        """A constant as an array."""
        return numpy_helper.to_array(self.constants[name])

    def put(self, name: str, values: Array) -> None:
        """Add a constant, or give it another value."""
        self.constants[name] = numpy_helper.from_array(np.asarray(values), name)

    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each value."""
        return {output: node for node in self.nodes for output in node.output if output}


def taken_apart(proto: onnx.ModelProto) -> Parts:
    """The parts of a copy of the graph."""
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    return Parts(graph, list(graph.graph.node), {tensor.name: tensor for tensor in graph.graph.initializer})


def joined(parts: Parts) -> onnx.ModelProto:
    """The graph of these parts; nodes and constants whose values nobody reads are left out."""
    read = {value.name for value in parts.source.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(parts.nodes):
        if read.intersection(node.output):
            kept.append(node)
            read.update(reads(node))
    graph = onnx.ModelProto()
    graph.CopyFrom(parts.source)
    del graph.graph.node[:], graph.graph.initializer[:], graph.graph.value_info[:]
    graph.graph.node.extend(reversed(kept))
    graph.graph.initializer.extend(tensor for name, tensor in parts.constants.items() if name in read)
    return graph


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, the graphs inside it included."""
    yield from node.input
    for attribute in node.attribute:
        graphs: Iterable[onnx.GraphProto] = (attribute.g, *attribute.graphs)
        for graph in graphs:
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from reads(inner)
