"""Sliding windows: padding as torch takes it, and the pooling operators."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from edgewright_plugins.lift.node import Call, Node, Value

MAX_POOLS = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
AVERAGE_POOLS = (torch.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def per_axis(node: Node, name: str, rank: int) -> list[int]:
    """Strides or dilations, one per spatial axis."""
    return [int(i) for i in node.attr(name, [1] * rank)]


def pads(node: Node, kernel: list[int]) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial axis; `auto_pad` is resolved on the example's size."""
    rank = len(kernel)
    mode = node.attr("auto_pad", "NOTSET")
    if mode == "NOTSET":
        both = [int(i) for i in node.attr("pads", [0] * 2 * rank)]
        return both[:rank], both[rank:]
    if mode == "VALID":
        return [0] * rank, [0] * rank
    sizes = list(node.x.tensor.shape[2:])
    steps, gaps = per_axis(node, "strides", rank), per_axis(node, "dilations", rank)
    total = [
        max(0, (math.ceil(size / step) - 1) * step + (k - 1) * gap + 1 - size)
        for size, step, gap, k in zip(sizes, steps, gaps, kernel, strict=True)
    ]
    small = [each // 2 for each in total]
    large = [each - half for each, half in zip(total, small, strict=True)]
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def padded(x: Value, before: list[int], after: list[int], value: float = 0.0) -> Value | Call:
    """`x` with its spatial axes padded; `x` itself when there is nothing to pad."""
    if not any(before + after):
        return x
    # torch lists the last axis first
    flat = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
    return Call(functional.pad, (x, flat), {"mode": "constant", "value": value})


def symmetric(node: Node, kernel: list[int], *, fill: float = 0.0) -> tuple[Value | Call, list[int]]:
    """The input, and the padding that the window itself can do: what is uneven is padded before it."""
    before, after = pads(node, kernel)
    if before == after:
        return node.x, before
    return padded(node.x, before, after, fill), [0] * len(kernel)


def max_pool(node: Node) -> Call:
    """MaxPool without indices; padding counts as minus infinity."""
    kernel = [int(i) for i in node.attr("kernel_shape")]
    x, padding = symmetric(node, kernel, fill=-math.inf)
    if any(2 * pad > size for pad, size in zip(padding, kernel, strict=True)):
        x, padding = padded(node.x, padding, padding, -math.inf), [0] * len(kernel)
    return Call(
        MAX_POOLS[len(kernel) - 1],
        (x, kernel, per_axis(node, "strides", len(kernel)), padding),
        {"dilation": per_axis(node, "dilations", len(kernel)), "ceil_mode": bool(node.attr("ceil_mode", 0))},
    )


def average_pool(node: Node) -> Call:
    """AveragePool; uneven padding is possible only where padding counts, or adds nothing."""
    kernel = [int(i) for i in node.attr("kernel_shape")]
    if any(gap != 1 for gap in per_axis(node, "dilations", len(kernel))):
        raise node.refusal("is dilated, which torch's average pooling is not")
    counts = bool(node.attr("count_include_pad", 0))
    x, padding = symmetric(node, kernel)
    if not counts and isinstance(x, Call):
        return _average_of_seen(node, kernel, x)
    return Call(
        AVERAGE_POOLS[len(kernel) - 1],
        (x, kernel, per_axis(node, "strides", len(kernel)), padding),
        {"ceil_mode": bool(node.attr("ceil_mode", 0)), "count_include_pad": counts},
    )


def _average_of_seen(node: Node, kernel: list[int], x: Call) -> Call:
    """The mean over the values inside: the mean with zeros for padding, over the share that is no padding."""
    ones = Value("", torch.ones_like(node.x.tensor[:1, :1]))
    share = Call(x.target, (ones, *x.args[1:]), x.kwargs)
    rest: tuple[Any, ...] = (kernel, per_axis(node, "strides", len(kernel)))
    pool = AVERAGE_POOLS[len(kernel) - 1]
    return Call(torch.div, (Call(pool, (x, *rest)), Call(pool, (share, *rest))))
