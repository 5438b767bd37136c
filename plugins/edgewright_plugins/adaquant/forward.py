"""What one layer of an ONNX graph computes, as a torch function of its input, weight and bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from edgewright.types import Array
from edgewright_plugins.qdq.layers import attribute

# From (input, weight, bias or None) to the output.
Forward = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CHUNK = 16
"""Examples whose patches are laid out at once."""


def forward_of(node: onnx.NodeProto) -> Forward | None:
    """The function (input, weight, bias or None) -> output of a Conv, Gemm or MatMul; None where it has no such form.

    A Gemm that turns its input round has none: its rows are not examples.
    """
    if node.op_type == "Conv":
        return _convolution(node)
    if node.op_type == "MatMul":
        return lambda x, weight, bias: torch.matmul(x, weight)
    return None if attribute(node, "transA", 0) else _gemm(node)


def _gemm(node: onnx.NodeProto) -> Forward:
    turned = bool(attribute(node, "transB", 0))
    alpha, beta = (float(attribute(node, name, 1.0)) for name in ("alpha", "beta"))

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = alpha * (x @ (weight.T if turned else weight))
        return product if bias is None else product + beta * bias

    return forward


def _convolution(node: onnx.NodeProto) -> Forward:
    groups = int(attribute(node, "group", 1))

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        window = _window(node, x.shape[2:], weight.shape[2:])
        padded = F.pad(x, window.spread)
        return CONVOLUTIONS[x.ndim - 2](padded, weight, bias, window.strides, 0, window.dilations, groups)

    return forward


@dataclass(frozen=True)
class _Window:
    """How a kernel goes over its input. `spread` is the padding as torch takes it: last axis first, both sides."""

    strides: list[int]
    dilations: list[int]
    spread: list[int]


def _window(node: onnx.NodeProto, sizes: Sequence[int], kernel: Sequence[int]) -> _Window:
    axes = len(sizes)
    strides, dilations = _integers(node, "strides", axes, 1), _integers(node, "dilations", axes, 1)
    pads = _pads(node, sizes, kernel, strides, dilations)
    spread = [pads[axis + side * axes] for axis in reversed(range(axes)) for side in (0, 1)]
    return _Window(strides, dilations, spread)


def _integers(node: onnx.NodeProto, name: str, count: int, default: int) -> list[int]:
    return list(attribute(node, name, [default] * count))


def _pads(
    node: onnx.NodeProto, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """What is added before each axis, then what is added after each."""
    auto = attribute(node, "auto_pad", b"NOTSET").decode()
    if not auto.startswith("SAME"):
        return [0] * (2 * len(sizes)) if auto == "VALID" else _integers(node, "pads", 2 * len(sizes), 0)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    totals = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(sizes, strides, reach)]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return less + more if auto == "SAME_UPPER" else more + less


# ------------------------------------------------------------------ convolutions at a few of their positions


def on_patches(node: onnx.NodeProto) -> Forward:
    """A convolution as a product: patches [rows, channels * kernel] to outputs [rows, channels]."""
    groups = int(attribute(node, "group", 1))

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kernels = weight.reshape(groups, weight.shape[0] // groups, -1)
        patches = x.unflatten(1, (groups, -1)).transpose(0, 1)
        product = torch.bmm(patches, kernels.transpose(1, 2)).transpose(0, 1).flatten(1)
        return product if bias is None else product + bias

    return forward


def patches(node: onnx.NodeProto, x: Array, y: Array, kernel: Sequence[int], positions: int) -> tuple[Array, Array]:
    """Patches of `x` [n, channels, ..] and the outputs `y` there, at `positions` random places of each example.

    For one or two axes; the rows of an example follow one another.
    """
    generator = torch.Generator().manual_seed(0)
    parts = [(x[first : first + CHUNK], y[first : first + CHUNK]) for first in range(0, len(x), CHUNK)]
    found = [
        _patches(node, torch.tensor(a), torch.tensor(b), kernel, positions=positions, generator=generator)
        for a, b in parts
    ]
    return np.concatenate([a.numpy() for a, _ in found]), np.concatenate([b.numpy() for _, b in found])


def _patches(
    node: onnx.NodeProto, x: Tensor, y: Tensor, kernel: Sequence[int], *, positions: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    axes = x.ndim - 2
    window = _window(node, x.shape[2:], kernel)
    padded = F.pad(x, window.spread)
    ones = (1,) * (2 - axes)
    flat = padded.reshape(*padded.shape[:2], *ones, *padded.shape[2:])
    columns = F.unfold(flat, (*ones, *kernel), (*ones, *window.dilations), 0, (*ones, *window.strides))
    chosen = torch.randperm(columns.shape[2], generator=generator)[:positions]
    return columns[:, :, chosen].transpose(1, 2).flatten(0, 1), y.flatten(2)[:, :, chosen].transpose(1, 2).flatten(0, 1)
