"""Gives every tensor of an ONNX graph its size, once the sizes of its inputs are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from edgewright_devices.nodes import Node, nodes_of

if TYPE_CHECKING:
    import onnx

SMALL = 64
"""Constants up to this many elements may be sizes; larger ones are weights and are left alone."""

INTEGERS = {6, 7}
"""INT32 and INT64, by their number in TensorProto.DataType: types that sizes have."""

EXTERNAL = 1
"""TensorProto.EXTERNAL: the values are in another file, or were dropped."""

ROUNDS = 16
"""How many computed shapes may depend on one another before we give up."""


def fix_inputs(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]], batch: int) -> None:
    """Give every input of `graph` its sizes, and forget the shapes that were inferred for other ones.

    An input that `shapes` does not name keeps its own sizes; a free first dimension becomes `batch`, another 1.
    """
    for value in graph.input:
        given = shapes.get(value.name, ())
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis < len(given):
                dim.dim_value = given[axis]
            elif not dim.HasField("dim_value"):
                dim.dim_value = batch if axis == 0 else 1
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


@dataclass(frozen=True)
class Sized:
    """A graph with all sizes that can be known, and its nodes."""

    graph: onnx.GraphProto
    nodes: Sequence[Node]


def infer(proto: onnx.ModelProto) -> Sized:
    """`proto` with all shapes that can be known.

    Shape inference alone stops where a size is computed by the graph itself (`x.reshape(x.shape[0], -1)`), so
    such computations are replaced by their results and inference goes on from there.
    """
    import onnx.shape_inference

    nodes: list[Node] = []
    for _ in range(ROUNDS):
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        nodes = nodes_of(proto.graph)
        if not _fold_sizes(proto, nodes):
            break
    else:
        nodes = nodes_of(proto.graph)
    return Sized(proto.graph, nodes)


def sizes_of(tensor: onnx.TypeProto.Tensor) -> tuple[int, ...] | None:
    """The sizes that a type states, None unless all are known."""
    sizes = tuple([dim.dim_value for dim in tensor.shape.dim])
    if not all(sizes) and not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None  # a size that is not known reads as 0
    return sizes if sizes or tensor.HasField("shape") else None


def _fold_sizes(proto: onnx.ModelProto, nodes: Sequence[Node]) -> bool:
    """Replace computations on sizes by constants. Whether any was found."""
    from onnx import numpy_helper

    graph = proto.graph
    shapes = _shapes(graph) if any(node.op_type == "Shape" for node in nodes) else {}
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer if _is_size(i)}
    found = False
    for node in nodes:
        result = _evaluate(node, shapes, values, proto)
        if result is not None and result.size <= SMALL:
            values[node.output[0]] = result
            found = found or node.op_type != "Constant"
            _make_constant(node.proto, result)
    return found


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...] | None]:
    """What is known of the size of each tensor."""
    return {each.name: sizes_of(each.type.tensor_type) for each in (*graph.input, *graph.value_info, *graph.output)}


def _is_size(initializer: onnx.TensorProto) -> bool:
    inline = initializer.data_location != EXTERNAL
    return initializer.data_type in INTEGERS and inline and prod(initializer.dims) <= SMALL


def _evaluate(node: Node, shapes: Mapping[str, Any], values: Mapping[str, Any], proto: Any) -> Any:
    """What the node gives if it works on known sizes, else None."""
    if node.op_type == "Shape" and shapes.get(node.input[0]) is not None and not node.attribute:
        import numpy as np

        return np.array(shapes[node.input[0]], np.int64)
    if node.op_type == "Constant" and node.attribute[0].name == "value":
        return _integers_of(node.attribute[0].t)
    if node.op_type == "Constant" or (node.input and all([name in values for name in node.input if name])):
        return _run(node.proto, values, proto)
    return None


def _integers_of(tensor: onnx.TensorProto) -> Any:
    """A constant's array where it may be a size, else None."""
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor) if _is_size(tensor) else None


def _run(node: onnx.NodeProto, values: Mapping[str, Any], proto: onnx.ModelProto) -> Any:
    """The node's integer output by ONNX's own reference implementation; None where it has none."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    feeds = {name: values[name] for name in node.input if name}
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in feeds]
    outputs = [onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.INT64, None)]
    graph = onnx.helper.make_graph([node], "size", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=proto.opset_import)
    try:
        result: Any = next(iter(ReferenceEvaluator(model).run(None, feeds)))
    except (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError):
        return None
    return result if getattr(result, "dtype", None) in ("int64", "int32") else None


def _make_constant(node: onnx.NodeProto, result: Any) -> None:
    from onnx import helper, numpy_helper

    constant = helper.make_node("Constant", [], list(node.output), value=numpy_helper.from_array(result))
    node.CopyFrom(constant)
