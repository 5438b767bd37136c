"""What a layer is fitted on: inputs, from the float graph or through integer layers, and its float outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from edgewright.grids import ACTIVATIONS, Encoding
from edgewright.types import Array, Arrays
from edgewright_plugins.adaquant.forward import forward_of, on_patches, patches
from edgewright_plugins.adaquant.learn import Problem
from edgewright_plugins.qdq.layers import Layer, captured, constant
from edgewright_plugins.qdq.prepare import value_shapes

HELD_OUT = 4
"""One in so many examples judges a fit."""
MEMORY = 1 << 29
"""Bytes that the inputs and outputs of one layer may take."""
POSITIONS = 64
"""Places of an example at which a convolution is fitted: the others say much the same."""
LEAST = 64
"""Examples that a layer is fitted on however large they are."""


@dataclass(frozen=True, eq=False)
class Feed:
    """How an integer graph feeds a layer: the value that it reads, the one before rounding, and how that is rounded.

    `encoding` is None where the layer reads floats.
    """

    read: str
    source: str
    encoding: Encoding | None = None


def problem_of(
    proto: onnx.ModelProto,
    integers: onnx.ModelProto,
    layer: Layer,
    encodings: Mapping[str, Encoding],
    feeds: Sequence[Arrays],
    *,
    parallel: bool,
) -> Problem | None:
    """What there is to fit of a layer; None where it is no function of the examples on its first axis.

    Args:
        proto: the prepared float graph, which gives the outputs to reach.
        integers: the integer graph as it is now, which gives the inputs unless `parallel`.
        layer: one of `proto`.
        encodings: those that `integers` was written with; the weight's is what the fit starts from.
        feeds: the calibration examples.
        parallel: take the inputs from the float graph.
    """
    node = _node(proto, layer.name)
    forward = forward_of(node)
    fed = list(feeds[: _affordable(proto, layer)])
    feed = feed_of(integers, layer, encodings)
    learned = feed.encoding if feed.source == layer.input and _only_reader(proto, layer) else None
    y = captured(proto, [layer.output], fed)[layer.output]
    x = _inputs(proto, integers, layer, feed, fed, parallel=parallel, rounded=learned is None)
    if forward is None or len(x) != len(y) or len(x) % len(fed):
        return None
    axis = 1 if layer.kind == "Conv" else y.ndim - 1
    if layer.kind == "Conv" and x.ndim <= 4:
        forward = on_patches(node)
        x, y = patches(node, x, y, layer.shape[2:], POSITIONS)
    bias = None if layer.bias is None else constant(proto, layer.bias)
    held_out = max(len(fed) // HELD_OUT, 1)
    weight, encoding = constant(proto, layer.weight), encodings[layer.weight]
    return Problem(forward, weight, bias, encoding, x, y, axis, len(fed), held_out, learned)


def _inputs(
    proto: onnx.ModelProto,
    integers: onnx.ModelProto,
    layer: Layer,
    feed: Feed,
    feeds: Sequence[Arrays],
    *,
    parallel: bool,
    rounded: bool,
) -> Array:
    """What reaches the layer, rounded as the integer graph rounds it or as it was before."""
    if not parallel:
        name = feed.read if rounded else feed.source
        return captured(integers, [name], feeds)[name]
    x = captured(proto, [layer.input], feeds)[layer.input]
    return feed.encoding.rounded(x) if rounded and feed.encoding else x


def feed_of(integers: onnx.ModelProto, layer: Layer, encodings: Mapping[str, Encoding]) -> Feed:
    """How the integer graph feeds a layer."""
    producers = {output: node for node in integers.graph.node for output in node.output}
    read = _node(integers, layer.name).input[0]
    node = producers.get(read)
    if node is None or node.op_type != "DequantizeLinear":
        return Feed(read, read)
    scale, zero = (_constant(integers, name) for name in node.input[1:3])
    while node.op_type != "QuantizeLinear":
        node = producers[node.input[0]]
    known = encodings.get(layer.input)
    grid = known.grid if known else replace(ACTIVATIONS, signed=zero.dtype == np.int8)
    return Feed(read, node.input[0], Encoding(grid, scale, zero.astype(np.int32)))


def _affordable(proto: onnx.ModelProto, layer: Layer) -> int:
    """How many examples fit into `MEMORY`."""
    shapes = value_shapes(proto)
    sizes = [math.prod(d if isinstance(d, int) else 1 for d in shapes.get(n, ())) for n in (layer.input, layer.output)]
    return max(MEMORY // (4 * max(sum(sizes), 1)), LEAST)


def _only_reader(proto: onnx.ModelProto, layer: Layer) -> bool:
    """Whether nothing else reads the layer's input: its range may then be the layer's alone."""
    readers = sum(name == layer.input for node in proto.graph.node for name in node.input)
    return readers == 1 and all(value.name != layer.input for value in proto.graph.output)


def _node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if node.name == name)


def _constant(proto: onnx.ModelProto, name: str) -> Array:
    return numpy_helper.to_array(next(tensor for tensor in proto.graph.initializer if tensor.name == name))
