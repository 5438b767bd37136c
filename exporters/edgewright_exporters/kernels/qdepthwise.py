"""Depthwise convolution of bytes, exact in int32 and scaled to bytes again or to float32: `qconv`, channel by channel.

    sums[c] = bias[c] + sum of (x[c] - x_zero) * w[c] over the taps in the image
    bytes:   y = saturate(rint(float32(sums) * scale[c]) + y_zero), held within a clip
    float32: y = act(float32(sums) * scale[c])

Images are bytes in the layout of `window.blocked`; missing channels of x may hold anything. The rows that an item needs
are written to the stack first, as int16 and with the zero point for the padding, so that no tile knows of borders; what
the zero point adds to the sums is taken from the bias. On x86 two rows lie there interleaved: one instruction then does
two taps of every channel. One work item is a strip of rows of the result for one block of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import dot
from edgewright_exporters.kernels.requantise import CODES, Clip, packed_codes, pieces, to_codes, to_codes_reference
from edgewright_exporters.kernels.tiles import Blocks, blocks_of
from edgewright_exporters.kernels.window import Window, correlate, finished, finished_reference
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Array = npt.NDArray[Any]
STACK = 20 * 1024
"""Bytes that the rows of a strip take on the stack, unless one row of the result needs more."""


@dataclass(frozen=True)
class QDepthwiseCase:
    """Everything that decides what code a kernel is; fields as in QConvCase."""

    batch: int
    channels: int
    window: Window
    takes: str = "uint8"
    gives: str = "uint8"
    activation: str = "none"
    clip: bool = False


@dataclass(frozen=True)
class QDepthwiseTile:
    """How: `pixels` columns of the result at a time."""

    pixels: int


def tiles(case: QDepthwiseCase, isa: Isa) -> Sequence[QDepthwiseTile]:
    """Tiles worth trying, the likely best first; beside the sums, the weights of a row of taps are in registers."""
    most = min(8, case.window.output[1])
    return tuple(QDepthwiseTile(pixels) for pixels in dict.fromkeys((most, ceil(most / 2))))


def items(case: QDepthwiseCase, tile: QDepthwiseTile, isa: Isa) -> int:
    """How many pieces of work there are: images times blocks of channels times strips of rows."""
    return case.batch * ceil(case.channels / isa.lanes) * _strips(case, isa).count


def _together(isa: Isa) -> int:
    """How many rows of taps one instruction does."""
    return 2 if isa.machine == "x86_64" else 1


def _strips(case: QDepthwiseCase, isa: Isa) -> Blocks:
    """Rows of the result, dealt out. The first row of taps of each strip begins a pair of rows."""
    window, line = case.window, 2 * isa.lanes * _wide(case.window)
    rows = max(1, (STACK // line - window.kernel[0]) // window.stride[0] + 1)
    return blocks_of(window.output[0], min(rows, window.output[0]))


def _wide(window: Window) -> int:
    """Columns that windows see, those of the padding with them."""
    return (window.output[1] - 1) * window.stride[1] + window.kernel[1]


def _phases(case: QDepthwiseCase, isa: Isa) -> Sequence[int]:
    """Where in a pair of rows the first row of taps may lie."""
    return range(1 if case.window.stride[0] % _together(isa) == 0 else _together(isa))


def pack(
    case: QDepthwiseCase,
    tile: QDepthwiseTile,
    isa: Isa,
    *,
    weight: Array,
    scale: Array,
    bias: Array | None = None,
    x_zero: int = 0,
    y_zero: int = 0,
    clip: Clip | None = None,
) -> tuple[Array, ...]:
    """The weight int8 [channels, 1, rows, columns] as [blocks][phases][pairs of rows][columns][lanes][2], then bias
    (int32) and scale (float32) of every channel, what stands in the padding, and of bytes `codes`."""
    lanes, together, missing = isa.lanes, _together(isa), -case.channels % isa.lanes
    padded = np.pad(weight[:, 0], ((0, missing), (0, 0), (0, 0))).astype(np.int16)
    pairs, (high, wide) = _pairs(case, isa), case.window.kernel
    parts = []
    for phase in _phases(case, isa):
        rows = np.pad(padded, ((0, 0), (phase, pairs * together - high - phase), (0, 0)))
        parts.append(rows.reshape(-1, lanes, pairs, together, wide).transpose(0, 2, 4, 1, 3))
    start = (0 if bias is None else bias) - int(x_zero) * weight.sum(axis=(1, 2, 3), dtype=np.int64)
    return (
        np.ascontiguousarray(np.stack(parts, 1)).ravel(),
        np.pad(start.astype(np.int32), (0, missing)),
        np.pad(scale.astype(np.float32), (0, missing)),
        np.array([x_zero], np.int16),
        *(() if case.gives == "float32" else (packed_codes(y_zero, clip, case.gives),)),
    )


def _pairs(case: QDepthwiseCase, isa: Isa) -> int:
    """How many pairs of rows a row of the result needs, wherever its taps begin in the first."""
    return ceil((case.window.kernel[0] + _phases(case, isa)[-1]) / _together(isa))


def arguments(case: QDepthwiseCase, tile: QDepthwiseTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers that the kernel takes, in order: X, W, bias, scale, padding, [codes], Y."""
    window, channels = case.window, ceil(case.channels / isa.lanes) * isa.lanes
    taps = len(_phases(case, isa)) * _pairs(case, isa) * window.kernel[1] * _together(isa)
    return (
        Argument("x", case.takes, case.batch * channels * window.image[0] * window.image[1]),
        Argument("w", "int16", channels * taps),
        Argument("bias", "int32", channels),
        Argument("scale", "float32", channels),
        Argument("padding", "int16", 1),
        *(() if case.gives == "float32" else (CODES,)),
        Argument("y", case.gives, case.batch * channels * window.output[0] * window.output[1]),
    )


def function(case: QDepthwiseCase, tile: QDepthwiseTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    pointers, strips, blocks = arguments(case, tile, isa), _strips(case, isa), ceil(case.channels / isa.lanes)

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        named = dict(zip((pointer.name for pointer in pointers), buffers))
        rows = (strips.rows + (strips.extra > 0) - 1) * case.window.stride[0] + case.window.kernel[0]
        rows = max(rows, rows - case.window.kernel[0] + _pairs(case, isa) * _together(isa)) + 1
        stack = builder.registers(rows * _wide(case.window) * isa.lanes, "int16")
        kernel = _Kernel(case, isa, named, stack)
        with builder.loop(begin, end) as item:
            strip, plane = item % strips.count, item // strips.count
            first, last = strips.start(strip), strips.start(strip + 1)
            _gather(kernel, plane, first, last)
            with builder.loop(first, last) as row:
                _row(kernel, _Spot(plane, plane % blocks, row, row - first), tile.pixels)

    return builder.function(symbol, pointers, body)


@dataclass(frozen=True)
class _Kernel:
    """What every part of the function being written needs to know; `stack` holds the rows of a strip."""

    case: QDepthwiseCase
    isa: Isa
    buffers: dict[str, Any]
    stack: Any

    def padding(self, count: int) -> Any:
        """What stands for `count` numbers outside of the image."""
        return builder.splat(self.buffers["padding"][0], count)


@dataclass(frozen=True)
class _Spot:
    """Which row of which plane (a block of channels of an image), its place in the strip, and which block that is."""

    plane: Any
    block: Any
    row: Any
    place: Any


def _gather(kernel: _Kernel, plane: Any, first: Any, last: Any) -> None:
    """Writes the rows under rows `first` to `last` - 1 of the result to the stack, `_together` at a time."""
    window, lanes, together = kernel.case.window, kernel.isa.lanes, _together(kernel.isa)
    top = first * window.stride[0] - window.padding[0]
    rows = (last - first - 1) * window.stride[0] + window.kernel[0]
    left = window.padding[1]
    inside = range(left, min(left + window.image[1], _wide(window)))
    with builder.loop(0, (rows + together - 1) // together) as pair:
        line = pair * (_wide(window) * lanes * together)
        for column in (column for column in range(_wide(window)) if column not in inside):
            place = line + column * (lanes * together)
            builder.store(kernel.stack, place, kernel.padding(lanes * together), lanes * together)
        numbers = [top + pair * together + part for part in range(together)]
        _interleave(kernel, plane, numbers, line + left * lanes * together, len(inside))


def _interleave(kernel: _Kernel, plane: Any, rows: Sequence[Any], to: Any, columns: int) -> None:
    """One pair of rows of the image; those outside of it are padding. Most often both are inside."""
    lanes, (high, wide) = kernel.isa.lanes, kernel.case.window.image

    def written(loaded: Any) -> None:
        with builder.loop(0, columns) as column:
            place = to + column * (lanes * len(rows))
            builder.store(kernel.stack, place, loaded(column), lanes * len(rows))

    def pixels(row: Any, column: Any) -> Any:
        return builder.load(kernel.buffers["x"], ((plane * high + row) * wide + column) * lanes, lanes)

    def both(column: Any) -> Any:
        order = [lane + lanes * part for lane in range(lanes) for part in range(len(rows))]
        vectors = [pixels(row, column) for row in rows]
        joined = builder.shuffle(vectors, order) if len(rows) > 1 else vectors[0]
        return builder.cast(joined, f"int16x{lanes * len(rows)}")

    def one(row: Any, part: int, column: Any) -> Any:
        order = [lane if at == part else lanes for lane in range(lanes) for at in range(len(rows))]
        return builder.shuffle([builder.cast(pixels(row, column), f"int16x{lanes}"), kernel.padding(lanes)], order)

    def at_border() -> None:
        written(lambda column: kernel.padding(lanes * len(rows)))
        for part, row in enumerate(rows if len(rows) > 1 else ()):
            with builder.when(_within(row, high)):
                written(lambda column, row=row, part=part: one(row, part, column))

    builder.branch(builder.both(_within(rows[0], high), _within(rows[-1], high)), lambda: written(both), at_border)


def _within(row: Any, high: int) -> Any:
    return builder.both(row >= 0, row < high)


def _row(kernel: _Kernel, spot: _Spot, pixels: int) -> None:
    """One row of the result, from the place in the stack where its taps begin."""
    case, together = kernel.case, _together(kernel.isa)
    line, phases = spot.place * case.window.stride[0], _phases(case, kernel.isa)
    blocks = blocks_of(case.window.output[1], pixels)
    for phase in phases:
        with builder.when(line % together == phase):
            for size, begin, count in (
                (blocks.rows + 1, 0, blocks.extra),
                (blocks.rows, blocks.extra * (blocks.rows + 1), blocks.count - blocks.extra),
            ):
                if count:
                    with builder.loop(0, count) as number:
                        _tile(kernel, spot, (line // together, phase), (begin + number * size, size))


def _tile(kernel: _Kernel, spot: _Spot, lines: tuple[Any, int], columns: tuple[Any, int]) -> None:
    (line, phase), (first, pixels), case, lanes = lines, columns, kernel.case, kernel.isa.lanes
    together, pairs, (_, wide) = _together(kernel.isa), _pairs(case, kernel.isa), case.window.kernel
    step = lanes * together
    sums = [builder.registers(lanes, "int32") for _ in range(pixels)]
    for each in sums:
        builder.store(each, 0, builder.load(kernel.buffers["bias"], spot.block * lanes, lanes), lanes)
    for pair in range(pairs):
        weights = ((spot.block * len(_phases(case, kernel.isa)) + phase) * pairs + pair) * wide
        place = ((line + pair) * _wide(case.window) + first * case.window.stride[1]) * step
        for tap in range(wide):
            weight = builder.load(kernel.buffers["w"], (weights + tap) * step, step)
            for pixel, each in enumerate(sums):
                x = builder.load(kernel.stack, place + (pixel * case.window.stride[1] + tap) * step, step)
                builder.store(each, 0, builder.load(each, 0, lanes) + _product(x, weight, lanes, together), lanes)
    _finish(kernel, spot, first, sums)


def _finish(kernel: _Kernel, spot: _Spot, first: Any, sums: Sequence[Any]) -> None:
    case, lanes, y = kernel.case, kernel.isa.lanes, kernel.buffers["y"]
    at = ((spot.plane * case.window.output[0] + spot.row) * case.window.output[1] + first) * lanes
    scale = builder.load(kernel.buffers["scale"], spot.block * lanes, lanes)
    for begin, count in pieces(len(sums)):
        some = [builder.cast(builder.load(each, 0, lanes), f"float32x{lanes}") * scale for each in sums[begin:][:count]]
        if case.gives == "float32":
            some = [finished(case.activation, value, lanes) for value in some]
            for place, value in enumerate(some, begin):
                builder.store(y, at + place * lanes, value, lanes)
        else:
            codes = to_codes(some, kernel.buffers["codes"], dtype=case.gives, clip=case.clip, lanes=lanes)
            builder.store(y, at + begin * lanes, codes, lanes * count)


def _product(first: Any, second: Any, lanes: int, together: int) -> Any:
    if together == 2:
        return dot.multiply_pairs(first, second, lanes)
    return builder.cast(first, f"int32x{lanes}") * builder.cast(second, f"int32x{lanes}")


def reference(
    case: QDepthwiseCase,
    *,
    x: Array,
    weight: Array,
    scale: Array,
    bias: Array | None = None,
    x_zero: int = 0,
    y_zero: int = 0,
    clip: Clip | None = None,
) -> Array:
    """What the kernel computes, in plain layout: x [batch, channels, height, width], weight as `pack` takes it."""
    sums = correlate(case.window, x.astype(np.float32) - x_zero, weight.astype(np.float32))
    sums += 0 if bias is None else bias[:, None, None]
    value = sums.astype(np.int64).astype(np.int32).astype(np.float32) * scale.astype(np.float32)[:, None, None]
    if case.gives == "float32":
        return finished_reference(case.activation, value.astype(np.float64))
    return to_codes_reference(value, zero=y_zero, dtype=case.gives, clip=clip)
