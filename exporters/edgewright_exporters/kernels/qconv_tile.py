"""One row of the result of a convolution of bytes: tiles of sums in registers, from their start to their codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from edgewright_exporters.kernels import dot
from edgewright_exporters.kernels.qborder import Taps
from edgewright_exporters.kernels.qconv_rows import Kernel, Source
from edgewright_exporters.kernels.requantise import pieces, to_codes
from edgewright_exporters.kernels.window import finished
from edgewright_exporters.tir import builder


@dataclass(frozen=True)
class Spot:
    """Which row of which image, for which blocks of filters: `vectors` from `block` on."""

    image: Any
    block: Any
    vectors: int
    row: Any


def row_of(kernel: Kernel, source: Source, spot: Spot) -> None:
    window = kernel.cut.window
    for run in window.runs(kernel.tile.pixels):

        def write(first: Any, inside: Any, pixels: int = run.pixels) -> None:
            left = [tuple(t for t in range(window.kernel[1]) if inside(window, p, t)) for p in range(pixels)]
            _tile(kernel, source, spot, first, left)

        run.each(write)


def _tile(kernel: Kernel, source: Source, spot: Spot, first: Any, left: Sequence[Taps]) -> None:
    """Columns of the result from `first` on, each with the columns of taps that are `left` of it."""
    cut, lanes, window = kernel.cut, kernel.lanes, kernel.cut.window
    sums = builder.registers(len(left) * spot.vectors * lanes, "int32")
    _start(kernel, spot, left, sums)
    top, *rows = window.rows(spot.row)
    at = source.start + top * source.line + window.column(first) * source.pixel
    panel = spot.block * (cut.depth * lanes)
    for begin, end, deep in cut.blocks:
        steps = cut.steps(deep)
        with builder.loop(begin, end) as block, builder.loop(*rows) as tap:
            pixel = at + block * source.block + tap * source.line
            step = block * (cut.steps(cut.deep) * window.kernel[0] * window.kernel[1])
            step += tap * (window.kernel[1] * steps)
            weights = panel + step * (spot.vectors * lanes * cut.way.step)
            _products(kernel, source, (pixel, weights, steps), (left, sums, spot.vectors))
    _finish(kernel, spot, first, sums, len(left))


def _products(kernel: Kernel, source: Source, at: tuple[Any, Any, int], into: tuple[Sequence[Taps], Any, int]) -> None:
    """One row of taps times one block of channels, for the pixels under which the image lies."""
    (line, weights, steps), (left, sums, vectors) = at, into
    way, lanes, stride = kernel.cut.way, kernel.lanes, kernel.cut.window.stride[1]
    for tap in range(kernel.cut.window.kernel[1]):
        with builder.loop(0, steps) as step:
            panel = weights + (step + tap * steps) * (vectors * lanes * way.step)
            for pixel in (pixel for pixel, taps in enumerate(left) if tap in taps):
                place = line + (pixel * stride + tap) * source.pixel + step * way.step
                word = dot.spread(way, source.buffer, place, dtype=source.dtype, real=way.step)
                for vector in range(vectors):
                    to = (pixel * vectors + vector) * lanes
                    factors = builder.load(kernel.buffers["w"], panel + vector * lanes * way.step, lanes * way.step)
                    builder.store(sums, to, dot.multiply(way, builder.load(sums, to, lanes), word, factors), lanes)


def _start(kernel: Kernel, spot: Spot, left: Sequence[Taps], sums: Any) -> None:
    lanes, filters = kernel.lanes, kernel.buffers["scale"].shape[0]
    for pixel, taps in enumerate(left):
        line = kernel.border.pattern(spot.row, taps) * filters + spot.block * lanes
        for vector in range(spot.vectors):
            value = builder.load(kernel.buffers["start"], line + vector * lanes, lanes)
            builder.store(sums, (pixel * spot.vectors + vector) * lanes, value, lanes)


def _finish(kernel: Kernel, spot: Spot, first: Any, sums: Any, pixels: int) -> None:
    lanes, (high, wide) = kernel.lanes, kernel.cut.window.output
    blocks = ceil(kernel.case.filters / lanes)
    for vector in range(spot.vectors):
        scale = builder.load(kernel.buffers["scale"], (spot.block + vector) * lanes, lanes)
        line = (((spot.image * blocks + spot.block + vector) * high + spot.row) * wide + first) * lanes
        for start, count in pieces(pixels):
            places = [((pixel * spot.vectors) + vector) * lanes for pixel in range(start, start + count)]
            values = [builder.cast(builder.load(sums, place, lanes), f"float32x{lanes}") * scale for place in places]
            _write(kernel, line + start * lanes, values)


def _write(kernel: Kernel, at: Any, values: Sequence[Any]) -> None:
    """Finishes and stores vectors that lie one after the other in the result."""
    case, lanes, y = kernel.case, kernel.lanes, kernel.buffers["y"]
    if case.gives == "float32":
        for place, value in enumerate(values):
            builder.store(y, at + place * lanes, finished(case.activation, value, lanes), lanes)
        return
    if case.residual:
        values = [_added(kernel, value, at + place * lanes) for place, value in enumerate(values)]
    codes = to_codes(values, kernel.buffers["codes"], dtype=case.gives, clip=case.clip, lanes=lanes)
    builder.store(y, at, codes, lanes * len(values))


def _added(kernel: Kernel, value: Any, at: Any) -> Any:
    """The sum of two dequantised codes, in units of y. Fences keep the products from being fused with the sum."""
    lanes, buffers = kernel.lanes, kernel.buffers
    mid, low, high, r, zero, y = (builder.splat(buffers["scales"][place], lanes) for place in range(6))
    code = builder.round_even(builder.least(builder.largest(value, low), high))
    other = builder.cast(builder.load(buffers["residual"], at, lanes), f"float32x{lanes}") - zero
    parts = [builder.intrinsic("llvm.arithmetic.fence", f"float32x{lanes}", part) for part in (code * mid, other * r)]
    return (parts[0] + parts[1]) / y
