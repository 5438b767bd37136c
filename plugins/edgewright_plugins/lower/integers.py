"""Writes what a module rounds as integers: weights as codes, the rest through QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import onnx
from onnx import helper

from edgewright import onnxkit
from edgewright.grids import Encoding, Grid
from edgewright.types import Array
from edgewright_plugins.qdq.encoded import bias_scale, integer_bias
from edgewright_plugins.qdq.layers import attribute
from edgewright_plugins.qdq.parts import Parts, joined, taken_apart
from edgewright_plugins.qdq.prepare import inferred, with_gemms
from edgewright_plugins.qdq.storage import packed, packs, put_codes, where, with_room

DOMAIN = "edgewright"
MARK = "FakeQuantize"


@dataclass(frozen=True, eq=False)
class Weight:
    """Codes of a constant, and how they are read."""

    codes: Array
    encoding: Encoding

    def turned(self, order: list[int]) -> Weight:
        """With its axes in another order."""
        axis = order.index(self.encoding.axis % self.codes.ndim)
        return Weight(np.transpose(self.codes, order), replace(self.encoding, axis=axis))


def with_integers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every FakeQuantize written in ONNX's own operators.

    Weights become integers in as few bits as they have, behind a DequantizeLinear; what changes from run to run goes
    through QuantizeLinear, a Clip where a code has less than 8 bits, and DequantizeLinear.

    Biases become int32 in units of input times weight, as the kernels have them; `torchkit.fakequant_settle` has
    rounded them to such units before.
    """
    parts = taken_apart(proto)
    marks = [node for node in parts.nodes if node.domain == DOMAIN]
    fixed = constants_of(proto, dict.fromkeys(name for mark in marks for name in mark.input))
    weights: dict[str, Weight] = {}
    for mark in marks:
        encoding, position = _encoding(mark, fixed), parts.nodes.index(mark)
        if mark.input[0] not in fixed:
            parts.nodes[position : position + 1] = _round_trip(parts, mark, encoding)
            continue
        del parts.nodes[position]
        weights[mark.output[0]] = Weight(encoding.codes(fixed[mark.input[0]]), encoding)
        # Stands for the codes until the graph has the opset that stores them.
        parts.put(mark.output[0], fixed[mark.input[0]])
    weights |= _turned(parts, weights)
    rows = _reshaped_early(with_gemms(inferred(_bare(joined(parts)))))
    return _with_integer_biases(_stored(rows, weights))


def constants_of(proto: onnx.ModelProto, names: Iterable[str]) -> dict[str, Array]:
    """The values of those of `names` that depend on no input and on no FakeQuantize."""
    parts = taken_apart(proto)
    fixed = {*parts.constants, ""}
    for node in parts.nodes:
        if node.domain != DOMAIN and fixed.issuperset(node.input):
            fixed.update(node.output)
    wanted = [name for name in names if name in fixed]
    known = {name: parts.value(name) for name in wanted if name in parts.constants}
    inner = [name for name in wanted if name not in known]
    del parts.source.graph.input[:], parts.source.graph.output[:]
    parts.source.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in inner)
    values = next(iter(onnxkit.run(onnxkit.pack(_bare(joined(parts))), [{}], inner))) if inner else []
    return known | dict(zip(inner, values, strict=True))


def _bare(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Without the domain of our node, which nothing needs any longer."""
    kept = [entry for entry in proto.opset_import if entry.domain != DOMAIN]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    return proto


def _ends(mark: onnx.NodeProto) -> tuple[int, int]:
    return cast("int", attribute(mark, "low", 0)), cast("int", attribute(mark, "high", 0))


def _bits(mark: onnx.NodeProto) -> int:
    low, high = _ends(mark)
    return (high - low).bit_length()


def _encoding(mark: onnx.NodeProto, fixed: Mapping[str, Array]) -> Encoding:
    low, high = _ends(mark)
    scale, zero = (np.asarray(fixed[name]) for name in mark.input[1:3])
    signed = low < 0
    symmetric = low == -high if signed else not zero.any()
    grid = Grid(_bits(mark), symmetric, signed, "channel" if scale.ndim else "tensor")
    return Encoding(grid, scale.astype(np.float32), zero.astype(np.int32), cast("int", attribute(mark, "axis", 0)))


def _round_trip(parts: Parts, mark: onnx.NodeProto, encoding: Encoding) -> list[onnx.NodeProto]:
    """A value to its codes and back."""
    name, grid = mark.output[0], encoding.grid
    scale, zero, codes = f"{name}_scale", f"{name}_zero_point", f"{name}_quantized"
    parts.put(scale, encoding.scale)
    parts.constants[zero] = packed(zero, encoding.zero_point, 8, signed=grid.signed)
    axis = where(encoding)
    last = helper.make_node("DequantizeLinear", [codes, scale, zero], [name], f"{name}_DequantizeLinear", **axis)
    free = codes if grid.bits == 8 else f"{codes}_free"
    first = helper.make_node("QuantizeLinear", [mark.input[0], scale, zero], [free], f"{name}_QuantizeLinear", **axis)
    if grid.bits == 8:
        return [first, last]
    ends = [f"{codes}_low", f"{codes}_high"]
    for end, value in zip(ends, (grid.low, grid.high), strict=True):
        parts.constants[end] = packed(end, np.asarray(value), 8, signed=grid.signed)
    return [first, helper.make_node("Clip", [free, *ends], [codes], f"{name}_Clip"), last]


def _turned(parts: Parts, weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Weights that a Transpose turns, stored as it leaves them."""
    turned: dict[str, Weight] = {}
    for node in [each for each in parts.nodes if each.op_type == "Transpose" and each.input[0] in weights]:
        weight = weights[node.input[0]]
        order = cast("list[int]", attribute(node, "perm", list(range(weight.codes.ndim))[::-1]))
        turned[node.output[0]] = weight.turned(list(order))
        parts.nodes.remove(node)
        parts.put(node.output[0], np.transpose(parts.value(node.input[0]), order))
    return turned


def _reshaped_early(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Each Reshape of a value that was just dequantised in front of the DequantizeLinear, which layers have to see."""
    parts = taken_apart(proto)
    producers = parts.producers()
    for node in list(parts.nodes):
        before = producers.get(node.input[0]) if node.op_type == "Reshape" else None
        if before is None or before.op_type != "DequantizeLinear" or before.attribute:
            continue
        codes = f"{node.output[0]}_quantized"
        later = helper.make_node("DequantizeLinear", [codes, *before.input[1:]], list(node.output), f"{codes}_read")
        node.input[0], node.output[0] = before.input[0], codes
        parts.nodes.insert(parts.nodes.index(node) + 1, later)
    return joined(parts)


def _stored(proto: onnx.ModelProto, weights: Mapping[str, Weight]) -> onnx.ModelProto:
    """The graph with the codes of its weights in the place of their values."""
    grids = [weight.encoding.grid for weight in weights.values()]
    shifts = any(packs(weight.codes) for weight in weights.values())
    parts = taken_apart(with_room(proto, grids, shifts=shifts))
    opset = onnxkit.opsets(parts.source)["ai.onnx"]
    nodes: list[onnx.NodeProto] = []
    for name in [name for name in weights if name in parts.constants]:
        weight = weights[name]
        del parts.constants[name]
        codes, scale, zero = f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"
        nodes += put_codes(parts, codes, weight.codes, weight.encoding.grid, opset)
        parts.put(scale, weight.encoding.scale)
        parts.constants[zero] = packed(zero, weight.encoding.zero_point, 8, signed=weight.encoding.grid.signed)
        title = f"{name}_DequantizeLinear"
        nodes.append(
            helper.make_node("DequantizeLinear", [codes, scale, zero], [name], title, **where(weight.encoding))
        )
    parts.nodes[:0] = nodes
    return joined(parts)


def _with_integer_biases(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Biases of layers whose input and weight are integers, as integers."""
    parts = taken_apart(proto)
    producers = parts.producers()
    for node in [each for each in parts.nodes if each.op_type in ("Conv", "Gemm") and len(each.input) == 3]:
        read = [producers.get(name) for name in node.input[:2]]
        if node.input[2] in parts.constants and all(each and each.op_type == "DequantizeLinear" for each in read):
            name, scale = f"{node.output[0]}_bias", bias_scale(parts, node)
            if scale is not None:
                bias = integer_bias(parts, name, parts.value(node.input[2]), scale)
                parts.nodes.insert(parts.nodes.index(node), bias)
                node.input[2] = name
    return joined(parts)
