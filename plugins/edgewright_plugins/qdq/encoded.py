"""Other encodings for tensors of an integer graph: weights, activations, and the biases that follow both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgewright.errors import RecipeError
from edgewright.grids import Encoding
from edgewright.types import Array
from edgewright_plugins.qdq.layers import Layer
from edgewright_plugins.qdq.parts import Parts
from edgewright_plugins.qdq.storage import BLOCKS, packed, put_codes, where

WIDEST = 2.0**31 - 1
"""The largest bias in units of its scale."""


def reach(encoding: Encoding) -> tuple[float, float]:
    """The lowest and the highest value that the encoding of an activation has."""
    ends = encoding.values(np.array([encoding.grid.low, encoding.grid.high]))
    return float(ends[0]), float(ends[1])


# ------------------------------------------------------------------ weights


def with_room_for_biases(
    parts: Parts, layers: Iterable[Layer], values: Mapping[str, Array], encodings: Mapping[str, Encoding]
) -> dict[str, Encoding]:
    """The encodings, with wider scales for channels whose bias int32 could not hold in units of their scale.

    Such a channel is next to nothing beside its bias (often it is all zeros), so what its weights lose does not count.
    """
    nodes, producers = {node.name: node for node in parts.nodes}, parts.producers()
    fitted = dict(encodings)
    for layer in layers:
        encoding, node = encodings.get(layer.weight), nodes.get(layer.name)
        given = None if node is None else producers.get(node.input[0])
        if encoding is None or layer.bias is None or encoding.grid.per == "group" or given is None:
            continue
        if given.op_type == "DequantizeLinear":
            needed = np.abs(values[layer.bias].astype(np.float64)) / (float(parts.value(given.input[1])) * WIDEST / 2)
            needed = needed if encoding.scale.ndim else needed.max()
            fitted[layer.weight] = replace(encoding, scale=np.maximum(encoding.scale, needed).astype(np.float32))
    return fitted


def put_weights(parts: Parts, values: Mapping[str, Array], encodings: Mapping[str, Encoding], opset: int) -> None:
    """Give the weights that stand behind a DequantizeLinear other codes, scales and zero points."""
    nodes: list[onnx.NodeProto] = []
    for node in parts.nodes:
        name = node.name.removesuffix("_DequantizeLinear")
        if name in encodings and name in values and node.name != name:
            nodes += _dequantized(parts, node, values[name], encodings[name], opset)
        else:
            nodes.append(node)
    parts.nodes[:] = nodes


def _dequantized(
    parts: Parts, node: onnx.NodeProto, values: Array, encoding: Encoding, opset: int
) -> list[onnx.NodeProto]:
    """The nodes that stand for a DequantizeLinear of a weight; their constants are stored."""
    name = node.name.removesuffix("_DequantizeLinear")
    check_groups(name, encoding, opset)
    cast = put_codes(parts, f"{name}_quantized", encoding.codes(values), encoding.grid, opset)
    _put_scale(parts, name, encoding)
    taken = [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
    return [*cast, helper.make_node("DequantizeLinear", taken, list(node.output), node.name, **where(encoding))]


def put_products(
    parts: Parts, layers: Iterable[Layer], values: Mapping[str, Array], encodings: Mapping[str, Encoding], opset: int
) -> None:
    """Give the weights of MatMulInteger nodes other codes and scales.

    Raises: RecipeError for a weight with a scale per group: the product of integers is scaled as a whole.
    """
    for layer in layers:
        encoding, name = encodings.get(layer.weight), _product_weight(parts, layer)
        if encoding is None or f"{name}_quantized" not in parts.constants:
            continue
        if encoding.grid.per == "group":
            raise RecipeError(
                f"{layer.weight} has a scale per group, which dynamic int8 cannot use; use one per channel"
            )
        codes = encoding.codes(values[layer.weight])
        # onnxruntime's quantiser has turned the weight round where the layer wanted it transposed.
        codes = codes.T if layer.axis == 0 else codes
        parts.nodes[:0] = put_codes(parts, f"{name}_quantized", codes, encoding.grid, opset)
        _put_scale(parts, name, encoding)


def _product_weight(parts: Parts, layer: Layer) -> str:
    """What the quantiser calls a layer's weight: from onnxruntime 1.32 on it renames those it has turned round."""
    turned = f"{layer.weight}_Transposed"
    return turned if layer.axis == 0 and f"{turned}_quantized" in parts.constants else layer.weight


def _put_scale(parts: Parts, name: str, encoding: Encoding) -> None:
    parts.put(f"{name}_scale", np.asarray(encoding.scale, np.float32))
    zero = f"{name}_zero_point"
    parts.constants[zero] = packed(zero, encoding.zero_point, 8, signed=encoding.grid.signed)


def check_groups(name: str, encoding: Encoding, opset: int) -> None:
    """Raises: RecipeError when a graph of this opset cannot hold a scale per group."""
    if encoding.grid.per == "group" and opset < BLOCKS:
        raise RecipeError(
            f"{name} has a scale per group, which needs opset {BLOCKS}, and this graph of opset {opset} cannot be "
            "raised; use a scale per channel, or export the model again with opset 21"
        )


# ------------------------------------------------------------------ activations


def put_activations(parts: Parts, encodings: Mapping[str, Encoding]) -> None:
    """Give activations other scales and zero points, and clip their codes where they have less than 8 bits.

    A value that is only passed on (by Reshape, MaxPool, ...) shares the scale of the value before it; an encoding
    for the first of them serves all.
    """
    nodes = {node.name: node for node in parts.nodes if node.op_type == "QuantizeLinear"}
    found = {name: node for name in encodings if (node := nodes.get(f"{name}_QuantizeLinear")) is not None}
    for name, node in sorted(found.items(), key=lambda entry: entry[1].input[1] == f"{entry[0]}_scale"):
        encoding = encodings[name]
        parts.put(node.input[1], np.asarray(encoding.scale, np.float32).reshape(()))
        zero = np.asarray(encoding.zero_point).reshape(())
        parts.constants[node.input[2]] = packed(node.input[2], zero, 8, signed=encoding.grid.signed)
        if encoding.grid.bits < 8:
            _clip(parts, node, encoding)


def _clip(parts: Parts, node: onnx.NodeProto, encoding: Encoding) -> None:
    """Keep the codes that a QuantizeLinear puts out inside the grid."""
    codes = node.output[0]
    ends = [f"{codes}_low", f"{codes}_high"]
    for name, end in zip(ends, (encoding.grid.low, encoding.grid.high), strict=True):
        parts.constants[name] = packed(name, np.asarray(end), 8, signed=encoding.grid.signed)
    node.output[0] = f"{codes}_free"
    clip = helper.make_node("Clip", [f"{codes}_free", *ends], [codes], f"{node.name}_Clip")
    parts.nodes.insert(parts.nodes.index(node) + 1, clip)


# ------------------------------------------------------------------ biases


def put_biases(parts: Parts, layers: Iterable[Layer], values: Mapping[str, Array]) -> None:
    """Rebuild the int32 biases of layers for the scales that their inputs and weights have now."""
    nodes = {node.name: node for node in parts.nodes}
    for layer in layers:
        node = nodes.get(layer.name)
        if node is None or layer.bias is None or not _integer(parts, node):
            continue
        name = f"{layer.name}_bias"
        scale = bias_scale(parts, node)
        if scale is None:
            parts.put(name, values[layer.bias])
        else:
            position = parts.nodes.index(node)
            parts.nodes.insert(position, integer_bias(parts, name, values[layer.bias], scale))
        node.input[2] = name


def _integer(parts: Parts, node: onnx.NodeProto) -> bool:
    """Whether a layer's input, weight and bias all come out of a DequantizeLinear."""
    producers = parts.producers()
    return all(name in producers and producers[name].op_type == "DequantizeLinear" for name in node.input)


def bias_scale(parts: Parts, node: onnx.NodeProto) -> Array | None:
    """The scale of a layer's bias, float32, one or one per channel; None where the weight has one per group."""
    producers = parts.producers()
    given, weight = producers[node.input[0]], producers[node.input[1]]
    if any(attribute.name == "block_size" for attribute in weight.attribute):
        return None
    return np.asarray(parts.value(given.input[1]) * parts.value(weight.input[1]), np.float32)


def integer_bias(parts: Parts, name: str, bias: Array, scale: Array) -> onnx.NodeProto:
    """The node by which the bias `name` is read in units of `scale`; its constants are stored."""
    taken = [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
    parts.put(taken[0], np.clip(np.rint(bias.astype(np.float64) / scale), -WIDEST, WIDEST).astype(np.int32))
    parts.put(taken[1], scale)
    parts.put(taken[2], np.zeros(scale.shape, np.int32))
    axis: dict[str, Any] = {"axis": 0} if scale.ndim else {}
    return helper.make_node("DequantizeLinear", taken, [name], f"{name}_DequantizeLinear", **axis)
