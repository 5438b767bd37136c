"""Pooling of images in blocks of channels, see `window`: the largest value under each window, or the mean.

A vector is a block of channels, so that every lane does the same. One work item is a row of the result for one block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels.window import Window
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Array = npt.NDArray[Any]
LEAST = {"float32": -3.4028234663852886e38, "uint8": 0, "int8": -128}
MOST_COLUMNS = 8
"""Windows with more columns than this are walked in a loop where none of them lies on padding."""


@dataclass(frozen=True)
class PoolCase:
    """What is computed: `kind` is "max", or "mean" over what lies in the image, or over all taps with `padded`.

    Means are of float32; the largest may also be of bytes, "uint8" or "int8".
    """

    batch: int
    channels: int
    window: Window
    kind: str = "max"
    padded: bool = False
    dtype: str = "float32"


@dataclass(frozen=True)
class PoolTile:
    """How: `pixels` columns of the result at a time."""

    pixels: int


def tiles(case: PoolCase, isa: Isa) -> Sequence[PoolTile]:
    """Tiles worth trying, the likely best first."""
    width = case.window.output[1]
    return tuple(PoolTile(pixels) for pixels in dict.fromkeys((min(4, width), min(8, width), 1)))


def items(case: PoolCase, tile: PoolTile, isa: Isa) -> int:
    """How many pieces of work there are: images times blocks of channels times rows."""
    return case.batch * ceil(case.channels / isa.lanes) * case.window.output[0]


def arguments(case: PoolCase, tile: PoolTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers the kernel takes: X, Y, images in blocks of `isa.lanes` channels."""
    channels = case.batch * ceil(case.channels / isa.lanes) * isa.lanes
    (high, wide), (tall, broad) = case.window.image, case.window.output
    return Argument("x", case.dtype, channels * high * wide), Argument("y", case.dtype, channels * tall * broad)


def function(case: PoolCase, tile: PoolTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    window = case.window

    def body(x: Any, y: Any, begin: Any, end: Any) -> None:
        kernel = _Kernel(case, isa.lanes, x, y)
        with builder.loop(begin, end) as item:
            row, plane = item % window.output[0], item // window.output[0]
            for run in window.runs(tile.pixels):
                run.each(lambda first, inside, run=run: _tile(kernel, (plane, row), (first, run.pixels), inside))

    return builder.function(symbol, arguments(case, tile, isa), body)


@dataclass(frozen=True)
class _Kernel:
    """What every part of the function being written needs to know."""

    case: PoolCase
    lanes: int
    x: Any
    y: Any

    @property
    def neutral(self) -> Any:
        return builder.splat(LEAST[self.case.dtype] if self.case.kind == "max" else 0, self.lanes, self.case.dtype)

    def joined(self, value: Any, other: Any) -> Any:
        return builder.largest(value, other) if self.case.kind == "max" else value + other


Inside = Callable[[Window, int, int], bool]


def _tile(kernel: _Kernel, line: tuple[Any, Any], columns: tuple[Any, int], inside: Inside) -> None:
    """`columns` of the result, first and count, in one `line`, plane and row.

    Each row of a window is joined before the rows are: long sums lose less.
    """
    (plane, row), (first, pixels), lanes, window = line, columns, kernel.lanes, kernel.case.window
    results, part = (builder.registers(pixels * lanes, kernel.case.dtype) for _ in range(2))
    for pixel in range(pixels):
        builder.store(results, pixel * lanes, kernel.neutral, lanes)
    top, low, stop = window.rows(row)
    with builder.loop(low, stop) as tap:
        start = ((plane * window.image[0] + top + tap) * window.image[1] + window.column(first)) * lanes
        for pixel in range(pixels):
            builder.store(part, pixel * lanes, kernel.neutral, lanes)
        _row(kernel, part, start, pixels, inside)
        for pixel in range(pixels):
            at = pixel * lanes
            both = kernel.joined(builder.load(results, at, lanes), builder.load(part, at, lanes))
            builder.store(results, at, both, lanes)
    to = ((plane * window.output[0] + row) * window.output[1] + first) * lanes
    for pixel in range(pixels):
        value = builder.load(results, pixel * lanes, lanes)
        if kernel.case.kind == "mean":
            across = sum(inside(window, pixel, tap) for tap in range(window.kernel[1]))
            value = value * _share(kernel.case, across, stop - low, lanes)
        builder.store(kernel.y, to + pixel * lanes, value, lanes)


def _row(kernel: _Kernel, part: Any, start: Any, pixels: int, inside: Inside) -> None:
    """Joins what lies under one row of each pixel's window into `part`."""
    lanes, window = kernel.lanes, kernel.case.window

    def step(pixel: int, tap: Any) -> None:
        value = builder.load(kernel.x, start + (pixel * window.stride[1] + tap) * lanes, lanes)
        builder.store(part, pixel * lanes, kernel.joined(builder.load(part, pixel * lanes, lanes), value), lanes)

    clear = all(inside(window, pixel, tap) for pixel in range(pixels) for tap in range(window.kernel[1]))
    if clear and window.kernel[1] > MOST_COLUMNS:
        with builder.loop(0, window.kernel[1]) as tap:
            for pixel in range(pixels):
                step(pixel, tap)
        return
    for tap in range(window.kernel[1]):
        for pixel in (pixel for pixel in range(pixels) if inside(window, pixel, tap)):
            step(pixel, tap)


def _share(case: PoolCase, across: int, rows: Any, lanes: int) -> Any:
    """What a sum over `rows` times `across` taps is multiplied by, in every lane."""
    if case.padded or not any(case.window.padding):
        return builder.splat(1.0 / prod(case.window.kernel), lanes, "float32")
    return builder.splat(builder.splat(1.0, 1, "float32") / builder.cast(rows * across, "float32"), lanes)


def reference(case: PoolCase, *, x: Array) -> npt.NDArray[np.float64]:
    """What the kernel computes, in float64 and plain layout: x [batch, channels, height, width]."""
    top, left, bottom, right = case.window.padding
    edges = ((0, 0), (0, 0), (top, bottom), (left, right))

    def windows(image: npt.NDArray[np.float64], beyond: float) -> npt.NDArray[np.float64]:
        padded = np.pad(image, edges, constant_values=beyond)
        view = np.lib.stride_tricks.sliding_window_view(padded, case.window.kernel, (2, 3))
        return view[:, :, :: case.window.stride[0], :: case.window.stride[1]]

    image = x.astype(np.float64)
    if case.kind == "max":
        return windows(image, -np.inf).max(axis=(4, 5))
    taps = windows(np.ones_like(image), 1.0 if case.padded else 0.0).sum(axis=(4, 5))
    return windows(image, 0.0).sum(axis=(4, 5)) / taps
