"""QuantizeLinear and DequantizeLinear: a lifted integer graph computes its rounding in float, as fake quantisation."""

from __future__ import annotations

import torch
from torch import Tensor

from edgewright_plugins.lift.node import Call, Node, Value


def quantize_linear(node: Node) -> Call:
    """The codes of a value, in int8 or uint8; halves round to even."""
    zero = node.constant(2) if node.has(2) else torch.zeros((), dtype=torch.uint8)
    if zero.dtype not in (torch.int8, torch.uint8):
        raise node.refusal(f"rounds to {str(zero.dtype).removeprefix('torch.')}; torch has int8 and uint8")
    scale, axis = node.constant(1), int(node.attr("axis", 1))
    return Call(_codes, (node.x, _beside(scale, node.x.tensor, axis), _beside(zero, node.x.tensor, axis)))


def dequantize_linear(node: Node) -> Call:
    """The values of codes, with scales per tensor, channel or block."""
    codes, axis = node.x.tensor, int(node.attr("axis", 1))
    block = int(node.attr("block_size", 0))
    scale = _beside(node.constant(1), codes, axis, block)
    zero = node.constant(2) if node.has(2) else torch.zeros_like(node.constant(1), dtype=torch.int8)
    return Call(_values, (node.x, scale, _beside(zero, codes, axis, block)))


def _beside(parameter: Tensor, tensor: Tensor, axis: int, block: int = 0) -> Value:
    """A scale or zero point, ready to meet the tensor that it belongs to."""
    if block:
        return Value("", parameter.repeat_interleave(block, dim=axis).narrow(axis, 0, tensor.shape[axis]))
    shape = [1] * tensor.ndim
    if parameter.numel() > 1:
        shape[axis] = -1
    return Value("", parameter.reshape(shape))


def _codes(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    ends = torch.iinfo(zero.dtype)
    return (torch.round(x / scale) + zero).clamp(ends.min, ends.max).to(zero.dtype)


def _values(codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return (codes.to(torch.int32) - zero.to(torch.int32)).to(torch.float32) * scale
