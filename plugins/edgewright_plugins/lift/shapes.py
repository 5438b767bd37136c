"""Operators that move values about: shapes, slices, joins and pads."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional

from edgewright_plugins.lift.node import Call, Node, Value
from edgewright_plugins.lift.windows import padded

FAR = 1 << 31
"""Slice bounds beyond it mean the end of the axis."""


def reshape(node: Node) -> Call:
    """Reshape. The batch stays free by leaving the first axis to torch, the others being known."""
    x = node.x.tensor
    wanted = [int(i) for i in node.constant(1).tolist()] if node.has(1) else list(node.attr("shape"))
    if not node.attr("allowzero", 0):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return _viewed(node, list(x.reshape(wanted).shape))


def flatten(node: Node) -> Call:
    """Flatten into a matrix."""
    axis, shape = node.axis(default=1), node.x.tensor.shape
    if axis == 1 and len(shape) > 1:
        return Call(torch.flatten, (node.x, 1))
    return _viewed(node, [math.prod(shape[:axis]), math.prod(shape[axis:])])


def _viewed(node: Node, shape: list[int]) -> Call:
    if node.free_batch and shape and 0 not in shape and not node.x.constant:
        shape = [-1, *shape[1:]]
    return Call(torch.reshape, (node.x, shape))


def expand(node: Node) -> Call:
    """Expand by broadcasting; an axis 0 that stays as it is stays free."""
    x = node.x.tensor
    shape = list(torch.broadcast_shapes(x.shape, [int(i) for i in node.constant(1).tolist()]))
    if node.free_batch and len(shape) == x.ndim and x.ndim and shape[0] == x.shape[0]:
        return Call(torch.Tensor.expand, (node.x, -1, *shape[1:]))
    return Call(torch.broadcast_to, (node.x, shape))


def squeeze(node: Node) -> Call:
    """Squeeze the axes given, else every axis of size 1."""
    x = node.x.tensor
    axes = node.ints("axes", 1)
    if axes is None:
        axes = [i for i, size in enumerate(x.shape) if size == 1]
    return Call(torch.squeeze, (node.x, tuple(axes)))


def unsqueeze(node: Node) -> Call | Value:
    """Unsqueeze; the axes are those of the result."""
    axes = node.ints("axes", 1) or []
    rank = node.x.tensor.ndim + len(axes)
    call: Value | Call = node.x
    for axis in sorted(axis % rank for axis in axes):
        call = Call(torch.unsqueeze, (call, axis))
    return call


def transpose(node: Node) -> Call:
    """Transpose; all axes backwards unless told."""
    rank = node.x.tensor.ndim
    return Call(torch.permute, (node.x, tuple(node.attr("perm", range(rank - 1, -1, -1)))))


def concat(node: Node) -> Call:
    """Concat. A constant (a class token, say) is repeated for every row of the batch."""
    parts = [node.value(i) for i in range(len(node.inputs))]
    axis = node.axis()
    if node.free_batch and axis and any(p.constant for p in parts) and not all(p.constant for p in parts):
        return Call(cat_rows, (parts, axis))
    return Call(torch.cat, (parts, axis))


def cat_rows(parts: Sequence[Tensor], dim: int) -> Tensor:
    """`torch.cat` of tensors of which some have one row for all."""
    rows = max(len(part) for part in parts)
    return torch.cat([part if len(part) == rows else part.expand(rows, *part.shape[1:]) for part in parts], dim)


def split(node: Node) -> Call:
    """Split into the sizes given, else into equal parts (the last may be smaller)."""
    axis = node.axis()
    sizes = node.ints("split", 1)
    if sizes is None:
        size = -(-node.x.tensor.shape[axis] // int(node.attr("num_outputs", len(node.outputs))))
        return Call(torch.split, (node.x, size, axis))
    return Call(torch.split, (node.x, sizes, axis))


def slice_(node: Node) -> Call:
    """Slice. Backward steps, which torch's slices lack, become a selection by index."""
    starts, ends = node.ints("starts", 1) or [], node.ints("ends", 2) or []
    axes = node.ints("axes", 3) or list(range(len(starts)))
    steps = node.ints("steps", 4) or [1] * len(starts)
    shape = node.x.tensor.shape
    forward = [slice(None)] * len(shape)
    backward: list[tuple[int, list[int]]] = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step > 0:
            forward[axis] = slice(start or None, end if abs(end) < FAR and end != shape[axis] else None, step)
        else:
            backward.append((axis, list(range(shape[axis]))[start:end:step]))
    call = Call(operator.getitem, (node.x, tuple(forward)))
    for axis, indices in backward:
        call = Call(torch.index_select, (call, axis, Value("", torch.tensor(indices))))
    return call


def gather(node: Node) -> Call | Value:
    """Gather along an axis by indices of any shape; negative ones count from the end."""
    axis = node.axis()
    indices = node.value(1)
    if indices.constant and indices.tensor.ndim == 0:
        return Call(torch.select, (node.x, axis, int(indices.tensor)))
    return Call(take, (node.x, indices, axis))


def take(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """The entries of `x` along `axis` at `indices`, whose shape replaces the axis."""
    size = x.shape[axis]
    flat = torch.where(indices < 0, indices + size, indices).reshape(-1)
    return torch.index_select(x, axis, flat).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def gather_elements(node: Node) -> Call:
    """GatherElements, which is torch's gather."""
    return Call(torch.gather, (node.x, node.axis(), node.value(1)))


def pad(node: Node) -> Call | Value:
    """Pad with a constant, or by repeating or mirroring what is there."""
    sizes = node.ints("pads", 1) or []
    rank = node.x.tensor.ndim
    axes = node.ints("axes", 3) or list(range(len(sizes) // 2))
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = sizes[i], sizes[i + len(axes)]
    mode: str = node.attr("mode", "constant")
    if mode == "constant":
        fill = node.constant(2).item() if node.has(2) else node.attr("value", 0.0)
        return padded(node.x, before, after, fill)
    return _mirrored(node, before[2:], after[2:], {"edge": "replicate", "wrap": "circular"}.get(mode, mode))


def _mirrored(node: Node, before: list[int], after: list[int], mode: str) -> Call:
    flat = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
    return Call(functional.pad, (node.x, flat), {"mode": mode})


def cast(node: Node) -> Call:
    """Cast to a type that torch has."""
    return Call(torch.Tensor.to, (node.x, torch_dtype(node, int(node.attr("to")))))


def torch_dtype(node: Node, code: int) -> torch.dtype:
    """The torch type of an ONNX type number."""
    name = "bfloat16" if code == onnx.TensorProto.BFLOAT16 else str(helper.tensor_dtype_to_np_dtype(code))
    found: Any = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise node.refusal(f"casts to {name}, which torch has not")
    return found


def shape_of(node: Node) -> Call:
    """Shape: the sizes on the example inputs, which the graph fixes."""
    sizes = list(node.x.tensor.shape)[node.attr("start", 0) : node.attr("end")]
    return Call(torch.tensor, (sizes,), {"dtype": torch.int64})


def constant_of_shape(node: Node) -> Call:
    """ConstantOfShape: a tensor full of one value."""
    filler = node.attr("value", torch.zeros(1))
    shape = [int(i) for i in node.constant(0).tolist()]
    return Call(torch.full, (shape, filler.item()), {"dtype": filler.dtype})


def depth_to_space(node: Node) -> Call:
    """DepthToSpace in either order of depth and block."""
    size = int(node.attr("blocksize"))
    if node.attr("mode", "DCR") == "CRD":
        return Call(functional.pixel_shuffle, (node.x, size))
    return Call(blocks_to_space, (node.x, size))


def blocks_to_space(x: Tensor, size: int) -> Tensor:
    """[B, size * size * C, H, W] to [B, C, H * size, W * size], the block outermost in depth."""
    batch, depth, height, width = x.shape
    parts = x.reshape(batch, size, size, depth // size**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, depth // size**2, height * size, width * size)
