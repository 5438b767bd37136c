"""Fused attention of the blocks of keys that a mask names for each tile of queries: what it leaves out costs nothing.

`attention_panel` tells how a panel of queries is computed. A panel lies within one tile. It lists the keys of the
blocks it sees, and goes through the list as `attention` goes through all keys; scores of the listed keys stay on the
stack. One work item is a panel of queries of one head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import attention, vectormath
from edgewright_exporters.kernels.attention_panel import (
    AttentionCase,
    AttentionTile,
    Floats,
    Panel,
    exponentials,
    fill,
    heads_of,
    keep,
    operands_of,
    product,
    read_queries,
    results_of,
    write_results,
)
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

WHOLE = 16
"""Queries that fill whole vectors of every instruction set: tiles have a multiple of it."""

MOST_KEYS = 2048
"""Whose scores the stack holds."""


@dataclass(frozen=True)
class BlockAttentionCase(AttentionCase):
    """What is computed: attention of each tile of `tile` queries to the blocks of `block` keys whose mask is above 0.

    The mask is [batch, heads, tiles, blocks]; where it names no block for a tile, the result is not a number. The last
    tile and the last block may be smaller.
    """

    tile: int = WHOLE
    block: int = 8

    @property
    def tiles(self) -> int:
        """How many."""
        return ceil(self.queries / self.tile)

    @property
    def blocks(self) -> int:
        """How many."""
        return ceil(self.keys / self.block)


def tiles(case: BlockAttentionCase, isa: Isa) -> Sequence[AttentionTile]:
    """Tiles worth trying, the likely best first: whole panels of a tile, by rows that the registers hold."""
    shapes = ((4, 6), (3, 8), (2, 12), (1, 16)) if isa.registers >= 32 else ((4, 3), (3, 4), (2, 6), (1, 12))
    fitting = [shape for shape in shapes if case.tile % (shape[0] * isa.lanes) == 0]
    best = sorted(fitting, key=lambda shape: 1 / shape[0] + 1 / shape[1])
    return tuple(AttentionTile(wide, rows, case.keys) for wide, rows in best)


def items(case: BlockAttentionCase, tile: AttentionTile, isa: Isa) -> int:
    """How many pieces of work there are: panels of queries times heads."""
    return case.batch * case.heads * _panels(case, tile, isa)


def _panels(case: BlockAttentionCase, tile: AttentionTile, isa: Isa) -> int:
    return ceil(case.queries / (tile.vectors * isa.lanes))


def arguments(case: BlockAttentionCase, tile: AttentionTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers the kernel takes: those of `attention`, with the mask before Y."""
    *inputs, y = attention.arguments(case, tile, isa)
    return *inputs, Argument("mask", "float32", case.batch * case.heads * case.tiles * case.blocks), y


def function(case: BlockAttentionCase, tile: AttentionTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    panels, width = _panels(case, tile, isa), tile.vectors * isa.lanes

    def body(*parts: Any) -> None:
        *inputs, mask, y, begin, end = parts
        with builder.loop(begin, end) as item:
            head, first = item // panels, item % panels * width
            panel = Panel(case, tile, isa.lanes, tile.vectors, *operands_of(case, (*inputs, y), head))
            seen = _listed(case, panel, (mask, (head * case.tiles + first // case.tile) * case.blocks))
            _panel(panel, first, seen)

    return builder.function(symbol, arguments(case, tile, isa), body)


@dataclass(frozen=True)
class _List:
    """Where the rows of some keys start behind that of the first, `count[0]` of them, and as many more as fill rows."""

    places: Any
    count: Any


def _listed(case: BlockAttentionCase, panel: Panel, mask: tuple[Any, Any]) -> _List:
    """The keys of the blocks that the row of the mask from a place on names."""
    marks, row = mask
    found = _List(builder.registers(case.keys + panel.tile.rows, "int32"), builder.registers(1, "int32"))
    count, zero = found.count, builder.splat(0, 1, "int32")
    builder.store(count, 0, zero, 1)
    builder.store(found.places, 0, zero, 1)
    with builder.loop(0, case.blocks) as block, builder.when(marks[row + block] > 0.0):
        size = builder.least(case.keys - block * case.block, case.block)
        with builder.loop(0, size) as key:
            builder.store(found.places, count[0] + key, (block * case.block + key) * panel.k.stride, 1)
        builder.store(count, 0, count[0] + size, 1)
    with builder.loop(0, panel.tile.rows - 1) as more:
        builder.store(found.places, count[0] + more, found.places[0], 1)
    return found


def _panel(panel: Panel, first: Any, seen: _List) -> None:
    """One panel of queries, from query `first` on, against the keys it sees."""
    case, rows = panel.case, panel.tile.rows
    queries = builder.registers(case.size * panel.width, "float32")
    scores = builder.registers((case.keys + rows) * panel.width, "float32")
    tops, sums = (builder.registers(panel.width, "float32") for _ in range(2))
    fill(panel, tops, vectormath.LOWEST, 1)
    fill(panel, sums, 0.0, 1)
    read_queries(panel, first, queries)
    _scores(panel, seen, (queries, scores, tops))
    exponentials(panel, seen.count[0], (scores, tops, sums))
    results_of(panel, (seen.count[0], lambda key: seen.places[key]), (scores, queries))
    write_results(panel, first, queries, sums)


def _scores(panel: Panel, seen: _List, buffers: tuple[Any, Any, Any]) -> None:
    """scores[number in the list][query], and the largest of each query; those behind the last one repeat the first."""
    (queries, scores, tops), k, rows = buffers, panel.k, panel.tile.rows
    with builder.loop(0, (seen.count[0] + rows - 1) // rows) as group:
        chosen = [builder.held(seen.places[group * rows + row]) for row in range(rows)]

        def weight(row: int, at: Any, chosen: Sequence[Any] = chosen) -> Any:
            return k.buffer[k.start + chosen[row] + at]

        sums = product(panel, rows, panel.case.size, weight, queries)
        keep(panel, rows, (sums, scores, tops), group * rows * panel.width)


def reference(
    case: BlockAttentionCase, *, mask: npt.NDArray[np.float32], q: Floats, k: Floats, v: Floats
) -> npt.NDArray[np.float64]:
    """What the kernel computes, in float64, from Q, K, V [batch, tokens, heads * size], for the unpacked result."""
    tiles = mask.reshape(case.batch, case.heads, case.tiles, case.blocks) > 0
    sees = np.repeat(np.repeat(tiles, case.tile, 2), case.block, 3)[:, :, : case.queries, : case.keys]
    scores = case.factor * heads_of(case, q) @ heads_of(case, k).transpose(0, 1, 3, 2)
    scores = np.where(sees, scores, -np.inf)
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result = raised / raised.sum(axis=-1, keepdims=True) @ heads_of(case, v)
    return result.transpose(0, 2, 1, 3).reshape(case.batch, case.queries, -1)
