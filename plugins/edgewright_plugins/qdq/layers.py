"""The layers of a prepared graph: what has weights to quantise, and what goes in and out of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewright import onnxkit
from edgewright.types import Array, Arrays
from edgewright_plugins.qdq.prepare import value_shapes

KINDS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A node with a constant weight.

    `axis` is the weight's axis of output channels, `across` the one that is summed over (groups of values that share
    a scale run along it). `macs` are multiplications per example, 0 where shapes are not known.
    """

    name: str
    kind: str
    input: str
    weight: str
    bias: str | None
    output: str
    shape: tuple[int, ...]
    axis: int
    across: int
    macs: int

    @property
    def weights(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)


def layers_of(proto: onnx.ModelProto) -> list[Layer]:
    """The layers in running order. A weight that several nodes use counts for the first one."""
    constants = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    shapes = value_shapes(proto)
    found: dict[str, Layer] = {}
    for node in proto.graph.node:
        if node.op_type in KINDS and node.input[1] in constants and node.input[1] not in found:
            found[node.input[1]] = _layer(node, constants, shapes.get(node.output[0], ()))
    return list(found.values())


def _layer(node: onnx.NodeProto, constants: Mapping[str, tuple[int, ...]], out: Sequence[int | str]) -> Layer:
    shape = constants[node.input[1]]
    transposed = node.op_type == "Gemm" and int(attribute(node, "transB", 0)) == 1
    last = node.op_type != "Conv" and not transposed
    axis = len(shape) - 1 if last else 0
    across = len(shape) - 2 if last else 1
    bias = node.input[2] if len(node.input) > 2 and node.input[2] in constants else None
    sizes = [size if isinstance(size, int) else 1 for size in out]
    per_output = math.prod(shape[1:]) if node.op_type == "Conv" else shape[across]
    return Layer(
        node.name,
        node.op_type,
        node.input[0],
        node.input[1],
        bias,
        node.output[0],
        shape,
        axis,
        across,
        math.prod(sizes[1:]) * per_output if len(sizes) > 1 else 0,
    )


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute; `default` where the node does not say."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def constant(proto: onnx.ModelProto, name: str) -> Array:
    """The value of an initializer."""
    return numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name))


def with_constants(proto: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy in which initializers have other values."""
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    for tensor in graph.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(values[tensor.name]), tensor.name))
    return graph


def captured(proto: onnx.ModelProto, names: Sequence[str], feeds: Iterable[Arrays]) -> dict[str, Array]:
    """The values of inner tensors over `feeds`, computed here, joined on the first axis."""
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    given = {value.name for value in graph.graph.input}
    del graph.graph.output[:]
    inner = [name for name in dict.fromkeys(names) if name not in given]
    graph.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in inner)
    fed = list(feeds)
    runs = list(onnxkit.run(onnxkit.pack(graph), fed)) if inner else []
    found = {name: np.concatenate([each[name] for each in fed]) for name in names if name in given}
    for position, name in enumerate(inner):
        found[name] = np.concatenate([run[position] for run in runs])
    return found
