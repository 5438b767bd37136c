"""Nodes of ONNX that do as well on images in blocks of channels, and how they are written there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewright.types import Array
from edgewright_exporters.onnx_kernels.blocks import Blocks
from edgewright_exporters.onnx_kernels.codes import has_one_scale
from edgewright_exporters.onnx_kernels.epilogues import clip_limits
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard, stored

ONE_BY_ONE = ("Elu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Softplus", "Tanh")
PAIRWISE = ("Add", "Mul", "Sub")


@dataclass(frozen=True, eq=False)
class Moved:
    """A node between images in blocks, and the constants that it needs for it."""

    node: onnx.NodeProto
    constants: Sequence[TensorProto] = ()


def moved(wiring: Wiring, node: onnx.NodeProto, there: Collection[str], blocks: Blocks) -> Moved | None:
    """`node` with its images in blocks, where all of them are among `there`; None for what needs them plain."""
    images = [name for name in node.input if name and name not in wiring.constants]
    if not images or not all(name in there and len(wiring.shape(name) or ()) == 4 for name in images):
        return None
    one_by_one = is_standard(node, *ONE_BY_ONE) or clip_limits(wiring, node) is not None or has_one_scale(wiring, node)
    if one_by_one or _is_pair(wiring, node):
        return Moved(_written(node, [blocks.name(n) if n in images else n for n in node.input], blocks))
    if _is_whole_join(wiring, node, blocks):
        copy = _written(node, map(blocks.name, node.input), blocks)
        copy.ClearField("attribute")
        copy.attribute.append(helper.make_attribute("axis", 1))
        return Moved(copy)
    constants = _cut(wiring, node) or _padding(wiring, node, blocks)
    if constants is None:
        return None
    held = [stored(f"{node.op_type.lower()}.blocks", value) for value in constants]
    return Moved(_written(node, [blocks.name(node.input[0]), *(each.name for each in held)], blocks), held)


def _written(node: onnx.NodeProto, inputs: Collection[str] | map[str], blocks: Blocks) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = blocks.name(node.name or node.output[0])
    copy.ClearField("input")
    copy.input.extend(inputs)
    copy.ClearField("output")
    copy.output.extend(map(blocks.name, node.output))
    return copy


def _is_pair(wiring: Wiring, node: onnx.NodeProto) -> bool:
    """Whether two images meet pixel by pixel, or one number per channel with each, or one number with all."""
    if not is_standard(node, *PAIRWISE):
        return False
    shapes = [wiring.shape(name) or () for name in node.input if name not in wiring.constants]
    numbers = all(wiring.number(name) is not None for name in node.input if name in wiring.constants)
    return numbers and len({shape[:2] for shape in shapes}) == 1


def _is_whole_join(wiring: Wiring, node: onnx.NodeProto, blocks: Blocks) -> bool:
    """Whether images are joined along their channels so that every block but the last ones is full."""
    if not is_standard(node, "Concat") or attributes(node)["axis"] not in (1, -3):
        return False
    channels = [(wiring.shape(name) or (0, 0))[1] for name in node.input]
    return all(name not in wiring.constants for name in node.input) and not any(n % blocks.lanes for n in channels[:-1])


def _cut(wiring: Wiring, node: onnx.NodeProto) -> Sequence[Array] | None:
    """Starts, ends, axes and steps of a slice of rows or columns."""
    if not is_standard(node, "Slice") or len(node.input) < 4:
        return None
    held = [wiring.constant(name) for name in node.input[1:] if name]
    starts, ends, axes, *steps = [each.ravel().astype(np.int64) for each in held if each is not None]
    if len(held) < len(node.input) - 1 or any(axis % 4 < 2 for axis in axes):
        return None
    return starts, ends, axes % 4, steps[0] if steps else np.ones_like(axes)


def _padding(wiring: Wiring, node: onnx.NodeProto, blocks: Blocks) -> Sequence[Array] | None:
    """How much is put around an image of whole blocks, in blocks, and what."""
    if not is_standard(node, "Pad") or attributes(node).get("mode", "constant") != "constant" or len(node.input) > 3:
        return None
    pads = wiring.constant(node.input[1]) if len(node.input) > 1 else None
    beyond = wiring.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros((), np.float32)
    channels = (wiring.shape(node.input[0]) or (0, 0))[1]
    if pads is None or beyond is None or any(n % blocks.lanes for n in (channels, pads[1], pads[5])):
        return None
    ends = [[n, c // blocks.lanes, rows, columns, 0] for n, c, rows, columns in pads.reshape(2, 4)]
    return np.asarray(ends, np.int64).ravel(), beyond.reshape(())
