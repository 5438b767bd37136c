"""Makes of a graph what TVM's importer can read: operators of a later opset, and bytes for constants of fewer bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from edgewright import onnxkit
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard, read_by, wired

OLDEST_OPSET = 13
"""Before it Slice, Clip, Squeeze and others say in attributes, or not at all, what TVM takes from inputs."""

WIDE: Mapping[int, str] = {
    getattr(TensorProto, name): wide
    for name, wide in (("INT4", "int8"), ("UINT4", "uint8"), ("INT2", "int8"), ("UINT2", "uint8"))
    if hasattr(TensorProto, name)
}
"""Codes that ONNX packs several to a byte, which TVM does not unpack, and what holds them."""

TAKES_BYTES = ("Cast", "DequantizeLinear")
"""Operators that make the same of wider codes."""


def prepared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in a later opset, without narrow constants.

    What cannot be raised stays as it is, and so do constants that it cannot do without (see `narrow_readers`).
    """
    proto = _raised(proto)
    wiring = wired(proto)
    wide = {name: _widened(tensor) for name, tensor in wiring.constants.items() if tensor.data_type in WIDE}
    if not wide or narrow_readers(wiring):
        return proto
    cast = [node for node in wiring.nodes if is_standard(node, "Cast") and node.input[0] in wide]
    for node in cast:
        array = numpy_helper.to_array(wide[node.input[0]])
        dtype = helper.tensor_dtype_to_np_dtype(attributes(node)["to"])
        wide[node.output[0]] = numpy_helper.from_array(array.astype(dtype), node.output[0])
    return _with_constants(proto, wide)


def _raised(proto: onnx.ModelProto) -> onnx.ModelProto:
    if onnxkit.opsets(proto).get("ai.onnx", OLDEST_OPSET) >= OLDEST_OPSET or proto.functions:
        return proto
    try:
        return version_converter.convert_version(proto, OLDEST_OPSET)
    except RuntimeError:
        return proto


def narrow_readers(wiring: Wiring) -> list[str]:
    """The operators that take narrow constants and would make something else of wider ones."""
    narrow = {name for name, tensor in wiring.constants.items() if tensor.data_type in WIDE}
    return [n.op_type for n in wiring.nodes if narrow.intersection(n.input) and not is_standard(n, *TAKES_BYTES)]


def _widened(tensor: TensorProto) -> TensorProto:
    array = np.asarray(numpy_helper.to_array(tensor)).astype(WIDE[tensor.data_type])
    return numpy_helper.from_array(array, tensor.name)


def _with_constants(proto: onnx.ModelProto, constants: Mapping[str, TensorProto]) -> onnx.ModelProto:
    """The graph in which `constants` stand for whatever made values of their names; unread ones are left out."""
    nodes = [node for node in proto.graph.node if not constants.keys() & set(node.output)]
    read = {*(value.name for value in proto.graph.output), *(name for node in nodes for name in read_by(node))}
    others = [tensor for tensor in proto.graph.initializer if tensor.name not in constants]
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    for field in ("node", "initializer", "value_info"):
        result.graph.ClearField(field)
    result.graph.node.extend(nodes)
    result.graph.initializer.extend([*others, *(value for name, value in constants.items() if name in read)])
    return result
