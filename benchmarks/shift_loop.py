"""The literal product of shifts, for comparison: each byte of a row is shifted by each power, negated, and added.

A template as those of `edgewright_exporters.kernels` are, for bytes to bytes; it has no multiplication but the scale's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from edgewright_exporters.kernels import qgemm
from edgewright_exporters.kernels.qgemm import QGemmCase
from edgewright_exporters.kernels.requantise import CODES, packed_codes, to_codes
from edgewright_exporters.kernels.tiles import Tile
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

reference = qgemm.reference
ROWS = 4


def tiles(case: QGemmCase, isa: Isa) -> Sequence[Tile]:
    """One: a vector of columns, and as many rows as share what is read of the weights."""
    return (Tile(next(rows for rows in range(ROWS, 0, -1) if case.rows % rows == 0), 1),)


def items(case: QGemmCase, tile: Tile, isa: Isa) -> int:
    """How many pieces of work the kernel can be cut into."""
    return case.rows // tile.rows * ceil(case.columns / isa.lanes)


def pack(case: QGemmCase, tile: Tile, isa: Isa, *, weight: Any, scale: Any, x_zero: int, y_zero: int) -> Any:
    """Per panel and depth: powers, -1 for negative weights, -1 for those that are not 0; then bias, scale and codes."""
    wide = weight.astype(np.int64)
    powers = np.where(wide == 0, 0, np.log2(np.maximum(np.abs(wide), 1)))
    planes = np.stack([powers, np.where(wide < 0, -1, 0), np.where(wide == 0, 0, -1)])
    panels = planes.reshape(3, case.depth, -1, isa.lanes).transpose(2, 1, 0, 3)
    bias = (-int(x_zero) * wide.sum(0)).astype(np.int32)
    return np.ascontiguousarray(panels.astype(np.int8)).ravel(), bias, scale, packed_codes(y_zero, None, case.gives)


def arguments(case: QGemmCase, tile: Tile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers that the kernel takes. Raises: ValueError for columns that fill no whole vectors."""
    if case.columns % isa.lanes:
        raise ValueError(f"{case.columns} columns are no multiple of {isa.lanes}; the loop has no edge")
    return (
        Argument("x", case.takes, case.rows * case.depth),
        Argument("w", "int8", 3 * case.depth * case.columns),
        Argument("bias", "int32", case.columns),
        Argument("scale", "float32", case.columns),
        CODES,
        Argument("y", case.gives, case.rows * case.columns),
    )


def function(case: QGemmCase, tile: Tile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    lanes, blocks = isa.lanes, case.rows // tile.rows

    def body(x: Any, w: Any, bias: Any, scale: Any, codes: Any, y: Any, begin: Any, end: Any) -> None:  # noqa: PLR0917
        with builder.loop(begin, end) as item:
            panel, block = item // blocks, item % blocks
            sums = builder.registers(tile.rows * lanes, "int32")
            for row in range(tile.rows):
                builder.store(sums, row * lanes, builder.load(bias, panel * lanes, lanes), lanes)
            with builder.loop(0, case.depth) as k:
                at = (panel * case.depth + k) * 3 * lanes
                power, minus, some = (
                    builder.cast(builder.load(w, at + plane * lanes, lanes), f"int32x{lanes}") for plane in range(3)
                )
                for row in range(tile.rows):
                    value = builder.cast(x[(block * tile.rows + row) * case.depth + k], "int32")
                    moved = (builder.splat(value, lanes) << power) & some
                    total = builder.load(sums, row * lanes, lanes) + ((moved ^ minus) - minus)
                    builder.store(sums, row * lanes, total, lanes)
            for row in range(tile.rows):
                value = builder.cast(builder.load(sums, row * lanes, lanes), f"float32x{lanes}")
                value = value * builder.load(scale, panel * lanes, lanes)
                made = to_codes([value], codes, dtype=case.gives, clip=False, lanes=lanes)
                builder.store(y, (block * tile.rows + row) * case.columns + panel * lanes, made, lanes)

    return builder.function(symbol, arguments(case, tile, isa), body)
