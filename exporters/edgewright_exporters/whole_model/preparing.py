"""Makes of a graph what TVM's importer can read: constants of fewer than 8 bits become the bytes they are cast to."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright_exporters.onnx_kernels.wiring import attributes, is_standard, read_by, wired

NARROW = frozenset(
    getattr(TensorProto, name) for name in ("INT4", "UINT4", "INT2", "UINT2") if hasattr(TensorProto, name)
)
"""Codes that ONNX packs several to a byte, which TVM does not unpack."""


def prepared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with every `Cast` of a narrow constant done."""
    wiring = wired(proto)
    narrow = {name for name, tensor in wiring.constants.items() if tensor.data_type in NARROW}
    if not narrow:
        return proto
    result, done = onnx.ModelProto(), dict[str, TensorProto]()
    result.CopyFrom(proto)
    for node in wiring.nodes:
        if is_standard(node, "Cast") and node.input[0] in narrow:
            wide = helper.tensor_dtype_to_np_dtype(attributes(node)["to"])
            array = numpy_helper.to_array(wiring.constants[node.input[0]]).astype(wide)
            done[node.output[0]] = numpy_helper.from_array(array, node.output[0])
    kept = [node for node in proto.graph.node if not done.keys() & set(node.output)]
    read = {*wiring.outputs, *(name for node in kept for name in read_by(node))}
    held = [tensor for tensor in proto.graph.initializer if tensor.name in read or tensor.name not in narrow]
    del result.graph.node[:], result.graph.initializer[:]
    result.graph.node.extend(kept)
    result.graph.initializer.extend([*held, *done.values()])
    return result
