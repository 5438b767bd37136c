"""From a prepared float graph and a scheme to an int8 graph; onnxruntime's quantisers do the rewriting."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode, add_infer_metadata

from edgewright_plugins.qdq.attention import VIEWS, attention_nodes
from edgewright_plugins.qdq.parts import joined, reads, taken_apart
from edgewright_plugins.qdq.prepare import value_shapes
from edgewright_plugins.qdq.ranges import Range
from edgewright_plugins.qdq.scores import score_nodes

LAYERS = ("Conv", "Gemm", "MatMul")
ARITHMETIC = (
    "Add",
    "AveragePool",
    "Concat",
    "GlobalAveragePool",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Resize",
    "Sigmoid",
    "Softmax",
)
CARRIERS = (
    "Clip",
    "Flatten",
    "Gather",
    "Pad",
    "Relu",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""They follow what stands before them: in int8 they move bytes, or vanish."""


@dataclass(frozen=True)
class Scheme:
    """One way to quantise a graph.

    `kind` is `static` (every operator that has an int8 form, attention apart), `static-layers` (Q/DQ around the inputs
    and weights of layers only; outputs stay float), `dynamic` (ranges found at run time) or `weights` (all arithmetic
    in float). `kept` names nodes that stay float, `widths` the bits of layers whose weights have fewer than 8.
    """

    kind: str
    activations: str = "u8"
    per_channel: bool = True
    kept: frozenset[str] = frozenset()
    widths: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        name = f"{self.kind} {self.activations}" if self.kind.startswith("static") else self.kind
        counts = sorted(Counter(bits for _, bits in self.widths).items())
        told = [f"{count} in {bits} bits" for bits, count in counts] + [f"{len(self.kept)} float"] * bool(self.kept)
        return f"{name} with {', '.join(told)}" if told else name

    @property
    def key(self) -> str:
        """Names the scheme in full, the same in every process."""
        return f"{self.kind} {self.activations} {self.per_channel} {sorted(self.kept)} {list(self.widths)}"

    def keeping(self, nodes: frozenset[str]) -> Scheme:
        """The same with more nodes kept float."""
        widths = tuple(entry for entry in self.widths if entry[0] not in nodes)
        return replace(self, kept=self.kept | nodes, widths=widths)

    def narrowed(self, bits: Mapping[str, int]) -> Scheme:
        """The same with weights of so many bits, by layer; layers that are not named have 8."""
        return replace(self, widths=tuple(sorted((name, each) for name, each in bits.items() if each < 8)))


def build(proto: onnx.ModelProto, scheme: Scheme, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """The graph quantised by `scheme`; `ranges` is not read when it is dynamic."""
    nodes = [name for name in quantised_nodes(proto, scheme) if name not in scheme.kept]
    if not nodes:
        return proto
    if scheme.kind == "dynamic":
        return _dynamic(proto, scheme, nodes)
    nodes = _without_idle_views(proto, nodes)
    return _without_idle_pairs(_static(proto, scheme, nodes, ranges), nodes)


def quantised_nodes(proto: onnx.ModelProto, scheme: Scheme) -> list[str]:
    """The nodes that `scheme` would quantise if it kept none, in the graph's order."""
    floats = value_shapes(proto)
    weights = {tensor.name for tensor in proto.graph.initializer}
    floating = score_nodes(proto) | (attention_nodes(proto) if scheme.kind == "static" else frozenset())
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in _operators(scheme)
        and node.output[0] in floats
        and node.name not in floating
        and _fits(node, scheme, weights)
    ]


def _without_idle_views(proto: onnx.ModelProto, nodes: Sequence[str]) -> list[str]:
    """The nodes without views that carry bytes to nobody who computes with them."""
    left = set(nodes)
    taken: set[str] = set()
    for node in reversed(proto.graph.node):
        if node.op_type in VIEWS and taken.isdisjoint(node.output):
            left.discard(node.name)
        if node.name in left:
            taken.update(node.input)
    return [name for name in nodes if name in left]


def _without_idle_pairs(proto: onnx.ModelProto, nodes: Sequence[str]) -> onnx.ModelProto:
    """The graph in which layers give float32 themselves where none of `nodes` takes the bytes of what they give.

    Convolutions give bytes all the same: runtimes have no kernel of bytes for one that does not.
    """
    parts, readers = taken_apart(proto), defaultdict[str, list[onnx.NodeProto]](list)
    for node in parts.nodes:
        for name in reads(node):
            readers[name].append(node)
    idle: list[onnx.NodeProto] = []
    for node in parts.nodes:
        down = _only(readers[node.output[0]], "QuantizeLinear") if node.op_type in ("Gemm", "MatMul") else None
        up = None if down is None else _only(readers[down.output[0]], "DequantizeLinear")
        if down is not None and up is not None and not {each.name for each in readers[up.output[0]]} & set(nodes):
            node.output[0] = up.output[0]
            idle += [down, up]
    parts.nodes[:] = [node for node in parts.nodes if not any(node is each for each in idle)]
    return joined(parts) if idle else proto


def _only(nodes: Sequence[onnx.NodeProto], kind: str) -> onnx.NodeProto | None:
    """The one node there is, if it is of a kind."""
    return nodes[0] if len(nodes) == 1 and nodes[0].op_type == kind else None


def _operators(scheme: Scheme) -> tuple[str, ...]:
    if scheme.kind == "static":
        return (*LAYERS, *ARITHMETIC, *CARRIERS)
    return ("Gemm", "MatMul") if scheme.kind == "dynamic" else LAYERS


def _fits(node: onnx.NodeProto, scheme: Scheme, weights: set[str]) -> bool:
    """Layers without constant weights (attention's products) gain only where their neighbours are int8 too."""
    return scheme.kind == "static" or node.input[1] in weights


def activations(proto: onnx.ModelProto) -> list[str]:
    """The float values that some static scheme may quantise, in the graph's order."""
    floats = value_shapes(proto)
    weights = {tensor.name for tensor in proto.graph.initializer}
    found: dict[str, None] = {}
    for node in proto.graph.node:
        if node.op_type in (*LAYERS, *ARITHMETIC, *CARRIERS):
            found.update({n: None for n in (*node.input, *node.output) if n in floats and n not in weights})
    return list(found)


def _static(proto: onnx.ModelProto, scheme: Scheme, nodes: list[str], ranges: Mapping[str, Range]) -> onnx.ModelProto:
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    # Shapes are known already; without this mark they would be inferred again through files on disk.
    add_infer_metadata(graph)
    operators = _operators(scheme)
    options: dict[str, Any] = {"QDQKeepRemovableActivations": not _bounded(proto, ranges)}
    if scheme.kind == "static-layers":
        options["OpTypesToExcludeOutputQuantization"] = list(operators)
    quantizer = QDQQuantizer(
        graph,
        scheme.per_channel,
        False,
        QuantType.QInt8,
        QuantType.QUInt8 if scheme.activations == "u8" else QuantType.QInt8,
        _tensors_data(ranges),
        nodes,
        [],
        list(operators),
        options,
    )
    quantizer.quantize_model()
    return _finished(quantizer.model.model, proto)


def _dynamic(proto: onnx.ModelProto, scheme: Scheme, nodes: list[str]) -> onnx.ModelProto:
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    del graph.graph.value_info[:]
    # The quantiser first splits each Gemm into a MatMul of this name and an Add.
    names = [*nodes, *(f"{name}_MatMul" for name in nodes)]
    quantizer = ONNXQuantizer(
        graph,
        scheme.per_channel,
        False,
        QuantizationMode.IntegerOps,
        False,
        QuantType.QInt8,
        QuantType.QUInt8,
        None,
        names,
        [],
        ["MatMul"],
        {"MatMulConstBOnly": True},
    )
    quantizer.quantize_model()
    return _finished(quantizer.model.model, proto)


def _bounded(proto: onnx.ModelProto, ranges: Mapping[str, Range]) -> bool:
    """Whether the ranges behind Relu and Clip end where these cut values off, so that rounding does their work."""
    constants = {t.name: float(numpy_helper.to_array(t)) for t in proto.graph.initializer if not t.dims}
    for node in proto.graph.node:
        if node.op_type in ("Relu", "Clip") and node.output[0] in ranges:
            ends = [constants.get(name) for name in (*node.input[1:], "", "")]
            least, most = (0.0, None) if node.op_type == "Relu" else (ends[0], ends[1])
            low, high = ranges[node.output[0]]
            if (least is not None and low < least) or (most is not None and high > most):
                return False
    return True


def _tensors_data(ranges: Mapping[str, Range]) -> TensorsData:
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
            for name, (low, high) in ranges.items()
        },
    )


def _finished(rewritten: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """In running order, without the quantiser's marks, and signed as the source was."""
    model = ir.serde.deserialize_model(rewritten)
    model.graph.sort()
    graph = ir.serde.serialize_model(model)
    del graph.metadata_props[:]
    graph.metadata_props.extend(source.metadata_props)
    graph.producer_name, graph.producer_version = source.producer_name, source.producer_version
    return graph
