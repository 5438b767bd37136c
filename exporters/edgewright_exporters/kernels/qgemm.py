"""Matrix product of bytes with packed int8 weights, its exact int32 sums scaled to bytes again or to float32.

    sums[m, n] = bias[n] + sum_k (x[m, k] - x_zero) * w[k, n]
    bytes:   y = saturate(rint(float32(sums) * scale[n]) + y_zero)       as QLinearMatMul and QDQ graphs have it
    float32: y = act(float32(sums) * scale[n]) + residual

Weights are symmetric, with one scale per column; they may lie as four bits each, see `codebook`. The zero point of x,
and what an instruction set wants added to its bytes, are folded into the bias. Panels and blocks are those of `gemm`;
a panel holds `Dot.step` neighbours of the depth side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import ceil
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import codebook, dot, epilogue
from edgewright_exporters.kernels.dot import Dot, dot_of
from edgewright_exporters.kernels.requantise import CODES, packed_codes, to_codes, to_codes_reference
from edgewright_exporters.kernels.tiles import Spot, Tile, blocks_of, each_size, items_of, panels_of, tiles_of
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Array = npt.NDArray[Any]

FEW = 4
"""Rows up to which codes are looked up for each product; with more of them, a panel is looked up once, ahead."""


@dataclass(frozen=True)
class QGemmCase:
    """Everything that decides what code a kernel is; zero points and scales are constants that it reads.

    `takes` and `gives` are the types of x and y. Only float32 results have an activation (one of
    `epilogue.ACTIVATIONS`) and a residual; a relu before bytes is a matter of their zero point. With `codes`, 16 int8
    values, weights are stored as numbers of these, two in a byte; without, as int8. `gentle` says that `dot.gentle`
    holds for the weights along the depth, which x86 without a dot product multiplies faster.
    """

    rows: int
    depth: int
    columns: int
    takes: str = "uint8"
    gives: str = "uint8"
    activation: str = "none"
    residual: bool = False
    codes: tuple[int, ...] = ()
    gentle: bool = False

    @property
    def packing(self) -> int:
        """How many weights lie in one byte."""
        return 2 if self.codes else 1

    @property
    def ahead(self) -> bool:
        """Whether codes are looked up ahead of the products."""
        return bool(self.codes) and self.rows > FEW


def _way(case: QGemmCase, isa: Isa) -> Dot:
    return dot_of(isa, gentle=case.gentle)


def tiles(case: QGemmCase, isa: Isa) -> Sequence[Tile]:
    """A few tiles worth measuring, best guess first."""
    way = _way(case, isa)
    kept = 5 if case.codes and not case.ahead else 0
    registers = (isa.registers - kept) * isa.lanes // way.lanes
    return tiles_of(case.rows, case.columns, lanes=way.lanes, registers=registers)


def items(case: QGemmCase, tile: Tile, isa: Isa) -> int:
    """How many pieces of work the kernel can be cut into."""
    return items_of(case.rows, case.columns, tile, lanes=_way(case, isa).lanes)


def pack(
    case: QGemmCase,
    tile: Tile,
    isa: Isa,
    *,
    weight: Array,
    scale: Array,
    bias: Array | None = None,
    x_zero: int = 0,
    y_zero: int = 0,
) -> tuple[Array, ...]:
    """Weight [K, N] int8, scale [N] float32 and bias [N] int32 as the kernel reads them: in whole panels. The order is
    w, bias, scale, and of bytes `codes`."""
    if case.gentle:
        dot.check_gentle(weight.T)
    way = _way(case, isa)
    width, panels = tile.vectors * way.lanes, panels_of(case.columns, tile, way.lanes)
    columns, depth = panels * width - case.columns, -case.depth % (way.step * case.packing)
    stored = codebook.encode(case.codes, weight) if case.codes else weight.astype(np.int8)
    parts = np.pad(stored, ((0, depth), (0, columns))).reshape(-1, case.packing, way.step, panels, width)
    parts = dot.arranged(way, parts.transpose(1, 3, 0, 4, 2))
    packed = (parts[0] | parts[1] << 4).view(np.int8) if case.codes else parts[0]
    offset = (int(x_zero) + way.shift(case.takes)) * weight.sum(axis=0, dtype=np.int64)
    start = ((0 if bias is None else bias.astype(np.int64)) - offset).astype(np.int32)
    return (
        np.ascontiguousarray(packed).ravel(),
        np.pad(start, (0, columns)),
        np.pad(scale.astype(np.float32), (0, columns)),
        *(() if case.gives == "float32" else (packed_codes(y_zero, None, case.gives),)),
    )


def arguments(case: QGemmCase, tile: Tile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers that the kernel takes, in order: X, packed W, bias, scale, [residual], [codes], Y."""
    way, size = _way(case, isa), case.rows * case.columns
    padded = panels_of(case.columns, tile, way.lanes) * tile.vectors * way.lanes
    return (
        Argument("x", case.takes, case.rows * case.depth),
        Argument("w", "int8", ceil(case.depth / (way.step * case.packing)) * way.step * padded),
        Argument("bias", "int32", padded),
        Argument("scale", "float32", padded),
        *((Argument("residual", "float32", size),) if case.residual else ()),
        *(() if case.gives == "float32" else (CODES,)),
        Argument("y", case.gives, size),
    )


def function(case: QGemmCase, tile: Tile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    pointers = arguments(case, tile, isa)

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        named, way = dict(zip((pointer.name for pointer in pointers), buffers)), _way(case, isa)
        looked_up = builder.registers(_panel_bytes(case, tile, way), "int8") if case.ahead else None
        kernel = _Kernel(case, tile, way, named, looked_up)
        with builder.loop(begin, end) as item:
            if looked_up is not None:
                blocks = blocks_of(case.rows, tile.rows).count
                with builder.when(builder.either(item == begin, item % blocks == 0)):
                    _look_up(kernel, item // blocks)
            each_size(item, case.rows, case.columns, tile, lanes=way.lanes, write=partial(_block, kernel))

    return builder.function(symbol, pointers, body)


def _panel_bytes(case: QGemmCase, tile: Tile, way: Dot) -> int:
    """How many bytes the weights of a panel are when none is packed."""
    return ceil(case.depth / (way.step * case.packing)) * case.packing * way.step * tile.vectors * way.lanes


@dataclass(frozen=True)
class _Kernel:
    """What every part of the function being written needs to know.

    `looked_up` holds the int8 weights of the panel at hand, where there is such a buffer.
    """

    case: QGemmCase
    tile: Tile
    dot: Dot
    buffers: dict[str, Any]
    looked_up: Any

    @property
    def width(self) -> int:
        return self.tile.vectors * self.dot.lanes

    @property
    def packing(self) -> int:
        """How many weights lie in a byte when they are multiplied."""
        return self.case.packing if self.looked_up is None else 1


def _look_up(kernel: _Kernel, panel: Any) -> None:
    """Writes the int8 weights of a panel, which are as many vectors for each vector of codes as a byte has codes."""
    way, packing, count = kernel.dot, kernel.case.packing, kernel.dot.lanes * kernel.dot.step
    line = kernel.width * way.step
    lines = ceil(kernel.case.depth / (way.step * packing))
    with builder.loop(0, lines) as turn:
        for at in range(0, line, count):
            pairs = builder.held(builder.load(kernel.buffers["w"], (panel * lines + turn) * line + at, count))
            for part in range(packing):
                values = codebook.decode(way, pairs, part, kernel.case.codes)
                builder.store(kernel.looked_up, (turn * packing + part) * line + at, values, count)


def _block(kernel: _Kernel, spot: Spot) -> None:
    sums, lanes = builder.registers(spot.rows * kernel.width, "int32"), kernel.dot.lanes
    for at in range(0, spot.width, lanes):
        start = builder.load(kernel.buffers["bias"], spot.panel * kernel.width + at, lanes)
        for row in range(spot.rows):
            builder.store(sums, row * kernel.width + at, start, lanes)
    _sum(kernel, spot, sums)
    for row in range(spot.rows):
        for at in range(0, spot.width, lanes):
            _write(kernel, spot, row, at, builder.load(sums, row * kernel.width + at, lanes))


def _sum(kernel: _Kernel, spot: Spot, sums: Any) -> None:
    """Adds all products: in a loop while weights fill whole bytes and steps, and what is left after it."""
    step, packing, depth = kernel.dot.step, kernel.packing, kernel.case.depth
    turns = depth // (step * packing)
    if turns:
        with builder.loop(0, turns) as turn:
            _accumulate(kernel, spot, sums, turn=turn, parts=[step] * packing)
    rest = [min(step, depth - start) for start in range(turns * step * packing, depth, step)]
    if rest:
        _accumulate(kernel, spot, sums, turn=turns, parts=rest)


def _accumulate(kernel: _Kernel, spot: Spot, sums: Any, *, turn: Any, parts: Sequence[int]) -> None:
    """Adds what a turn gives to every sum: of each of its `parts` so many positions of the depth.

    A single row has its columns in the outer loop: bytes of codes are then used up at once, and free their register.
    """
    case, way = kernel.case, kernel.dot
    line = turn * (kernel.width * way.step)
    if kernel.looked_up is None:
        line += spot.panel * (ceil(case.depth / (way.step * case.packing)) * kernel.width * way.step)
    places = list(product(range(len(parts)), range(spot.rows), range(0, spot.width, way.lanes)))
    for part, row, at in sorted(places, key=itemgetter(2)) if spot.rows == 1 else places:
        start = (spot.row + row) * case.depth + (turn * kernel.packing + part) * way.step
        spread = dot.spread(way, kernel.buffers["x"], start, dtype=case.takes, real=parts[part])
        weights = _weights(kernel, line + at * way.step, part)
        to = row * kernel.width + at
        builder.store(sums, to, dot.multiply(way, builder.load(sums, to, way.lanes), spread, weights), way.lanes)


def _weights(kernel: _Kernel, at: Any, part: int) -> Any:
    """A vector of int8 weights."""
    count = kernel.dot.lanes * kernel.dot.step
    if kernel.looked_up is not None:
        return builder.load(kernel.looked_up, at, count)
    found = builder.load(kernel.buffers["w"], at, count)
    return codebook.decode(kernel.dot, found, part, kernel.case.codes) if kernel.case.codes else found


def _write(kernel: _Kernel, spot: Spot, row: int, at: int, sums: Any) -> None:
    case, lanes = kernel.case, kernel.dot.lanes
    column = spot.panel * kernel.width + at
    scale = builder.load(kernel.buffers["scale"], column, lanes)
    value = builder.cast(sums, f"float32x{lanes}") * scale
    if case.gives == "float32":
        value = epilogue.activated(case.activation, value, lanes)
    else:
        value = to_codes([value], kernel.buffers["codes"], dtype=case.gives, clip=False, lanes=lanes)
    to, real = (spot.row + row) * case.columns + column, spot.width - at
    residual = kernel.buffers.get("residual")
    epilogue.write(kernel.buffers["y"], to, value, lanes=lanes, real=real, residual=residual)


def reference(
    case: QGemmCase,
    *,
    x: Array,
    weight: Array,
    scale: Array,
    bias: Array | None = None,
    residual: Array | None = None,
    x_zero: int = 0,
    y_zero: int = 0,
) -> Array:
    """What the kernel computes: x [M, K], weight [K, N], scale and bias [N], residual [M, N] give [M, N].

    Bytes are exact; float32 results are those of float32 arithmetic, activations in float64.
    """
    sums = (x.astype(np.int64) - x_zero) @ weight.astype(np.int64) + (0 if bias is None else bias)
    scaled = sums.astype(np.int32).astype(np.float32) * scale.astype(np.float32)
    if case.gives != "float32":
        return to_codes_reference(scaled, zero=y_zero, dtype=case.gives, clip=None)
    y = epilogue.activation_reference(case.activation, scaled.astype(np.float64))
    return y if residual is None else y + residual
