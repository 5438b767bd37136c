"""Convolution of float32 that computes some blocks of channels: which ones is found while it runs.

Every call reads the logits of all blocks and lists the vectors of filters of which something is wanted, and those of
the image that hold something; tiles are of listed vectors alone, so that what is skipped costs nothing. `conv`
explains tiles and items. Weights of a vector of filters lie by themselves, for any two may meet in a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import conv
from edgewright_exporters.kernels.conv import ConvCase, ConvTile
from edgewright_exporters.kernels.window import Window, correlate, finished, finished_reference
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GatedConvCase:
    """What is computed: y = act(gate (conv(x, W) + bias)) for one image, `activation` as in `conv`.

    The gate is 1 for every `block` channels whose logit is at least the smaller of 0 and the largest logit, else 0.
    With `signless`, no x is negative: a channel whose mean is 0 is empty. Channels and filters are
    multiples of `WHOLE`.
    """

    channels: int
    filters: int
    window: Window
    block: int
    signless: bool
    activation: str = "none"


WHOLE = 16
"""Channels that fill whole vectors of every instruction set."""


def tiles(case: GatedConvCase, isa: Isa) -> Sequence[ConvTile]:
    """Those of a convolution that computes all."""
    return conv.tiles(ConvCase(1, case.channels, case.filters, case.window), isa)


def items(case: GatedConvCase, tile: ConvTile, isa: Isa) -> int:
    """How many pieces of work there are: panels of vectors of filters times rows."""
    return ceil(case.filters // isa.lanes / tile.vectors) * conv.flat(case.window).output[0]


def pack(case: GatedConvCase, tile: ConvTile, isa: Isa, *, weight: Floats, bias: Floats) -> tuple[Floats, ...]:
    """The weight as [vectors of filters][vectors of channels][rows][columns][channel][filter], and the bias."""
    lanes, (rows, columns) = isa.lanes, case.window.kernel
    cut = weight.reshape(case.filters // lanes, lanes, case.channels // lanes, lanes, rows, columns)
    packed = np.ascontiguousarray(cut.transpose(0, 2, 4, 5, 3, 1), np.float32)
    return packed.ravel(), bias.astype(np.float32)


def arguments(case: GatedConvCase, tile: ConvTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers the kernel takes: X, W, bias, logits, [means], Y; images as `window.blocked` leaves them."""
    image, (high, wide), taps = case.window.image, case.window.output, case.window.kernel
    return (
        Argument("x", "float32", case.channels * image[0] * image[1]),
        Argument("w", "float32", case.filters * case.channels * taps[0] * taps[1]),
        Argument("bias", "float32", case.filters),
        Argument("logits", "float32", ceil(case.filters / case.block)),
        *((Argument("means", "float32", case.channels),) if case.signless else ()),
        Argument("y", "float32", case.filters * high * wide),
    )


def function(case: GatedConvCase, tile: ConvTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    pointers, window = arguments(case, tile, isa), conv.flat(case.window)
    height, vectors = window.output[0], min(tile.vectors, case.filters // isa.lanes)

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        kernel = _kernel(case, window, isa.lanes, dict(zip((p.name for p in pointers), buffers)))
        with builder.loop(begin, end) as item:
            row, first = item % height, item // height * vectors
            _empty(kernel, row, first, vectors)
            left = builder.least(kernel.kept.count[0] - first, vectors)
            for some in range(1, vectors + 1):
                with builder.when(left == some):
                    chosen = [builder.held(kernel.kept.places[first + number]) for number in range(some)]
                    for run in window.runs(tile.pixels):
                        run.each(
                            lambda column, inside, chosen=chosen, run=run: _tile(
                                kernel, _Spot(row, column, run.pixels, chosen), inside
                            )
                        )

    return builder.function(symbol, pointers, body)


@dataclass(frozen=True)
class _List:
    """Places of vectors, `count[0]` of them."""

    places: Any
    count: Any


@dataclass(frozen=True)
class _Kernel:
    """What every part of the function being written needs to know; `gate` holds 1 or 0 for every filter."""

    case: GatedConvCase
    window: Window
    lanes: int
    buffers: dict[str, Any]
    gate: Any
    kept: _List
    full: _List


@dataclass(frozen=True)
class _Spot:
    """`pixels` columns of a row of the result from `column` on, for the vectors of filters at `chosen`."""

    row: Any
    column: Any
    pixels: int
    chosen: Sequence[Any]


Inside = Callable[[Window, int, int], bool]


def _kernel(case: GatedConvCase, window: Window, lanes: int, buffers: dict[str, Any]) -> _Kernel:
    """Reads from logits and means what is to be computed of what."""
    nothing = builder.splat(0.0, 1, "float32")
    logits, blocks = buffers["logits"], ceil(case.filters / case.block)
    gate, least = builder.registers(case.filters, "float32"), builder.registers(1, "float32")
    builder.store(least, 0, logits[0], 1)
    with builder.loop(1, blocks) as block:
        builder.store(least, 0, builder.largest(least[0], logits[block]), 1)
    builder.store(least, 0, builder.least(least[0], nothing), 1)
    with builder.loop(0, case.filters) as channel:
        wanted = logits[channel // case.block] >= least[0]
        builder.store(gate, channel, builder.cast(wanted, "float32"), 1)
    full = _listed(case.channels // lanes, lanes, buffers["means"] if case.signless else None)
    return _Kernel(case, window, lanes, buffers, gate, _listed(case.filters // lanes, lanes, gate), full)


def _listed(vectors: int, lanes: int, marks: Any) -> _List:
    """The places of vectors with a mark above 0; all of them without marks."""
    found = _List(builder.registers(vectors, "int32"), builder.registers(1, "int32"))
    builder.store(found.count, 0, builder.splat(0, 1, "int32"), 1)
    with builder.loop(0, vectors) as vector:
        builder.store(found.places, found.count[0], vector, 1)
        if marks is None:
            builder.store(found.count, 0, found.count[0] + 1, 1)
        else:
            more = builder.cast(_most(marks, vector, lanes) > 0.0, "int32")
            builder.store(found.count, 0, found.count[0] + more, 1)
    return found


def _most(marks: Any, vector: Any, lanes: int) -> Any:
    """The largest mark of a vector."""
    most = marks[vector * lanes]
    for lane in range(1, lanes):
        most = builder.largest(most, marks[vector * lanes + lane])
    return most


def _empty(kernel: _Kernel, row: Any, first: Any, vectors: int) -> None:
    """Zeros in a row of those of `vectors` vectors of filters from `first` on that nobody wants."""
    lanes, (high, wide) = kernel.lanes, kernel.window.output
    last = kernel.case.filters // lanes
    for number in range(vectors):
        vector = first + number
        with builder.when(vector < last):
            most = _most(kernel.gate, vector, lanes)
            with builder.when(most <= 0.0), builder.loop(0, wide) as column:
                to = ((vector * high + row) * wide + column) * lanes
                zero = finished(kernel.case.activation, builder.splat(0.0, lanes, "float32"), lanes)
                builder.store(kernel.buffers["y"], to, zero, lanes)


def _tile(kernel: _Kernel, spot: _Spot, inside: Inside) -> None:
    """Some columns of a row of the result."""
    lanes, window, many = kernel.lanes, kernel.window, len(spot.chosen)
    sums = builder.registers(spot.pixels * many * lanes, "float32")
    for number, vector in enumerate(spot.chosen):
        for pixel in range(spot.pixels):
            start = builder.load(kernel.buffers["bias"], vector * lanes, lanes)
            builder.store(sums, (pixel * many + number) * lanes, start, lanes)
    top, low, stop = window.rows(spot.row)
    high, wide = window.image
    (tall, broad), vectors = window.kernel, kernel.case.channels // lanes
    with builder.loop(0, kernel.full.count[0]) as number:
        block = builder.held(kernel.full.places[number])
        with builder.loop(low, stop) as tap:
            line = ((block * high + top + tap) * wide + window.column(spot.column)) * lanes
            for column in range(broad):
                live = [pixel for pixel in range(spot.pixels) if inside(window, pixel, column)]
                taps = (block * tall + tap) * broad + column
                at = [(vector * (vectors * tall * broad) + taps) * (lanes * lanes) for vector in spot.chosen]
                _products(kernel, live, (line + column * lanes, at), sums)
    _finish(kernel, spot, sums)


def _products(kernel: _Kernel, live: Sequence[int], at: tuple[Any, Sequence[Any]], sums: Any) -> None:
    """One tap: every channel of a vector times the chosen filters, for the pixels under which the image lies."""
    (line, weights), lanes, x, w = at, kernel.lanes, kernel.buffers["x"], kernel.buffers["w"]
    with builder.loop(0, lanes) as channel:
        for pixel in live:
            value = builder.splat(x[line + pixel * kernel.window.stride[1] * lanes + channel], lanes)
            for number, weight in enumerate(weights):
                to = (pixel * len(weights) + number) * lanes
                product = value * builder.load(w, weight + channel * lanes, lanes)
                builder.store(sums, to, builder.load(sums, to, lanes) + product, lanes)


def _finish(kernel: _Kernel, spot: _Spot, sums: Any) -> None:
    lanes, (high, wide), many = kernel.lanes, kernel.window.output, len(spot.chosen)
    for number, vector in enumerate(spot.chosen):
        line = (vector * high + spot.row) * wide + spot.column
        gate = builder.held(builder.load(kernel.gate, vector * lanes, lanes))
        for pixel in range(spot.pixels):
            value = builder.load(sums, (pixel * many + number) * lanes, lanes) * gate
            done = finished(kernel.case.activation, value, lanes)
            builder.store(kernel.buffers["y"], (line + pixel) * lanes, done, lanes)


def reference(
    case: GatedConvCase, *, x: Floats, weight: Floats, bias: Floats, logits: Floats, means: Floats | None = None
) -> npt.NDArray[np.float64]:
    """What the kernel computes, in float64 and plain layout: x [1, channels, height, width]."""
    gate = np.repeat(logits.ravel() >= min(logits.max(), 0.0), case.block)[: case.filters]
    y = correlate(case.window, x, weight) + bias.astype(np.float64)[:, None, None]
    return finished_reference(case.activation, y * gate[:, None, None])
