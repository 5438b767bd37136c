"""Convolution of bytes, exact in int32 and scaled to bytes again or to float32, for any window.

    sums[n] = bias[n] + sum of (x - x_zero) * w[n] over the taps in the image
    bytes:    y = saturate(rint(float32(sums) * scale[n]) + y_zero)      as QLinearConv and QDQ graphs have it
    residual: y = saturate(rint(((y - mid_zero) * mid_scale + (r - r_zero) * r_scale) / y_scale) + y_zero)
    float32:  y = act(float32(sums) * scale[n])

Images are bytes in the layout of `window.blocked`, with `isa.lanes` channels in a block. Missing channels of x may hold
anything, for their weights are zero; those of y hold the code of what their bias and scale give, which are zero.

Where there is a dot product of bytes, images are read as they lie. Elsewhere the rows that an item needs are gathered
on the stack first, all channels of a pixel side by side, so that the innermost loop is long; where products are those
of int16 they are widened there, and a word is one broadcast from memory. One work item is a strip of rows of the result
for a group of panels of filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import dot
from edgewright_exporters.kernels.dot import Dot, dot_of_gathered
from edgewright_exporters.kernels.qborder import Border, Taps, border_of
from edgewright_exporters.kernels.requantise import LIMITS, pieces, to_codes, to_codes_reference
from edgewright_exporters.kernels.tiles import Blocks, blocks_of
from edgewright_exporters.kernels.window import Window, correlate, finished, finished_reference
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Array = npt.NDArray[Any]
STACK = 48 * 1024
"""Bytes of gathered rows that an item keeps on the stack, unless those of one row of the result are more."""

GROUP = 96 * 1024
"""Bytes of weights that an item goes through for each of its rows, unless one panel has more."""


@dataclass(frozen=True)
class Residual:
    """Bytes of type `dtype` that are added, and the zero point and type of the codes that the sums are rounded to."""

    dtype: str = "uint8"
    zero: int = 0
    mid_dtype: str = "uint8"
    mid_zero: int = 0


@dataclass(frozen=True)
class QConvCase:
    """Everything that decides what a kernel computes. `takes` and `gives` are the types of x and y.

    Weights are int8, one scale per filter; `bias` says that there is one, as int32 in units of the sums. Only float32
    results have an activation (none, relu, relu6 or gelu). A relu before bytes is a matter of their zero point, or of
    `clip`: the lowest and highest code that y may have. `gentle` says that `dot.gentle` holds for the weights along
    their channels, which x86 without a dot product multiplies faster; elsewhere it changes nothing.
    """

    batch: int
    channels: int
    filters: int
    window: Window
    takes: str = "uint8"
    gives: str = "uint8"
    x_zero: int = 0
    y_zero: int = 0
    bias: bool = False
    activation: str = "none"
    clip: tuple[int, int] | None = None
    residual: Residual | None = None
    gentle: bool = False


@dataclass(frozen=True)
class QConvTile:
    """How: `pixels` x `vectors` vectors of sums in registers; `wide` weights are stored as int16 for `dot.words`."""

    pixels: int
    vectors: int
    wide: bool = False


def tiles(case: QConvCase, isa: Isa) -> Sequence[QConvTile]:
    """Tiles worth trying, the likely best first: those that fill the registers with the fewest loads per product."""
    way, blocks, shapes = dot_of_gathered(isa, gentle=case.gentle), ceil(case.filters / isa.lanes), []
    wide = way.kind in ("words", "widen")
    for vectors in range(1, min(4, blocks) + 1):
        most = (isa.registers - (3 if way.kind == "gentle" else 2) - vectors) // vectors
        width = _flat(case.window, most).output[1]
        count = blocks_of(width, min(most, width)).count
        load = count / width + blocks_of(blocks, vectors).count / blocks
        shapes.append((load, QConvTile(ceil(width / count), vectors, wide)))
    best = [tile for _, tile in sorted(shapes, key=lambda shape: shape[0])]
    return (*best[:3], QConvTile(best[0].pixels, best[0].vectors)) if wide else best


def _flat(window: Window, pixels: int) -> Window:
    """A 1x1 kernel that skips nothing sees other rows: of the width, up to 128, that tiles fill best."""
    if window.kernel != (1, 1) or window.stride != (1, 1) or any(window.padding):
        return window
    size = window.image[0] * window.image[1]
    widths = [width for width in range(1, size + 1) if size % width == 0 and (width <= 128 or width == size)]
    best = min(widths, key=lambda width: (size // width * ceil(width / pixels), -width))
    return Window((size // best, best), (1, 1))


def items(case: QConvCase, tile: QConvTile, isa: Isa) -> int:
    """How many pieces of work there are: images times groups of panels times strips of rows."""
    cut = _Cut.of(case, tile, isa)
    return case.batch * cut.groups.count * cut.strips.count


@dataclass(frozen=True)
class _Cut:
    """How a case is cut: panels of blocks of filters, groups of panels, strips of rows.

    `way` is what multiplies, and `deep` how many channels of a pixel lie together where it reads them.
    """

    way: Dot
    window: Window
    deep: int
    panels: Blocks
    groups: Blocks
    strips: Blocks

    @classmethod
    def of(cls, case: QConvCase, tile: QConvTile, isa: Isa) -> _Cut:
        way, window = dot_of_gathered(isa, gentle=case.gentle), _flat(case.window, tile.pixels)
        panels = blocks_of(ceil(case.filters / isa.lanes), tile.vectors)
        line = 2 * ceil(case.channels / isa.lanes) * isa.lanes * window.image[1]
        rows = max(1, (STACK // line - window.kernel[0]) // window.stride[0] + 1)
        depth = case.channels * window.kernel[0] * window.kernel[1]
        panel = depth * tile.vectors * isa.lanes * (2 if tile.wide else 1)
        groups = blocks_of(panels.count, max(1, GROUP // panel))
        deep = isa.lanes if isa.dot else case.channels
        return cls(way, window, deep, panels, groups, blocks_of(window.output[0], min(rows, window.output[0])))

    @property
    def gathered(self) -> str:
        """The type of rows that are gathered on the stack before they are multiplied; empty where they are not."""
        return {"words": "int16", "widen": "int16", "gentle": "uint8"}.get(self.way.kind, "")

    @property
    def kept(self) -> int:
        """How many rows of the image the largest strip needs."""
        rows = self.strips.rows + (self.strips.extra > 0)
        return min((rows - 1) * self.window.stride[0] + self.window.kernel[0], self.window.image[0])


def _steps(channels: int, way: Dot) -> int:
    return ceil(channels / way.step)


def _depth(case: QConvCase, cut: _Cut) -> int:
    """The products of one result, those on the padding of the last step with them."""
    whole, rest = divmod(case.channels, cut.deep)
    steps = whole * _steps(cut.deep, cut.way) + _steps(rest, cut.way)
    return steps * cut.way.step * case.window.kernel[0] * case.window.kernel[1]


def pack(
    case: QConvCase, tile: QConvTile, isa: Isa, *, weight: Array, scale: Array, bias: Array | None = None, **scales: Any
) -> tuple[Array, ...]:
    """What the kernel reads beside images: w, start, scale, and with a residual the three scales `mid`, `r`, `y`.

    The weight is int8 [filters, channels, rows, columns], the scale float32 and the bias int32, one per filter. A panel
    of filters is [blocks of channels][rows][columns][steps][its filters][a step's channels].
    """
    if case.gentle and not dot.gentle(np.moveaxis(weight, 1, -1)):
        raise ValueError(
            "weights are not gentle: two neighbours' products leave int16; use a case that does not say so"
        )
    cut, lanes = _Cut.of(case, tile, isa), isa.lanes
    missing = -case.filters % lanes
    padded = np.pad(weight, ((0, missing), *((0, 0),) * 3))
    cuts = [(cut.panels.rows * i + min(i, cut.panels.extra)) * lanes for i in range(1, cut.panels.count)]
    parts = [_panel(part, cut) for part in np.split(padded, cuts)]
    offset = case.x_zero + cut.way.shift(case.takes)
    start = border_of(cut.window).starts(offset, padded, None if bias is None else np.pad(bias, (0, missing)))
    packed = (
        np.concatenate(parts).astype(np.int16 if tile.wide else np.int8),
        start.ravel(),
        np.pad(scale.astype(np.float32), (0, missing)),
    )
    return (*packed, _scales(**scales)) if case.residual else packed


def _scales(*, mid_scale: float, r_scale: float, y_scale: float) -> Array:
    return np.array([mid_scale, r_scale, y_scale], np.float32)


def _panel(weight: Array, cut: _Cut) -> Array:
    parts: list[Array] = []
    way = cut.way
    for at in range(0, weight.shape[1], cut.deep):
        block = weight[:, at : at + cut.deep]
        block = np.pad(block, ((0, 0), (0, -block.shape[1] % way.step), (0, 0), (0, 0)))
        filters, _, high, wide = block.shape
        parts.append(block.reshape(filters, -1, way.step, high, wide).transpose(3, 4, 1, 0, 2).ravel())
    return np.concatenate(parts)


def arguments(case: QConvCase, tile: QConvTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers that the kernel takes, in order: X, W, start, scale, [scales, residual], Y."""
    cut, lanes, window = _Cut.of(case, tile, isa), isa.lanes, case.window
    inputs, outputs = (ceil(n / lanes) * lanes for n in (case.channels, case.filters))
    size = case.batch * outputs * window.output[0] * window.output[1]
    residual = case.residual
    added = (Argument("scales", "float32", 3), Argument("residual", residual.dtype, size)) if residual else ()
    return (
        Argument("x", case.takes, case.batch * inputs * window.image[0] * window.image[1]),
        Argument("w", "int16" if tile.wide else "int8", outputs * _depth(case, cut)),
        Argument("start", "int32", border_of(cut.window).count * outputs),
        Argument("scale", "float32", outputs),
        *added,
        Argument("y", case.gives, size),
    )


def function(case: QConvCase, tile: QConvTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    pointers, cut = arguments(case, tile, isa), _Cut.of(case, tile, isa)

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        named = dict(zip((pointer.name for pointer in pointers), buffers))
        kernel = _Kernel(case, tile, cut, isa.lanes, border_of(cut.window), named)
        with builder.loop(begin, end) as item:
            strip, rest = item % cut.strips.count, item // cut.strips.count
            group, image = rest % cut.groups.count, rest // cut.groups.count
            rows = (cut.strips.start(strip), cut.strips.start(strip + 1))
            source = _gathered(kernel, image, rows) if cut.gathered else _direct(kernel, image)
            with builder.loop(cut.groups.start(group), cut.groups.start(group + 1)) as panel:
                for vectors, there in cut.panels.sizes(panel):
                    with builder.when(there), builder.loop(*rows) as row:
                        _row(kernel, source, _Spot(image, cut.panels.start(panel), vectors, row))

    return builder.function(symbol, pointers, body)


@dataclass(frozen=True)
class _Kernel:
    """What every part of the function being written needs to know."""

    case: QConvCase
    tile: QConvTile
    cut: _Cut
    lanes: int
    border: Border
    buffers: dict[str, Any]

    @property
    def blocks(self) -> int:
        """Of channels."""
        return ceil(self.case.channels / self.lanes)


@dataclass(frozen=True)
class _Source:
    """Where pixels are read: channel c of column x, row y, block b: `start` + b * block + y * line + x * pixel + c."""

    buffer: Any
    dtype: str
    start: Any
    block: int
    line: int
    pixel: int


@dataclass(frozen=True)
class _Spot:
    """Which row of which image, for which blocks of filters: `vectors` from `block` on."""

    image: Any
    block: Any
    vectors: int
    row: Any


def _direct(kernel: _Kernel, image: Any) -> _Source:
    high, wide = kernel.cut.window.image
    line = wide * kernel.lanes
    start = image * (kernel.blocks * high * line)
    return _Source(kernel.buffers["x"], kernel.case.takes, start, high * line, line, kernel.lanes)


def _gathered(kernel: _Kernel, image: Any, rows: tuple[Any, Any]) -> _Source:
    """Writes what is under `rows` of the result to the stack, all channels of a pixel side by side."""
    window, x, lanes, pixel = kernel.cut.window, kernel.buffers["x"], kernel.lanes, kernel.blocks * kernel.lanes
    high, wide = window.image
    top, low, _ = window.rows(rows[0])
    last, _, stop = window.rows(rows[1] - 1)
    first = builder.held(top + low)
    dtype = kernel.cut.gathered
    gathered = builder.registers(kernel.cut.kept * wide * pixel, dtype)
    with builder.loop(0, kernel.blocks) as block, builder.loop(first, last + stop) as row:
        source = ((image * kernel.blocks + block) * high + row) * wide
        with builder.loop(0, wide) as column:
            values = builder.load(x, (source + column) * lanes, lanes)
            place = ((row - first) * wide + column) * pixel + block * lanes
            if dtype == "uint8" and kernel.case.takes == "int8":
                values = values ^ builder.splat(-128, lanes, "int8")
            builder.store(gathered, place, builder.cast(values, f"{dtype}x{lanes}"), lanes)
    return _Source(gathered, dtype, -first * (wide * pixel), 0, wide * pixel, pixel)


def _row(kernel: _Kernel, source: _Source, spot: _Spot) -> None:
    window = kernel.cut.window
    for run in window.runs(kernel.tile.pixels):

        def write(first: Any, inside: Any, pixels: int = run.pixels) -> None:
            left = [tuple(t for t in range(window.kernel[1]) if inside(window, p, t)) for p in range(pixels)]
            _tile(kernel, source, spot, first, left)

        run.each(write)


def _tile(kernel: _Kernel, source: _Source, spot: _Spot, first: Any, left: Sequence[Taps]) -> None:
    """Columns of the result from `first` on, each with the columns of taps that are `left` of it."""
    lanes, way = kernel.lanes, kernel.cut.way
    sums = builder.registers(len(left) * spot.vectors * lanes, "int32")
    _start(kernel, spot, left, sums)
    window = kernel.cut.window
    top, *rows = window.rows(spot.row)
    at = source.start + top * source.line + window.column(first) * source.pixel
    panel = spot.block * (_filter(kernel) * lanes)
    for begin, end, deep in _blocks(kernel.case.channels, kernel.cut.deep):
        steps = _steps(deep, way)
        with builder.loop(begin, end) as block, builder.loop(*rows) as tap:
            pixel = at + block * source.block + tap * source.line
            step = block * (_steps(kernel.cut.deep, way) * window.kernel[0] * window.kernel[1])
            step += tap * (window.kernel[1] * steps)
            weights = panel + step * (spot.vectors * lanes * way.step)
            _products(kernel, source, (pixel, weights, steps), (left, sums, spot.vectors))
    _finish(kernel, spot, first, sums, len(left))


def _filter(kernel: _Kernel) -> int:
    """How many weights one filter has in a panel."""
    return kernel.buffers["w"].shape[0] // kernel.buffers["scale"].shape[0]


def _blocks(channels: int, deep: int) -> Sequence[tuple[int, int, int]]:
    """Runs (begin, end, channels) of blocks: the whole ones, then the one that has fewer channels."""
    whole, rest = divmod(channels, deep)
    return [(0, whole, deep)] * bool(whole) + [(whole, whole + 1, rest)] * bool(rest)


def _products(
    kernel: _Kernel, source: _Source, at: tuple[Any, Any, int], into: tuple[Sequence[Taps], Any, int]
) -> None:
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


def _start(kernel: _Kernel, spot: _Spot, left: Sequence[Taps], sums: Any) -> None:
    lanes, filters = kernel.lanes, kernel.buffers["scale"].shape[0]
    for pixel, taps in enumerate(left):
        line = kernel.border.pattern(spot.row, taps) * filters + spot.block * lanes
        for vector in range(spot.vectors):
            value = builder.load(kernel.buffers["start"], line + vector * lanes, lanes)
            builder.store(sums, (pixel * spot.vectors + vector) * lanes, value, lanes)


def _finish(kernel: _Kernel, spot: _Spot, first: Any, sums: Any, pixels: int) -> None:
    lanes, (high, wide) = kernel.lanes, kernel.cut.window.output
    blocks = ceil(kernel.case.filters / lanes)
    for vector in range(spot.vectors):
        scale = builder.load(kernel.buffers["scale"], (spot.block + vector) * lanes, lanes)
        line = (((spot.image * blocks + spot.block + vector) * high + spot.row) * wide + first) * lanes
        for start, count in pieces(pixels):
            places = [((pixel * spot.vectors) + vector) * lanes for pixel in range(start, start + count)]
            values = [builder.cast(builder.load(sums, place, lanes), f"float32x{lanes}") * scale for place in places]
            _write(kernel, line + start * lanes, values)


def _write(kernel: _Kernel, at: Any, values: Sequence[Any]) -> None:
    """Finishes and stores vectors that lie one after the other in the result."""
    case, lanes, y = kernel.case, kernel.lanes, kernel.buffers["y"]
    if case.gives == "float32":
        for place, value in enumerate(values):
            builder.store(y, at + place * lanes, finished(case.activation, value, lanes), lanes)
        return
    if case.residual:
        values = [_added(kernel, case.residual, value, at + place * lanes) for place, value in enumerate(values)]
    codes = to_codes(values, zero=case.y_zero, dtype=case.gives, clip=case.clip, lanes=lanes)
    builder.store(y, at, codes, lanes * len(values))


def _added(kernel: _Kernel, residual: Residual, value: Any, at: Any) -> Any:
    """The sum of two dequantised codes, in units of y. Fences keep the products from being fused with the sum."""
    lanes, buffers = kernel.lanes, kernel.buffers
    mid, r, y = (builder.splat(buffers["scales"][place], lanes) for place in range(3))
    low, high = (builder.splat(n - residual.mid_zero, lanes, "float32") for n in LIMITS[residual.mid_dtype])
    code = builder.round_even(builder.least(builder.largest(value, low), high))
    other = builder.cast(builder.load(buffers["residual"], at, lanes), f"int32x{lanes}")
    other = builder.cast(other - builder.splat(residual.zero, lanes, "int32"), f"float32x{lanes}")
    parts = [builder.intrinsic("llvm.arithmetic.fence", f"float32x{lanes}", part) for part in (code * mid, other * r)]
    return (parts[0] + parts[1]) / y


def reference(
    case: QConvCase,
    *,
    x: Array,
    weight: Array,
    scale: Array,
    bias: Array | None = None,
    residual: Array | None = None,
    mid_scale: float = 1.0,
    r_scale: float = 1.0,
    y_scale: float = 1.0,
) -> Array:
    """What the kernel computes, in plain layout: x [batch, channels, height, width], weight as `pack` takes it.

    Bytes are exact; float32 results are those of float32 arithmetic, activations in float64.
    """
    sums = correlate(case.window, x.astype(np.float32) - case.x_zero, weight.astype(np.float32))
    sums += 0 if bias is None else bias[:, None, None]
    value = sums.astype(np.int64).astype(np.int32).astype(np.float32) * scale.astype(np.float32)[:, None, None]
    if case.gives == "float32":
        return finished_reference(case.activation, value.astype(np.float64))
    if case.residual and residual is not None:
        mid, r, y = _scales(mid_scale=mid_scale, r_scale=r_scale, y_scale=y_scale)
        low, high = (limit - case.residual.mid_zero for limit in LIMITS[case.residual.mid_dtype])
        other = (residual.astype(np.int32) - case.residual.zero).astype(np.float32)
        value = (np.clip(np.rint(value), low, high) * mid + other * r) / y
    return to_codes_reference(value, zero=case.y_zero, dtype=case.gives, clip=case.clip)
