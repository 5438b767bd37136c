"""Brings an ONNX file into the form that work is counted on: standard operators, every size known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgewright.errors import ModelError
from edgewright_devices.shapes import SMALL, Sized, fix_inputs, infer

if TYPE_CHECKING:
    import onnx

STANDARD = {
    "QLinearConv": ("Conv", slice(0, 4, 3)),
    "QLinearMatMul": ("MatMul", slice(0, 4, 3)),
    "QGemm": ("Gemm", slice(0, 4, 3)),
    "QLinearAdd": ("Add", slice(0, 4, 3)),
    "QLinearMul": ("Mul", slice(0, 4, 3)),
    "QLinearConcat": ("Concat", slice(2, None, 3)),
    "QLinearAveragePool": ("AveragePool", slice(1)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", slice(1)),
    "QLinearSigmoid": ("Sigmoid", slice(1)),
    "QLinearLeakyRelu": ("LeakyRelu", slice(1)),
    "QLinearSoftmax": ("Softmax", slice(1)),
    "MatMulIntegerToFloat": ("MatMulInteger", slice(2)),
    "FusedConv": ("Conv", slice(2)),
    "FusedGemm": ("Gemm", slice(2)),
    "BiasGelu": ("Erf", slice(1)),
    "FastGelu": ("Erf", slice(1)),
    "Gelu": ("Erf", slice(1)),
    "QuickGelu": ("Erf", slice(1)),
    "SkipLayerNormalization": ("Add", slice(2)),
}
"""Fused and quantised operators, the standard one that does the same work, and which inputs it takes over."""


def read(path: Path) -> onnx.ModelProto:
    """The model in the file at `path`; weights kept in other files stay there. Raises: ModelError."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as cause:
        raise ModelError(f"{path} cannot be read as an ONNX model: {cause}") from cause


def prepare(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], batch: int) -> Sized:
    """The graph of `proto`, local functions inlined, fused operators replaced by standard ones, every size known.

    The values of weights are dropped first: each pass over a graph would copy them.
    """
    import onnx.inliner

    _drop_default_inputs(proto)
    _drop_values(proto.graph)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    proto = _modernise(proto)
    _standardise(proto.graph)
    fix_inputs(proto.graph, shapes, batch)
    return infer(proto)


def _drop_values(graph: onnx.GraphProto) -> None:
    """Keep the sizes of weights; small constants may be sizes of something, and stay."""
    for tensor in graph.initializer:
        if len(tensor.raw_data) > 8 * SMALL:
            tensor.ClearField("raw_data")
            tensor.data_location = tensor.EXTERNAL
            tensor.external_data.add(key="location", value="dropped")


class Branched(Protocol):
    """A node, as far as its branches need it."""

    @property
    def attribute(self) -> Sequence[onnx.AttributeProto]: ...


def branches(node: Branched) -> Iterator[onnx.GraphProto]:
    """The branches of an `If`."""
    return (attribute.g for attribute in node.attribute if attribute.name.endswith("_branch"))


def _drop_default_inputs(proto: onnx.ModelProto) -> None:
    """Old files list weights among the inputs too, where shape inference does not take them for constants."""
    weights = {initializer.name for initializer in proto.graph.initializer}
    fed = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(fed)
    proto.ir_version = max(proto.ir_version, 4)


def _modernise(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Before opset 13 shapes are not inferred through computed ones; a file that cannot be raised stays as it is."""
    import onnx.version_converter

    if any(entry.domain in {"", "ai.onnx"} and entry.version >= 13 for entry in proto.opset_import):
        return proto
    try:
        return onnx.version_converter.convert_version(proto, 13)
    except RuntimeError:
        return proto


def _standardise(graph: onnx.GraphProto) -> None:
    """Replace fused and quantised operators by standard ones, for which ONNX knows how shapes follow.

    Exporters' notes on nodes go: shape inference would copy them, and they may be longer than the graph.
    """
    for node in graph.node:
        node.ClearField("metadata_props")
        operator = node.op_type
        if operator in STANDARD:
            node.op_type, taken = STANDARD[operator]
            inputs = list(node.input)[taken]
            del node.input[:]
            node.input.extend(inputs)
            node.domain = ""
        elif operator == "If":
            for branch in branches(node):
                _standardise(branch)
