"""How a product is cut: tiles that fit the registers, rows dealt out evenly, and what one work item is.

Columns are cut into panels as wide as a tile; weights are packed panel by panel. One work item is a panel times a
block of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from edgewright_exporters.tir import builder

MOST_ROWS = 16
"""More rows than this in one tile save no loads worth the code."""


@dataclass(frozen=True)
class Tile:
    """`rows` x `vectors` vectors of sums are kept in registers at a time."""

    rows: int
    vectors: int


def tiles_of(rows: int, columns: int, *, lanes: int, registers: int) -> Sequence[Tile]:
    """Four tiles that fill the registers, best guess first.

    The guess: products on padding count in full, a load as half a product (two loads start per cycle on most CPUs,
    beside two products).
    """
    tiles = [
        Tile(min(fitting, MOST_ROWS, rows), vectors)
        for vectors in (1, 2, 3, 4, 6, 8)
        if (fitting := (registers - 1 - vectors) // vectors) > 0
    ]

    def cost(tile: Tile) -> float:
        padded = ceil(columns / (tile.vectors * lanes)) * tile.vectors
        return padded * (1 + (1 / tile.rows + 1 / tile.vectors) / 2)

    return sorted(tiles, key=cost)[:4]


@dataclass(frozen=True)
class Blocks:
    """`count` blocks of rows: the first `extra` have `rows` + 1 of them, the others `rows`."""

    count: int
    rows: int
    extra: int

    @property
    def most(self) -> int:
        """How many rows the largest block has."""
        return self.rows + bool(self.extra)

    def start(self, block: Any) -> Any:
        """The first row of `block`, an index of the function being written."""
        return block * self.rows + builder.least(block, self.extra)

    def sizes(self, block: Any) -> Sequence[tuple[int, Any]]:
        """The numbers of rows that blocks have, each with the condition under which `block` has it."""
        small = (self.rows, block >= self.extra)
        return ((self.rows + 1, block < self.extra), small) if self.extra else (small,)


def blocks_of(rows: int, most: int) -> Blocks:
    """`rows` dealt out evenly over as few blocks of at most `most` as there can be."""
    count = ceil(rows / most)
    return Blocks(count, rows // count, rows % count)


@dataclass(frozen=True)
class Spot:
    """Where a block stands: `rows` rows from `row` on, and `width` columns from the first of `panel` on."""

    rows: int
    row: Any
    panel: Any
    width: int


def panels_of(columns: int, tile: Tile, lanes: int) -> int:
    """How many panels `columns` are cut into; the last may be padded."""
    return ceil(columns / (tile.vectors * lanes))


def items_of(rows: int, columns: int, tile: Tile, *, lanes: int) -> int:
    """How many work items a product is."""
    return panels_of(columns, tile, lanes) * blocks_of(rows, tile.rows).count


def each_size(item: Any, rows: int, columns: int, tile: Tile, *, lanes: int, write: Callable[[Spot], None]) -> None:
    """Writes the work of `item` with `write`, once for each size of block that occurs, under its condition."""
    blocks = blocks_of(rows, tile.rows)
    panel, block = item // blocks.count, item % blocks.count
    whole, rest = divmod(columns, tile.vectors * lanes)
    widths = [(tile.vectors * lanes, panel < whole)] * bool(whole) + [(rest, panel >= whole)] * bool(rest)
    for high, enough_rows in blocks.sizes(block):
        for width, enough_columns in widths:
            with builder.when(enough_rows), builder.when(enough_columns):
                write(Spot(high, blocks.start(block), panel, width))
