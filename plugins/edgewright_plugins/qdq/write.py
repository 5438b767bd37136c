"""From a prepared float graph to the file with integers: who stands where, in which codes, with which scales."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import numpy_helper

from edgewright import onnxkit
from edgewright.grids import Encoding
from edgewright_plugins.qdq.encoded import (
    put_activations,
    put_biases,
    put_products,
    put_weights,
    reach,
    with_room_for_biases,
)
from edgewright_plugins.qdq.layers import layers_of
from edgewright_plugins.qdq.parts import joined, taken_apart
from edgewright_plugins.qdq.place import Scheme, build
from edgewright_plugins.qdq.ranges import Range
from edgewright_plugins.qdq.storage import with_room
from edgewright_plugins.qdq.weightonly import usual_encodings, write_weights


def write(
    proto: onnx.ModelProto, scheme: Scheme, ranges: Mapping[str, Range], encodings: Mapping[str, Encoding] = {}
) -> onnx.ModelProto:
    """The graph quantised by `scheme`, with these encodings where they are given and int8 elsewhere.

    Args:
        proto: a prepared float graph; its weights and biases are those that are written.
        scheme: which nodes are quantised, and how. Encodings of tensors that it leaves float are not used.
        ranges: of the activations, for static schemes.
        encodings: by the name of a weight or of an activation; the codes in the file are exactly `encoding.codes` of
            the weight. Weights of 4 bits and less take 4 (or 2) bits each where the graph can be raised to an opset
            that has them. The exception is a channel with a bias that int32 cannot hold beside its tiny weights: its
            scale is widened. Biases become int32 in units of the scales of their layer's input and weight.

    Raises: RecipeError for a scale per group where the graph or the scheme cannot have it.
    """
    if scheme.kind == "weights":
        encodings = {**usual_encodings(proto), **encodings}
    weights = {layer.weight for layer in layers_of(proto)}
    graph = with_room(proto, [encoding.grid for name, encoding in encodings.items() if name in weights])
    if scheme.kind == "weights":
        return write_weights(graph, scheme.kept, encodings)
    ends = {name: reach(encoding) for name, encoding in encodings.items() if name not in weights}
    built = build(graph, scheme, {**ranges, **ends})
    return _encoded(built, graph, scheme, encodings) if encodings else built


def _encoded(
    built: onnx.ModelProto, proto: onnx.ModelProto, scheme: Scheme, encodings: Mapping[str, Encoding]
) -> onnx.ModelProto:
    opset = onnxkit.opsets(built)["ai.onnx"]
    parts, layers = taken_apart(built), layers_of(proto)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    if scheme.kind == "dynamic":
        put_products(parts, layers, values, encodings, opset)
    else:
        put_activations(parts, encodings)
        put_weights(parts, values, with_room_for_biases(parts, layers, values, encodings), opset)
        put_biases(parts, layers, values)
    return joined(parts)
