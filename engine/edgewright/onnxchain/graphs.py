"""Several ONNX files as objects whose values can be tied to one another, and back to one file."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence

import onnx
import onnx_ir as ir
from onnx import version_converter
from onnx_ir.passes import common as passes

from edgewright import onnxkit
from edgewright.errors import RefusedError

LEAST_OPSET = 13
"""From it on, the operators of a gate are all there, and their shapes are inferred."""


def deserialized(protos: Sequence[onnx.ModelProto]) -> list[ir.Model]:
    """The files as objects, all at the highest opset among them; functions of one name are the same one.

    Raises: RefusedError when a file cannot be raised to that opset.
    """
    opset = max(LEAST_OPSET, *(onnxkit.opsets(proto).get("ai.onnx", 0) for proto in protos))
    models = [ir.serde.deserialize_model(_raised(proto, opset)) for proto in protos]
    known: dict[ir.OperatorIdentifier, bytes] = {}
    for model in models:
        written = {key: _bytes(function) for key, function in model.functions.items()}
        clashing = {key for key, text in written.items() if known.setdefault(key, text) != text}
        if clashing:
            passes.InlinePass(lambda function, keys=clashing: function.identifier() in keys)(model)
    return models


def _bytes(function: ir.Function) -> bytes:
    return ir.serde.serialize_function(function).SerializeToString(deterministic=True)


def _raised(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    own = onnxkit.opsets(proto).get("ai.onnx", opset)
    if own == opset:
        return proto
    if proto.functions:
        raise RefusedError(
            f"stages of opsets {own} and {opset} cannot be joined: the converter drops the functions in the file; "
            f"export all stages at opset {opset}"
        )
    try:
        return version_converter.convert_version(proto, opset)
    except RuntimeError as error:
        raise RefusedError(
            f"a stage of opset {own} cannot be raised to {opset}: {str(error).strip().splitlines()[0]}; "
            f"export all stages at opset {opset}"
        ) from error


def take_functions(into: ir.Model, other: ir.Model) -> None:
    """Give a model the functions of another, and the operator sets they and its nodes are of."""
    for key, function in other.functions.items():
        into.functions.setdefault(key, function)
    for domain, version in other.graph.opset_imports.items():
        into.graph.opset_imports[domain] = max(version, into.graph.opset_imports.get(domain, 0))


def bound(graph: ir.Graph, sources: Sequence[ir.Value]) -> list[ir.Value]:
    """Feed a graph's inputs from values of other graphs; its inputs and outputs go, the latter are returned."""
    become = dict(zip(graph.inputs, sources))
    results = [become.get(value, value) for value in graph.outputs]
    graph.outputs.clear()
    graph.inputs.clear()
    for value, source in become.items():
        if value is not source:
            value.replace_all_uses_with(source)
    return results


def reset(ends: MutableSequence[ir.Value], values: Sequence[ir.Value]) -> None:
    """Make `values` the inputs or outputs of a graph."""
    ends.clear()
    ends.extend(values)


def serialized(model: ir.Model) -> onnx.ModelProto:
    """The file without what nothing needs; every name in it is unique."""
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedFunctionsPass()(model)
    for graph in model.graphs():
        for value in [each for each in graph.initializers.values() if not each.uses() and each not in graph.outputs]:
            del graph.initializers[str(value.name)]
    passes.NameFixPass()(model)
    return ir.serde.serialize_model(model)
