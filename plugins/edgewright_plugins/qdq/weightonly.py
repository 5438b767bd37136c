"""Weights in few bits and everything else in float: smaller files, the arithmetic of the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from edgewright import onnxkit
from edgewright.grids import Encoding, Grid, encode_closest
from edgewright.types import Array
from edgewright_plugins.qdq.encoded import check_groups
from edgewright_plugins.qdq.layers import KINDS, Layer, attribute, constant, layers_of
from edgewright_plugins.qdq.parts import Parts, joined, taken_apart
from edgewright_plugins.qdq.storage import packed, stored_bits, where

GROUP = 32
"""Values that share a scale in a matrix: runtimes multiply by blocks of 16, 32, 64, ..."""


def usual_encodings(proto: onnx.ModelProto, bits: int = 8, group: int = GROUP) -> dict[str, Encoding]:
    """How weights alone are quantised where nobody says otherwise, by name."""
    return {
        layer.weight: usual_encoding(layer, constant(proto, layer.weight), bits, group) for layer in layers_of(proto)
    }


def usual_encoding(layer: Layer, values: Array, bits: int, group: int = GROUP) -> Encoding:
    """The closest encoding: convolutions by channels, matrices by groups where groups divide their rows.

    A product by a matrix whose last group is smaller runs on codes in no runtime that we know.
    """
    if layer.kind == "Conv" or layer.shape[layer.across] % group:
        return encode_closest(Grid(bits), values, layer.axis)
    return encode_closest(Grid(bits, per="group", group=group), values, layer.across)


def write_weights(proto: onnx.ModelProto, kept: frozenset[str], encodings: Mapping[str, Encoding]) -> onnx.ModelProto:
    """The graph with the weights of its layers as integers; `kept` names nodes that stay float.

    A matrix with a scale per group becomes a MatMul (and an Add) that runtimes compute from the codes themselves.
    All other weights are made real by nodes that runtimes compute once, when they load the file.
    """
    parts = taken_apart(proto)
    layers = {layer.weight: layer for layer in layers_of(proto)}
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in parts.nodes:
        if node.op_type not in KINDS or node.input[1] not in layers or node.name in kept:
            nodes.append(node)
            continue
        weight = _weight(parts, node, layers[node.input[1]], encodings)
        if weight.output not in made:
            nodes += weight.nodes(parts, onnxkit.opsets(proto)["ai.onnx"])
            made.add(weight.output)
        nodes += _as_product(node, weight.output) if weight.blocks else [_reading(node, weight.output)]
    parts.nodes[:] = nodes
    return joined(parts)


@dataclass(frozen=True, eq=False)
class _Weight:
    """A weight as a node wants it: `blocks` when the node multiplies by a matrix of blocks of codes."""

    name: str
    values: Array
    encoding: Encoding
    blocks: bool
    output: str

    def nodes(self, parts: Parts, opset: int) -> list[onnx.NodeProto]:
        """What makes the weight real; its constants are stored."""
        return _by_blocks(parts, self, opset) if self.encoding.grid.per == "group" else _when_loaded(parts, self, opset)


def _weight(parts: Parts, node: onnx.NodeProto, layer: Layer, encodings: Mapping[str, Encoding]) -> _Weight:
    values = parts.value(layer.weight)
    encoding = encodings[layer.weight]
    blocks = encoding.grid.per == "group" and _multiplies(node)
    if blocks and attribute(node, "transB", 0) == 1:
        turned = replace(encoding, scale=encoding.scale.T, zero_point=encoding.zero_point.T, axis=0)
        return _Weight(f"{layer.weight}_turned", values.T, turned, blocks, f"{layer.weight}_turned_real")
    return _Weight(layer.weight, values, encoding, blocks, f"{layer.weight}_real")


def _multiplies(node: onnx.NodeProto) -> bool:
    """Whether a layer is nothing but x W + b."""
    usual = (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
    return node.op_type != "Conv" and all(attribute(node, name, value) == value for name, value in usual)


def _by_blocks(parts: Parts, weight: _Weight, opset: int) -> list[onnx.NodeProto]:
    """A DequantizeLinear with a scale per block, which runtimes merge with the product that follows."""
    check_groups(weight.name, weight.encoding, opset)
    grid = weight.encoding.grid
    names = [f"{weight.name}_quantized", f"{weight.name}_scale", f"{weight.name}_zero_point"]
    # onnxruntime 1.31 repacks rows of 2-bit codes wrongly where they end inside a byte.
    bits = stored_bits(grid, opset) if weight.values.shape[-1] % 4 == 0 else max(stored_bits(grid, opset), 4)
    parts.constants[names[0]] = packed(names[0], weight.encoding.codes(weight.values), bits, signed=grid.signed)
    parts.put(names[1], weight.encoding.scale)
    parts.constants[names[2]] = packed(names[2], weight.encoding.zero_point, bits, signed=grid.signed)
    # Zero points of bytes are stated even where they are 0: see loaders/zero_points.
    taken = names[:2] if grid.symmetric and grid.signed and bits < 8 else names
    return [
        helper.make_node("DequantizeLinear", taken, [weight.output], f"{weight.name}_real", **where(weight.encoding))
    ]


def _when_loaded(parts: Parts, weight: _Weight, opset: int) -> list[onnx.NodeProto]:
    """Cast, Sub and Mul: onnxruntime computes these once, a DequantizeLinear at every run."""
    encoding, name = weight.encoding, weight.name
    codes = encoding.codes(weight.values)
    bits = stored_bits(encoding.grid, opset)
    parts.constants[f"{name}_quantized"] = packed(f"{name}_quantized", codes, bits, signed=encoding.grid.signed)
    nodes = [
        helper.make_node("Cast", [f"{name}_quantized"], [f"{name}_codes"], f"{name}_cast", to=onnx.TensorProto.FLOAT)
    ]
    parts.put(f"{name}_scale", encoding.beside(encoding.scale, codes.shape))
    if encoding.zero_point.any():
        parts.put(f"{name}_zero_point", encoding.beside(encoding.zero_point, codes.shape).astype(np.float32))
        taken = [f"{name}_codes", f"{name}_zero_point"]
        nodes.append(helper.make_node("Sub", taken, [f"{name}_steps"], f"{name}_shift"))
    steps = nodes[-1].output[0]
    return [*nodes, helper.make_node("Mul", [steps, f"{name}_scale"], [weight.output], f"{name}_real")]


def _reading(node: onnx.NodeProto, weight: str) -> onnx.NodeProto:
    """The node with another weight."""
    node.input[1] = weight
    return node


def _as_product(node: onnx.NodeProto, weight: str) -> list[onnx.NodeProto]:
    """A MatMul by the weight, and an Add of the bias if there is one."""
    if len(node.input) < 3 or not node.input[2]:
        return [helper.make_node("MatMul", [node.input[0], weight], [node.output[0]], node.name)]
    product = f"{node.output[0]}_product"
    return [
        helper.make_node("MatMul", [node.input[0], weight], [product], node.name),
        helper.make_node("Add", [product, node.input[2]], [node.output[0]], f"{node.name}_bias"),
    ]
