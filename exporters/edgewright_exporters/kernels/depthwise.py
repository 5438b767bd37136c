"""Depthwise convolution of float32: every channel with a kernel of its own, a vector being a block of channels.

Neighbouring pixels of a tile share what they read of a row of the image. One work item is a row of the result for one
block of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels.window import Window, correlate, finished, finished_reference, padded_channels
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DepthwiseCase:
    """What is computed: y = act(conv(x, W) + bias), channel by channel; `activation` as in ConvCase."""

    batch: int
    channels: int
    window: Window
    bias: bool = True
    activation: str = "none"


@dataclass(frozen=True)
class DepthwiseTile:
    """How: `pixels` columns of the result at a time."""

    pixels: int


def tiles(case: DepthwiseCase, isa: Isa) -> Sequence[DepthwiseTile]:
    """Tiles worth trying, the likely best first; sums, a row of the image and the weights of a row fit registers."""
    steps = case.window.stride[1]
    most = max(1, (isa.registers - 2 * case.window.kernel[1]) // (1 + steps))
    return tuple(DepthwiseTile(pixels) for pixels in dict.fromkeys((most, most + 2, max(1, most // 2))))


def items(case: DepthwiseCase, tile: DepthwiseTile, isa: Isa) -> int:
    """How many pieces of work there are: images times blocks of channels times rows."""
    return case.batch * ceil(case.channels / isa.lanes) * case.window.output[0]


def pack(
    case: DepthwiseCase, tile: DepthwiseTile, isa: Isa, *, weight: Floats, bias: Floats | None = None
) -> tuple[Floats, ...]:
    """The weight [channels, 1, rows, columns] as [blocks][rows][columns][lanes], and the bias if there is one."""
    lanes = isa.lanes
    padded = np.pad(weight[:, 0], ((0, -case.channels % lanes), (0, 0), (0, 0))).astype(np.float32)
    packed = (padded.reshape(-1, lanes, *case.window.kernel).transpose(0, 2, 3, 1).ravel(),)
    return packed if bias is None else (*packed, padded_channels(bias, lanes))


def arguments(case: DepthwiseCase, tile: DepthwiseTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers the kernel takes, in order: X, W, [bias], Y; images in blocks of `isa.lanes` channels."""
    window, channels = case.window, ceil(case.channels / isa.lanes) * isa.lanes
    chosen = [
        Argument("x", "float32", case.batch * channels * window.image[0] * window.image[1]),
        Argument("w", "float32", channels * window.kernel[0] * window.kernel[1]),
    ]
    chosen += [Argument("bias", "float32", channels)] if case.bias else []
    return (*chosen, Argument("y", "float32", case.batch * channels * window.output[0] * window.output[1]))


def function(case: DepthwiseCase, tile: DepthwiseTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    pointers, height = arguments(case, tile, isa), case.window.output[0]
    blocks = ceil(case.channels / isa.lanes)

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        kernel = _Kernel(case, isa.lanes, dict(zip((p.name for p in pointers), buffers)))
        with builder.loop(begin, end) as item:
            row, plane = item % height, item // height
            spot = _Spot(plane, plane % blocks, row)
            for run in case.window.runs(tile.pixels):
                run.each(lambda first, inside, run=run: _tile(kernel, spot, (first, run.pixels), inside))

    return builder.function(symbol, pointers, body)


@dataclass(frozen=True)
class _Kernel:
    """What every part of the function being written needs to know."""

    case: DepthwiseCase
    lanes: int
    buffers: dict[str, Any]


@dataclass(frozen=True)
class _Spot:
    """Which row of which plane (a block of channels of an image), and which block of channels that is."""

    plane: Any
    block: Any
    row: Any


def _tile(kernel: _Kernel, spot: _Spot, columns: tuple[Any, int], inside: Any) -> None:
    (first, pixels), lanes, window = columns, kernel.lanes, kernel.case.window
    rows, wide = window.kernel
    sums = builder.registers(pixels * lanes, "float32")
    bias = builder.splat(0.0, lanes, "float32")
    if kernel.case.bias:
        bias = builder.load(kernel.buffers["bias"], spot.block * lanes, lanes)
    for pixel in range(pixels):
        builder.store(sums, pixel * lanes, bias, lanes)
    top, low, stop = window.rows(spot.row)
    with builder.loop(low, stop) as tap:
        line = ((spot.plane * window.image[0] + top + tap) * window.image[1] + window.column(first)) * lanes
        for column in range(wide):
            weight = builder.load(kernel.buffers["w"], ((spot.block * rows + tap) * wide + column) * lanes, lanes)
            for pixel in (p for p in range(pixels) if inside(window, p, column)):
                value = builder.load(kernel.buffers["x"], line + (pixel * window.stride[1] + column) * lanes, lanes)
                builder.store(sums, pixel * lanes, builder.load(sums, pixel * lanes, lanes) + value * weight, lanes)
    start = (spot.plane * window.output[0] + spot.row) * window.output[1] + first
    for pixel in range(pixels):
        done = finished(kernel.case.activation, builder.load(sums, pixel * lanes, lanes), lanes)
        builder.store(kernel.buffers["y"], (start + pixel) * lanes, done, lanes)


def reference(case: DepthwiseCase, *, x: Floats, weight: Floats, bias: Floats | None = None) -> npt.NDArray[np.float64]:
    """What the kernel computes, in float64 and plain layout: x [batch, channels, height, width]."""
    y = correlate(case.window, x, weight)
    y += 0.0 if bias is None else bias.astype(np.float64)[:, None, None]
    return finished_reference(case.activation, y)
