"""Simplifies one ONNX graph; knows nothing of models and targets."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import version_converter
from onnx_ir.passes import common as passes
from onnxscript import optimizer

from edgewright import onnxkit
from edgewright.numerics import Difference, worst
from edgewright_plugins.loaders.noise import noise
from edgewright_plugins.simplify.rules import bias_rules

OPSET = 17
"""What later methods count on: per-channel scales (13), LayerNormalization (17)."""
TOLERANCE = 1e-3
"""How far outputs may move, relative to the largest value of that output."""
FOLD_LIMIT = 2**28
"""Elements a constant may have to be folded; results that would make the file grow are left out anyway."""
EXPORTER_DOMAINS = ("pkg.", "torch.")
"""Functions that exporters write only to structure a file. Others may have kernels and stay calls."""


def simplify(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A graph of the same inputs, outputs and function with fewer nodes, and remarks for the user.

    The graph comes back as it was when it is not the same function within `TOLERANCE` on noise.
    """
    raised, remarks = raise_opset(proto)
    simplified = optimize(raised)
    moved = largest_move(proto, simplified)
    if not moved.max_rel <= TOLERANCE:
        return proto, [f"left as it was: the simpler graph moved {moved.name} by {moved.max_rel:.1e} of its range"]
    return simplified, remarks


def raise_opset(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model at opset 17 when its own is older and can be converted, and what happened."""
    opset = onnxkit.opsets(proto).get("ai.onnx", OPSET)
    if opset >= OPSET:
        return proto, []
    if proto.functions:
        return proto, [f"opset {opset} kept: the converter drops the functions in the file"]
    try:
        raised = version_converter.convert_version(proto, OPSET)
    except RuntimeError as error:
        return proto, [f"opset {opset} kept: {str(error).strip().splitlines()[0]}"]
    raised.metadata_props.extend(entry for entry in proto.metadata_props if entry not in raised.metadata_props)
    return raised, [f"opset {opset} raised to {OPSET}"]


def optimize(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Constants and batch norms folded; dead, repeated and idle nodes dropped; every node named."""
    model = ir.serde.deserialize_model(proto)
    known = {node.name for node in model.graph if node.name}
    layers = _layer_names(model.graph)
    passes.InlinePass(lambda function: function.domain.startswith(EXPORTER_DOMAINS))(model)
    optimizer.optimize_ir(model, input_size_limit=FOLD_LIMIT, inline=False)
    bias_rules().apply_to_model(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    _name_nodes(model.graph, known, layers)
    passes.NameFixPass()(model)
    return ir.serde.serialize_model(model)


def largest_move(before: onnx.ModelProto, after: onnx.ModelProto) -> Difference:
    """The output of `after` that is furthest from that of `before` on noise."""
    feeds = [noise((onnxkit.tensor_spec(value) for value in before.graph.input), seed=0)]
    (reference,) = onnxkit.run(onnxkit.pack(before), feeds)
    (outputs,) = onnxkit.run(onnxkit.pack(after), feeds)
    return worst([value.name for value in before.graph.output], reference, outputs)


def _layer_names(graph: ir.Graph) -> dict[str, str]:
    """Weight -> the name of the layer that uses it, by which users know it."""
    return {weight: node.name for node in graph if node.name and (weight := _weight(node))}


def _name_nodes(graph: ir.Graph, known: set[str], layers: dict[str, str]) -> None:
    """Give a node that rewriting made, or nobody named, its layer's old name, else `Operator_output`."""
    for node in graph:
        if not node.name or node.name not in known:
            node.name = layers.get(_weight(node)) or f"{node.op_type}_{node.outputs[0].name}"


def _weight(node: ir.Node) -> str:
    """The name of the node's second input; empty when there is none."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    return (value.name or "") if value is not None else ""
