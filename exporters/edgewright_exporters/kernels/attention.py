"""Fused attention: softmax(Q K^T * factor) V of every head, where the heads lie side by side in each token's row.

`attention_panel` tells how a panel of queries is computed. Scores of a panel and a block of keys stay on the stack;
with more than one block, results so far are scaled as larger scores turn up (Milakov and Gimelshein, "Online normalizer
calculation for softmax", 2018, algorithm 3). One work item is a panel of queries of one head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import vectormath
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
from edgewright_exporters.kernels.tiles import Blocks, blocks_of
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

STACK = 64 * 1024
"""Bytes of scores that a panel may keep on the stack."""


def tiles(case: AttentionCase, isa: Isa) -> Sequence[AttentionTile]:
    """Tiles worth trying, the likely best first: those that fill the registers with the fewest loads per product."""
    shapes = ((3, 8), (2, 12), (4, 6)) if isa.registers >= 32 else ((2, 6), (3, 4), (1, 12))
    vectors = ceil(case.queries / isa.lanes)

    def loads(shape: tuple[int, int]) -> float:
        return 1 / shape[1] + blocks_of(vectors, shape[0]).count / vectors

    return tuple(
        AttentionTile(wide, rows, max(rows, STACK // (4 * wide * isa.lanes) // rows * rows))
        for wide, rows in sorted(shapes, key=loads)
    )


def items(case: AttentionCase, tile: AttentionTile, isa: Isa) -> int:
    """How many pieces of work there are: panels of queries times heads."""
    return case.batch * case.heads * _panels(case, tile, isa).count


def arguments(case: AttentionCase, tile: AttentionTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers the kernel takes, in order: QKV, Y where it is packed; Q, K, V, Y otherwise."""
    width = case.batch * case.heads * case.size
    y = Argument("y", "float32", case.queries * width)
    if case.packed:
        return Argument("qkv", "float32", 3 * case.queries * width), y
    keys = [Argument(name, "float32", case.keys * width) for name in ("k", "v")]
    return Argument("q", "float32", case.queries * width), *keys, y


def function(case: AttentionCase, tile: AttentionTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    panels = _panels(case, tile, isa)

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        with builder.loop(begin, end) as item:
            head, panel = item // panels.count, item % panels.count
            for vectors, there in panels.sizes(panel):
                with builder.when(there):
                    operands = operands_of(case, buffers, head)
                    _panel(Panel(case, tile, isa.lanes, vectors, *operands), panels.start(panel) * isa.lanes)

    return builder.function(symbol, arguments(case, tile, isa), body)


def _panels(case: AttentionCase, tile: AttentionTile, isa: Isa) -> Blocks:
    return blocks_of(ceil(case.queries / isa.lanes), tile.vectors)


def _panel(panel: Panel, first: Any) -> None:
    """One panel of queries, from query `first` on, against all keys."""
    case, tile = panel.case, panel.tile
    rows = blocks_of(case.keys, tile.rows)
    group = max(1, tile.keys // tile.rows)
    blocks = ceil(rows.count / group)
    queries = builder.registers(case.size * panel.width, "float32")
    results = builder.registers(case.size * panel.width, "float32") if blocks > 1 else queries
    scores = builder.registers(min(case.keys, group * tile.rows) * panel.width, "float32")
    tops, sums = (builder.registers(panel.width, "float32") for _ in range(2))
    fill(panel, tops, vectormath.LOWEST, 1)
    fill(panel, sums, 0.0, 1)
    read_queries(panel, first, queries)
    if blocks == 1:
        _scores(panel, _Keys(rows, 0, rows.count), (queries, scores, tops))
        exponentials(panel, case.keys, (scores, tops, sums))
        results_of(panel, (case.keys, lambda key: key * panel.v.stride), (scores, queries))
    else:
        state = _State(queries, scores, results, tops, sums)
        fill(panel, results, 0.0, case.size)
        with builder.loop(0, blocks) as block:
            low = block * group
            _update(panel, _Keys(rows, low, builder.least(low + group, rows.count)), state)
    write_results(panel, first, results, sums)


@dataclass(frozen=True)
class _Keys:
    """A block of keys: those in groups `low` to `high` - 1 of `rows`."""

    rows: Blocks
    low: Any
    high: Any


@dataclass(frozen=True)
class _State:
    """What a panel carries from one block of keys to the next: buffers of the function's own."""

    queries: Any
    scores: Any
    results: Any
    tops: Any
    sums: Any


def _update(panel: Panel, keys: _Keys, state: _State) -> None:
    """One of several blocks of keys: sums and results so far are scaled to the largest score known now."""
    lanes = panel.lanes
    start, stop = keys.rows.start(keys.low), keys.rows.start(keys.high)
    before, scales = (builder.registers(panel.width, "float32") for _ in range(2))
    for at in panel.places:
        builder.store(before, at, builder.load(state.tops, at, lanes), lanes)
    _scores(panel, keys, (state.queries, state.scores, state.tops))
    for at in panel.places:
        scale = vectormath.exp(builder.load(before, at, lanes) - builder.load(state.tops, at, lanes), lanes)
        builder.store(scales, at, scale, lanes)
        builder.store(state.sums, at, builder.load(state.sums, at, lanes) * builder.load(scales, at, lanes), lanes)
    exponentials(panel, stop - start, (state.scores, state.tops, state.sums))
    results_of(panel, (stop - start, lambda key: (start + key) * panel.v.stride), (state.scores, state.results), scales)


def _scores(panel: Panel, keys: _Keys, buffers: tuple[Any, Any, Any]) -> None:
    """scores[key][query] of a block of keys, and the largest score of each query so far."""
    (queries, scores, tops), k = buffers, panel.k
    origin = keys.rows.start(keys.low)
    with builder.loop(keys.low, keys.high) as group:
        for rows, there in keys.rows.sizes(group):
            with builder.when(there):
                key = keys.rows.start(group)

                def weight(row: int, at: Any, key: Any = key) -> Any:
                    return k.buffer[k.start + (key + row) * k.stride + at]

                sums = product(panel, rows, panel.case.size, weight, queries)
                keep(panel, rows, (sums, scores, tops), (key - origin) * panel.width)


def reference(case: AttentionCase, *, q: Floats, k: Floats, v: Floats) -> npt.NDArray[np.float64]:
    """What the kernel computes, in float64, from Q, K, V [batch, tokens, heads * size], for the unpacked result.

    Vaswani et al., "Attention Is All You Need", 2017, equation 1, for every head on its own.
    """
    scores = case.factor * heads_of(case, q) @ heads_of(case, k).transpose(0, 1, 3, 2)
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result = raised / raised.sum(axis=-1, keepdims=True) @ heads_of(case, v)
    return result.transpose(0, 2, 1, 3).reshape(case.batch, case.queries, -1)
