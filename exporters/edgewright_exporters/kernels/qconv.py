"""Convolution of bytes, exact in int32 and scaled to bytes again or to float32, for any window.

    sums[n] = bias[n] + sum of (x - x_zero) * w[n] over the taps in the image
    bytes:    y = saturate(rint(float32(sums) * scale[n]) + y_zero)      as QLinearConv and QDQ graphs have it
    residual: y = saturate(rint((held(rint(float32(sums) * scale[n])) * mid_scale + (r - r_zero) * r_scale) / y_scale)
                  + y_zero)
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
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import dot
from edgewright_exporters.kernels.dot import dot_of_gathered
from edgewright_exporters.kernels.qborder import border_of
from edgewright_exporters.kernels.qconv_cut import Cut, QConvCase, QConvTile, flat
from edgewright_exporters.kernels.qconv_rows import Kernel, source_of
from edgewright_exporters.kernels.qconv_tile import Spot, row_of
from edgewright_exporters.kernels.requantise import CODES, Clip, packed_codes, to_codes_reference
from edgewright_exporters.kernels.tiles import blocks_of
from edgewright_exporters.kernels.window import correlate, finished_reference
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Array = npt.NDArray[Any]


def tiles(case: QConvCase, isa: Isa) -> Sequence[QConvTile]:
    """Tiles worth trying, the likely best first: those that fill the registers with the fewest loads per product."""
    way, blocks, shapes = dot_of_gathered(isa, gentle=case.gentle), ceil(case.filters / isa.lanes), []
    wide = way.kind in ("words", "widen")
    for vectors in range(1, min(4, blocks) + 1):
        most = (isa.registers - (3 if way.kind == "gentle" else 2) - vectors) // vectors
        width = flat(case.window, most).output[1]
        count = blocks_of(width, min(most, width)).count
        load = count / width + blocks_of(blocks, vectors).count / blocks
        shapes.append((load, QConvTile(ceil(width / count), vectors, wide)))
    best = [tile for _, tile in sorted(shapes, key=lambda shape: shape[0])]
    return (*best[:3], QConvTile(best[0].pixels, best[0].vectors)) if wide else best


def items(case: QConvCase, tile: QConvTile, isa: Isa) -> int:
    """How many pieces of work there are: images times groups of panels times strips of rows."""
    cut = Cut.of(case, tile, isa)
    return case.batch * cut.groups.count * cut.strips.count


def pack(
    case: QConvCase,
    tile: QConvTile,
    isa: Isa,
    *,
    weight: Array,
    scale: Array,
    bias: Array | None = None,
    x_zero: int = 0,
    y_zero: int = 0,
    clip: Clip | None = None,
    **added: float,
) -> tuple[Array, ...]:
    """What the kernel reads beside images: w, start, scale, with a residual `scales`, and of bytes `codes`.

    The weight is int8 [filters, channels, rows, columns], the scale float32 and the bias int32, one per filter. A panel
    of filters is [blocks of channels][rows][columns][steps][its filters][a step's channels]. With a residual there are
    the scales `mid_scale`, `r_scale` and `y_scale`, its zero point `r_zero`, and `mid_low` and `mid_high`: between
    these are the codes that the sums are rounded to, less their zero point.
    """
    if case.gentle:
        dot.check_gentle(np.moveaxis(weight, 1, -1))
    cut, lanes = Cut.of(case, tile, isa), isa.lanes
    missing = -case.filters % lanes
    padded = np.pad(weight, ((0, missing), *((0, 0),) * 3))
    cuts = [(cut.panels.rows * i + min(i, cut.panels.extra)) * lanes for i in range(1, cut.panels.count)]
    parts = [_panel(part, cut) for part in np.split(padded, cuts)]
    offset = int(x_zero) + cut.way.shift(case.takes)
    start = border_of(cut.window).starts(offset, padded, None if bias is None else np.pad(bias, (0, missing)))
    return (
        np.concatenate(parts).astype(np.int16 if tile.wide else np.int8),
        start.ravel(),
        np.pad(scale.astype(np.float32), (0, missing)),
        *((_scales(**added),) if case.residual else ()),
        *(() if case.gives == "float32" else (packed_codes(y_zero, clip, case.gives),)),
    )


def _scales(
    *, mid_scale: float, mid_low: float, mid_high: float, r_scale: float, r_zero: float, y_scale: float
) -> Array:
    return np.array([mid_scale, mid_low, mid_high, r_scale, r_zero, y_scale], np.float32)


def _panel(weight: Array, cut: Cut) -> Array:
    parts: list[Array] = []
    way = cut.way
    for at in range(0, weight.shape[1], cut.deep):
        block = weight[:, at : at + cut.deep]
        block = np.pad(block, ((0, 0), (0, -block.shape[1] % way.step), (0, 0), (0, 0)))
        filters, _, high, wide = block.shape
        parts.append(block.reshape(filters, -1, way.step, high, wide).transpose(3, 4, 1, 0, 2).ravel())
    return np.concatenate(parts)


def arguments(case: QConvCase, tile: QConvTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers that the kernel takes, in order: X, W, start, scale, [scales, residual], [codes], Y."""
    cut, lanes, window = Cut.of(case, tile, isa), isa.lanes, case.window
    inputs, outputs = (ceil(n / lanes) * lanes for n in (case.channels, case.filters))
    size = case.batch * outputs * window.output[0] * window.output[1]
    added = (Argument("scales", "float32", 6), Argument("residual", case.residual, size)) if case.residual else ()
    return (
        Argument("x", case.takes, case.batch * inputs * window.image[0] * window.image[1]),
        Argument("w", "int16" if tile.wide else "int8", outputs * cut.depth),
        Argument("start", "int32", border_of(cut.window).count * outputs),
        Argument("scale", "float32", outputs),
        *added,
        *(() if case.gives == "float32" else (CODES,)),
        Argument("y", case.gives, size),
    )


def function(case: QConvCase, tile: QConvTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    pointers, cut = arguments(case, tile, isa), Cut.of(case, tile, isa)

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        named = dict(zip((pointer.name for pointer in pointers), buffers))
        kernel = Kernel(case, tile, cut, isa.lanes, border_of(cut.window), named)
        with builder.loop(begin, end) as item:
            strip, rest = item % cut.strips.count, item // cut.strips.count
            group, image = rest % cut.groups.count, rest // cut.groups.count
            rows = (cut.strips.start(strip), cut.strips.start(strip + 1))
            source = source_of(kernel, image, rows)
            with builder.loop(cut.groups.start(group), cut.groups.start(group + 1)) as panel:
                for vectors, there in cut.panels.sizes(panel):
                    with builder.when(there), builder.loop(*rows) as row:
                        row_of(kernel, source, Spot(image, cut.panels.start(panel), vectors, row))

    return builder.function(symbol, pointers, body)


def reference(
    case: QConvCase,
    *,
    x: Array,
    weight: Array,
    scale: Array,
    bias: Array | None = None,
    x_zero: int = 0,
    y_zero: int = 0,
    clip: Clip | None = None,
    residual: Array | None = None,
    **added: float,
) -> Array:
    """What the kernel computes, in plain layout: x [batch, channels, height, width], weight as `pack` takes it.

    Bytes are exact; float32 results are those of float32 arithmetic, activations in float64.
    """
    sums = correlate(case.window, x.astype(np.float32) - x_zero, weight.astype(np.float32))
    sums += 0 if bias is None else bias[:, None, None]
    value = sums.astype(np.int64).astype(np.int32).astype(np.float32) * scale.astype(np.float32)[:, None, None]
    if case.gives == "float32":
        return finished_reference(case.activation, value.astype(np.float64))
    if residual is not None:
        mid, low, high, r, zero, y = _scales(**added)
        value = (np.clip(np.rint(value), low, high) * mid + (residual.astype(np.float32) - zero) * r) / y
    return to_codes_reference(value, zero=y_zero, dtype=case.gives, clip=clip)
