"""Convolution of float32 without copies: any kernel, stride and padding, results in registers from first to last tap.

A tile is `pixels` columns of one row of the result times `vectors` blocks of filters. Columns are cut while the kernel
is written, so that taps over the padding cost nothing. With a 1x1 kernel this is a matrix product over pixels. One
work item is a row of the result for one panel of filters. What is read of the image is one number at a time, so that
an image in plain layout does as well as one in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels.tiles import Blocks, blocks_of
from edgewright_exporters.kernels.window import Window, correlate, finished, finished_reference, padded_channels
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Floats = npt.NDArray[np.float32]
SPARE = 3
"""Registers left to the compiler, which keeps numbers that neighbouring taps share: without them it spills sums."""


@dataclass(frozen=True)
class ConvCase:
    """What is computed: y = act(conv(x, W) + bias + residual), `activation` one of none, relu, relu6, gelu.

    A `plain` x is [batch, channels, height, width]; the residual and the result are in blocks of channels always.
    """

    batch: int
    channels: int
    filters: int
    window: Window
    bias: bool = True
    activation: str = "none"
    residual: bool = False
    plain: bool = False


@dataclass(frozen=True)
class ConvTile:
    """How: `pixels` x `vectors` vectors of sums in registers."""

    pixels: int
    vectors: int


def tiles(case: ConvCase, isa: Isa) -> Sequence[ConvTile]:
    """Tiles worth trying, the likely best first: those that fill the registers with the fewest loads per product."""
    blocks, width = ceil(case.filters / isa.lanes), flat(case.window).output[1]
    shapes = []
    for vectors in range(1, min(4, blocks) + 1):
        pixels = min((isa.registers - SPARE - 1 - vectors) // vectors, width)
        fewest = width // blocks_of(width, pixels).count
        load = 1 / fewest + blocks_of(blocks, vectors).count / blocks
        shapes.append((load, ConvTile(pixels, vectors)))
    return tuple(tile for _, tile in sorted(shapes, key=lambda shape: shape[0])[:3])


def flat(window: Window) -> Window:
    """A 1x1 kernel that skips nothing sees one long row where rows are short."""
    plain = window.kernel == (1, 1) and window.stride == (1, 1) and not any(window.padding)
    return Window((1, window.image[0] * window.image[1]), (1, 1)) if plain and window.image[1] < 32 else window


def items(case: ConvCase, tile: ConvTile, isa: Isa) -> int:
    """How many pieces of work there are: images times panels of filters times rows."""
    return case.batch * _panels(case, tile, isa).count * flat(case.window).output[0]


def _panels(case: ConvCase, tile: ConvTile, isa: Isa) -> Blocks:
    return blocks_of(ceil(case.filters / isa.lanes), tile.vectors)


def pack(case: ConvCase, tile: ConvTile, isa: Isa, *, weight: Floats, bias: Floats | None = None) -> tuple[Floats, ...]:
    """The weight [filters, channels, rows, columns], and the bias where the case has one, as the kernel reads them.

    A panel of filters is [channels][rows][columns][its filters]: the order in which its products are summed.
    """
    panels, lanes = _panels(case, tile, isa), isa.lanes
    padded = np.pad(weight, ((0, -case.filters % lanes), *((0, 0),) * 3)).astype(np.float32)
    cuts = [(panels.rows * i + min(i, panels.extra)) * lanes for i in range(1, panels.count)]
    parts = [_panel(part, case.channels, lanes) for part in np.split(padded, cuts)]
    packed = (np.concatenate(parts),)
    return packed if bias is None else (*packed, padded_channels(bias, lanes))


def _panel(weight: Floats, channels: int, lanes: int) -> Floats:
    """Blocks of channels outermost, then taps, then the channels of a block (the last has only those there are)."""
    parts = [weight[:, at : at + lanes].transpose(2, 3, 1, 0).ravel() for at in range(0, channels, lanes)]
    return np.concatenate(parts)


def arguments(case: ConvCase, tile: ConvTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers the kernel takes, in order: X, W, [bias], [residual], Y; images as `window.blocked` leaves them."""
    lanes, window = isa.lanes, case.window
    inputs, outputs = (ceil(n / lanes) * lanes for n in (case.channels, case.filters))
    inputs = case.channels if case.plain else inputs
    result = case.batch * outputs * window.output[0] * window.output[1]
    chosen = [
        Argument("x", "float32", case.batch * inputs * window.image[0] * window.image[1]),
        Argument("w", "float32", outputs * case.channels * window.kernel[0] * window.kernel[1]),
    ]
    chosen += [Argument("bias", "float32", outputs)] if case.bias else []
    chosen += [Argument("residual", "float32", result)] if case.residual else []
    return (*chosen, Argument("y", "float32", result))


def function(case: ConvCase, tile: ConvTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    pointers = arguments(case, tile, isa)
    panels, height = _panels(case, tile, isa), flat(case.window).output[0]

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        kernel = _Kernel(case, flat(case.window), isa.lanes, dict(zip((p.name for p in pointers), buffers)))
        with builder.loop(begin, end) as item:
            row, rest = item % height, item // height
            panel, image = rest % panels.count, rest // panels.count
            for vectors, there in panels.sizes(panel):
                with builder.when(there):
                    spot = _Spot(image, panels.start(panel), vectors, row)
                    for run in kernel.window.runs(tile.pixels):
                        run.each(
                            lambda first, inside, spot=spot, run=run: _tile(kernel, spot, first, run.pixels, inside)
                        )

    return builder.function(symbol, pointers, body)


@dataclass(frozen=True)
class _Kernel:
    """What every part of the function being written needs to know."""

    case: ConvCase
    window: Window
    lanes: int
    buffers: dict[str, Any]

    @property
    def steps(self) -> tuple[int, int]:
        """How far a column and a channel of x are from the next, in elements."""
        return (1, self.window.image[0] * self.window.image[1]) if self.case.plain else (self.lanes, 1)

    def line(self, image: Any, block: Any, row: Any) -> Any:
        """Where a row of an image begins, for the first channel of a block."""
        high, wide = self.window.image
        if self.case.plain:
            return ((image * self.case.channels + block * self.lanes) * high + row) * wide
        return ((image * ceil(self.case.channels / self.lanes) + block) * high + row) * (wide * self.lanes)


@dataclass(frozen=True)
class _Spot:
    """Which row of which image, for which blocks of filters: `vectors` from `block` on."""

    image: Any
    block: Any
    vectors: int
    row: Any


Inside = Callable[[Window, int, int], bool]


def _tile(kernel: _Kernel, spot: _Spot, first: Any, pixels: int, inside: Inside) -> None:
    """`pixels` columns of the result from column `first` on."""
    lanes, vectors, window = kernel.lanes, spot.vectors, kernel.window
    sums = builder.registers(pixels * vectors * lanes, "float32")
    _start(kernel, spot, pixels, sums)
    blocks, (across, _) = ceil(kernel.case.channels / lanes), kernel.steps
    top, low, stop = window.rows(spot.row)
    taps = window.kernel[0] * window.kernel[1]
    panel = spot.block * (kernel.case.channels * taps * lanes)
    with builder.loop(0, blocks) as block:
        deep = builder.least(kernel.case.channels - block * lanes, lanes) if kernel.case.channels % lanes else lanes
        with builder.loop(low, stop) as tap:
            line = kernel.line(spot.image, block, top + tap) + window.column(first) * across
            weights = panel + (block * (lanes * taps) + tap * (window.kernel[1] * deep)) * (vectors * lanes)
            for column in range(window.kernel[1]):
                live = [pixel for pixel in range(pixels) if inside(window, pixel, column)]
                at = (line + column * across, weights + column * deep * (vectors * lanes), deep)
                _products(kernel, live, at, (sums, vectors))
    _finish(kernel, spot, (first, pixels), sums)


def _products(kernel: _Kernel, live: Sequence[int], at: tuple[Any, Any, Any], into: tuple[Any, int]) -> None:
    """One tap: every channel of a block times its filters, for the pixels under which the image lies."""
    (line, weights, deep), (sums, vectors), lanes = at, into, kernel.lanes
    x, w, (across, down) = kernel.buffers["x"], kernel.buffers["w"], kernel.steps
    with builder.loop(0, deep) as channel:
        for pixel in live:
            value = builder.splat(x[line + pixel * kernel.window.stride[1] * across + channel * down], lanes)
            for vector in range(vectors):
                to = (pixel * vectors + vector) * lanes
                product = value * builder.load(w, weights + (channel * vectors + vector) * lanes, lanes)
                builder.store(sums, to, builder.load(sums, to, lanes) + product, lanes)


def _start(kernel: _Kernel, spot: _Spot, pixels: int, sums: Any) -> None:
    lanes, bias = kernel.lanes, kernel.buffers.get("bias")
    for vector in range(spot.vectors):
        value = builder.splat(0.0, lanes, "float32")
        if bias is not None:
            value = builder.load(bias, (spot.block + vector) * lanes, lanes)
        for pixel in range(pixels):
            builder.store(sums, (pixel * spot.vectors + vector) * lanes, value, lanes)


def _finish(kernel: _Kernel, spot: _Spot, columns: tuple[Any, int], sums: Any) -> None:
    (first, pixels), lanes, (high, wide) = columns, kernel.lanes, kernel.window.output
    residual, blocks = kernel.buffers.get("residual"), ceil(kernel.case.filters / lanes)
    for vector in range(spot.vectors):
        line = ((spot.image * blocks + spot.block + vector) * high + spot.row) * wide + first
        for pixel in range(pixels):
            value = builder.load(sums, (pixel * spot.vectors + vector) * lanes, lanes)
            if residual is not None:
                value += builder.load(residual, (line + pixel) * lanes, lanes)
            done = finished(kernel.case.activation, value, lanes)
            builder.store(kernel.buffers["y"], (line + pixel) * lanes, done, lanes)


def reference(
    case: ConvCase, *, x: Floats, weight: Floats, bias: Floats | None = None, residual: Floats | None = None
) -> npt.NDArray[np.float64]:
    """What the kernel computes, in float64 and plain layout: x [batch, channels, height, width]."""
    y = correlate(case.window, x, weight)
    y += 0.0 if bias is None else bias.astype(np.float64)[:, None, None]
    y += 0.0 if residual is None else residual
    return finished_reference(case.activation, y)
