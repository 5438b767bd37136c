"""The float graph that quantisation starts from: simplified, and every layer a Conv, a Gemm or a MatMul."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewright import onnxkit
from edgewright.errors import ModelError
from edgewright.types import Dim
from edgewright_plugins.simplify.graph import simplify

OLDEST = 13
"""The first opset whose QuantizeLinear takes a scale per channel."""


def prepare(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph with the same outputs, in the form that quantises best, with the shapes of its values noted.

    Raises: ModelError when the file is older than opset 13 and cannot be raised.
    """
    graph, remarks = simplify(_own(proto))
    opset = onnxkit.opsets(graph).get("ai.onnx", OLDEST)
    if opset < OLDEST:
        raise ModelError(
            f"quantize needs opset {OLDEST}, this file has {opset} ({'; '.join(remarks)}); "
            "export the model again with opset 17"
        )
    return inferred(with_gemms(inferred(graph)))


def _own(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without two things of old files that later steps trip over: weights among inputs, stale shapes."""
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    weights = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in weights]
    del graph.graph.input[:]
    graph.graph.input.extend(inputs)
    graph.ir_version = max(graph.ir_version, onnxkit.OLDEST_IR)
    del graph.graph.value_info[:]
    return graph


def inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph itself, with the shapes of its values noted."""
    del proto.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


# ------------------------------------------------------------------ MatMul + Add -> Gemm


@dataclass(frozen=True)
class _Linear:
    """A MatMul with a constant matrix, the Add of its bias if there is one, and the shape it puts out."""

    matmul: onnx.NodeProto
    add: onnx.NodeProto | None
    bias: str | None
    shape: tuple[int, ...]

    @property
    def output(self) -> str:
        return (self.add or self.matmul).output[0]


def with_gemms(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Each MatMul with a constant matrix as a Gemm over rows.

    Runtimes merge MatMul and Add into Gemm before they look for int8 layers, and then run the float Gemm:
    measured 0.69 of float speed on a DeiT-tiny, against 1.8 with the Gemm written out here.
    """
    linears = {id(linear.matmul): linear for linear in _linears(proto)}
    merged = {id(linear.add) for linear in linears.values() if linear.add is not None}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        if id(node) in linears:
            nodes += _rows_gemm(proto, linears[id(node)])
        elif id(node) not in merged:
            nodes.append(node)
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


def _linears(proto: onnx.ModelProto) -> list[_Linear]:
    constants = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    shapes = value_shapes(proto)
    kept = {value.name for value in proto.graph.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found: list[_Linear] = []
    for node in proto.graph.node:
        if node.op_type == "MatMul" and len(constants.get(node.input[1], ())) == 2:
            shape = _target_shape(shapes.get(node.output[0], ()))
            if shape:
                followers = [] if node.output[0] in kept else users.get(node.output[0], [])
                add, bias = _bias(node.output[0], followers, constants, constants[node.input[1]][1])
                found.append(_Linear(node, add, bias, shape))
    return found


def _target_shape(shape: tuple[Dim, ...]) -> tuple[int, ...]:
    """What a Reshape takes to restore `shape`; empty when more than one of its sizes is unknown."""
    sizes = tuple(dim if isinstance(dim, int) else -1 for dim in shape)
    return sizes if len(sizes) >= 2 and sizes.count(-1) <= 1 and 0 not in sizes else ()


def _bias(
    product: str, followers: list[onnx.NodeProto], constants: dict[str, tuple[int, ...]], width: int
) -> tuple[onnx.NodeProto | None, str | None]:
    if len(followers) == 1 and followers[0].op_type == "Add":
        others = [name for name in followers[0].input if name != product]
        if others and constants.get(others[0]) == (width,):
            return followers[0], others[0]
    return None, None


def _rows_gemm(proto: onnx.ModelProto, linear: _Linear) -> list[onnx.NodeProto]:
    matmul, output = linear.matmul, linear.output
    operands = [matmul.input[1]] + ([linear.bias] if linear.bias else [])
    if len(linear.shape) == 2:
        return [helper.make_node("Gemm", [matmul.input[0], *operands], [output], matmul.name)]
    depth = next(t.dims[0] for t in proto.graph.initializer if t.name == matmul.input[1])
    flat, back = f"{output}_rows_shape", f"{output}_shape"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1, depth], np.int64), flat))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(linear.shape, np.int64), back))
    return [
        helper.make_node("Reshape", [matmul.input[0], flat], [f"{output}_rows"], f"{matmul.name}_rows"),
        helper.make_node("Gemm", [f"{output}_rows", *operands], [f"{output}_flat"], matmul.name),
        helper.make_node("Reshape", [f"{output}_flat", back], [output], f"{matmul.name}_back"),
    ]


def value_shapes(proto: onnx.ModelProto) -> dict[str, tuple[Dim, ...]]:
    """The shape of each float32 value that has one; sizes that are not known are strings."""
    values = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
    return {
        value.name: tuple(dim.dim_value or dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
