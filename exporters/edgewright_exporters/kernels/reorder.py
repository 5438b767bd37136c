"""Puts images into blocks of channels and back, see `window`: what stands where kernels of images meet other nodes.

A vector of pixels of each channel of a block is transposed in registers. One work item is a stretch of pixels of one
block of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy.typing as npt

from edgewright_exporters.kernels import lanes as across_lanes
from edgewright_exporters.kernels.window import blocked
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ReorderCase:
    """What is done: [batch, channels, pixels] becomes [batch, blocks, pixels, lanes], or with `back` the reverse.

    Numbers are float32, or bytes that are "uint8" or "int8". Channels that are missing from the last block become zero.
    """

    batch: int
    channels: int
    pixels: int
    back: bool = False
    dtype: str = "float32"


@dataclass(frozen=True)
class ReorderTile:
    """How: `vectors` vectors of pixels are one work item."""

    vectors: int


def tiles(case: ReorderCase, isa: Isa) -> Sequence[ReorderTile]:
    """One tile: it decides nothing but how much work an item is."""
    return (ReorderTile(64),)


def items(case: ReorderCase, tile: ReorderTile, isa: Isa) -> int:
    """How many pieces of work there are: images times blocks of channels times stretches of pixels."""
    return case.batch * ceil(case.channels / isa.lanes) * ceil(_vectors(case, isa) / tile.vectors)


def _vectors(case: ReorderCase, isa: Isa) -> int:
    """How many vectors cover the pixels; where there are fewer pixels than lanes, each stands alone."""
    return ceil(case.pixels / isa.lanes) if case.pixels >= isa.lanes else case.pixels


def arguments(case: ReorderCase, tile: ReorderTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers the kernel takes: X, Y."""
    plain = case.batch * case.channels * case.pixels
    packed = case.batch * ceil(case.channels / isa.lanes) * isa.lanes * case.pixels
    x, y = (packed, plain) if case.back else (plain, packed)
    return Argument("x", case.dtype, x), Argument("y", case.dtype, y)


def function(case: ReorderCase, tile: ReorderTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    lanes, vectors, wide = isa.lanes, _vectors(case, isa), case.pixels >= isa.lanes
    blocks, stretches = ceil(case.channels / lanes), ceil(vectors / tile.vectors)
    whole, rest = divmod(case.channels, lanes)

    def body(x: Any, y: Any, begin: Any, end: Any) -> None:
        with builder.loop(begin, end) as item:
            plane, first = item // stretches, item % stretches * tile.vectors
            block, image = plane % blocks, plane // blocks
            for channels, there in ((lanes, block < whole),) * bool(whole) + ((rest, block >= whole),) * bool(rest):
                with builder.when(there), builder.loop(first, builder.least(first + tile.vectors, vectors)) as vector:
                    # The last vector may overlap the one before it, and writes the same once more.
                    pixel = builder.least(vector * lanes, case.pixels - lanes) if wide else vector
                    plain = (image * case.channels + block * lanes) * case.pixels + pixel
                    spot = _Spot(lanes, channels, case.pixels, plain, (plane * case.pixels + pixel) * lanes)
                    write = (_vectors_back if wide else _pixel_back) if case.back else (_square if wide else _pixel)
                    write(spot, x, y)

    return builder.function(symbol, arguments(case, tile, isa), body)


@dataclass(frozen=True)
class _Spot:
    """The first `channels` of a block of `lanes`, from one pixel on: where it lies in `plain` and in `packed` images.

    A channel is `apart` elements from the next in a plain image.
    """

    lanes: int
    channels: int
    apart: int
    plain: Any
    packed: Any


def _square(spot: _Spot, x: Any, y: Any) -> None:
    """As many pixels as lanes, into blocks."""
    lanes, held = spot.lanes, builder.registers(spot.lanes * spot.lanes, x.dtype)
    for channel in range(lanes):
        value = builder.splat(0, lanes, x.dtype)
        if channel < spot.channels:
            value = builder.load(x, spot.plain + channel * spot.apart, lanes)
        builder.store(held, channel * lanes, value, lanes)
    across_lanes.transposed(held, lanes)
    for pixel in range(lanes):
        builder.store(y, spot.packed + pixel * lanes, builder.load(held, pixel * lanes, lanes), lanes)


def _vectors_back(spot: _Spot, x: Any, y: Any) -> None:
    """As many pixels as lanes, out of blocks."""
    lanes, held = spot.lanes, builder.registers(spot.lanes * spot.lanes, x.dtype)
    for pixel in range(lanes):
        builder.store(held, pixel * lanes, builder.load(x, spot.packed + pixel * lanes, lanes), lanes)
    across_lanes.transposed(held, lanes)
    for channel in range(spot.channels):
        builder.store(y, spot.plain + channel * spot.apart, builder.load(held, channel * lanes, lanes), lanes)


def _pixel(spot: _Spot, x: Any, y: Any) -> None:
    zero = builder.splat(0, 1, x.dtype)
    for channel in range(spot.lanes):
        value = x[spot.plain + channel * spot.apart] if channel < spot.channels else zero
        builder.store(y, spot.packed + channel, value, 1)


def _pixel_back(spot: _Spot, x: Any, y: Any) -> None:
    for channel in range(spot.channels):
        builder.store(y, spot.plain + channel * spot.apart, x[spot.packed + channel], 1)


def reference(case: ReorderCase, *, x: Array, lanes: int) -> Array:
    """What the kernel computes into blocks of `lanes`, for x [batch, channels, pixels]; `back` undoes it."""
    return blocked(x[..., None], lanes)[:, :, :, 0]
