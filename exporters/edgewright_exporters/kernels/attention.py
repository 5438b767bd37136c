"""Fused attention: softmax(Q K^T * factor) V of every head, where the heads lie side by side in each token's row.

The lanes of a vector are queries. Scores are computed as K Q^T and results as V^T P^T, so that the largest score and
the sum are taken lane by lane, never across lanes, and rows of K and V are read as they lie. What is transposed is a
panel of queries on its way in and its results on their way out. Scores of a panel and a block of keys stay on the
stack; with more than one block, results so far are scaled as larger scores turn up (Milakov and Gimelshein, "Online
normalizer calculation for softmax", 2018, algorithm 3). One work item is a panel of queries of one head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import lanes as across_lanes
from edgewright_exporters.kernels import vectormath
from edgewright_exporters.kernels.tiles import Blocks, blocks_of
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

STACK = 64 * 1024
"""Bytes of scores that a panel may keep on the stack."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AttentionCase:
    """What is computed, for `batch` sequences of `queries` and `keys` tokens and `heads` heads of `size` each.

    Q, K, V and the result are [batch, tokens, heads * size]. `packed` takes one array [batch, tokens, 3 * heads * size]
    instead, Q before K before V in each row; then `queries` equals `keys`.
    """

    batch: int
    queries: int
    keys: int
    heads: int
    size: int
    factor: float
    packed: bool = False


@dataclass(frozen=True)
class AttentionTile:
    """How: `vectors` vectors of queries a panel, by `rows` keys (or numbers of a head) in registers, `keys` a block."""

    vectors: int
    rows: int
    keys: int


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
                    operands = _operands(case, buffers, head)
                    _panel(_Panel(case, tile, isa.lanes, vectors, *operands), panels.start(panel) * isa.lanes)

    return builder.function(symbol, arguments(case, tile, isa), body)


def _panels(case: AttentionCase, tile: AttentionTile, isa: Isa) -> Blocks:
    return blocks_of(ceil(case.queries / isa.lanes), tile.vectors)


@dataclass(frozen=True)
class _Operand:
    """Where one head's rows lie in a buffer: row t starts at `start` + t * `stride`."""

    buffer: Any
    start: Any
    stride: int


@dataclass(frozen=True)
class _Panel:
    """What every part of the function being written needs to know."""

    case: AttentionCase
    tile: AttentionTile
    lanes: int
    vectors: int
    q: _Operand
    k: _Operand
    v: _Operand
    y: _Operand

    @property
    def width(self) -> int:
        """Queries of the panel."""
        return self.vectors * self.lanes

    @property
    def places(self) -> Sequence[int]:
        """Where the panel's vectors begin in a row of `width` numbers."""
        return range(0, self.width, self.lanes)


def _operands(case: AttentionCase, buffers: Sequence[Any], head: Any) -> Sequence[_Operand]:
    """Q, K, V and Y of the `head`-th head of all sequences."""
    row = case.heads * case.size
    sequence, column = head // case.heads, head % case.heads * case.size
    whole = _Operand(buffers[-1], sequence * (case.queries * row) + column, row)
    if case.packed:
        first = sequence * (case.queries * 3 * row) + column
        return *(_Operand(buffers[0], first + part * row, 3 * row) for part in range(3)), whole
    tokens = (case.queries, case.keys, case.keys)
    apart = [_Operand(buffer, sequence * (n * row) + column, row) for buffer, n in zip(buffers, tokens)]
    return *apart, whole


def _panel(panel: _Panel, first: Any) -> None:
    """One panel of queries, from query `first` on, against all keys."""
    case, tile = panel.case, panel.tile
    rows = blocks_of(case.keys, tile.rows)
    group = max(1, tile.keys // tile.rows)
    blocks = ceil(rows.count / group)
    queries = builder.registers(case.size * panel.width, "float32")
    results = builder.registers(case.size * panel.width, "float32") if blocks > 1 else queries
    scores = builder.registers(min(case.keys, group * tile.rows) * panel.width, "float32")
    tops, sums = (builder.registers(panel.width, "float32") for _ in range(2))
    _fill(panel, tops, vectormath.LOWEST, 1)
    _fill(panel, sums, 0.0, 1)
    _read_queries(panel, first, queries)
    if blocks == 1:
        _scores(panel, _Keys(rows, 0, rows.count), (queries, scores, tops))
        _raise(panel, case.keys, (scores, tops, sums))
        _results(panel, (0, case.keys), (scores, queries), None)
    else:
        state = _State(queries, scores, results, tops, sums)
        _fill(panel, results, 0.0, case.size)
        with builder.loop(0, blocks) as block:
            low = block * group
            _update(panel, _Keys(rows, low, builder.least(low + group, rows.count)), state)
    _write_results(panel, first, results, sums)


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


def _fill(panel: _Panel, buffer: Any, number: float, rows: int) -> None:
    value = builder.splat(number, panel.lanes, "float32")
    with builder.loop(0, rows) as row:
        for at in panel.places:
            builder.store(buffer, row * panel.width + at, value, panel.lanes)


def _update(panel: _Panel, keys: _Keys, state: _State) -> None:
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
    _raise(panel, stop - start, (state.scores, state.tops, state.sums))
    _results(panel, (start, stop), (state.scores, state.results), scales)


def _read_queries(panel: _Panel, first: Any, queries: Any) -> None:
    """The panel's queries times the factor, as [size][width]; past the last query, the last one again."""
    case, lanes, q = panel.case, panel.lanes, panel.q
    factor = builder.splat(case.factor, lanes, "float32")

    def address(query: Any, at: Any) -> Any:
        return q.start + builder.least(first + query, case.queries - 1) * q.stride + at

    if case.size % lanes:
        with builder.loop(0, case.size) as at, builder.loop(0, panel.width) as query:
            value = q.buffer[address(query, at)] * builder.splat(case.factor, 1, "float32")
            builder.store(queries, at * panel.width + query, value, 1)
        return
    square = builder.registers(lanes * lanes, "float32")
    with builder.loop(0, panel.vectors) as vector, builder.loop(0, case.size // lanes) as chunk:
        for row in range(lanes):
            value = builder.load(q.buffer, address(vector * lanes + row, chunk * lanes), lanes)
            builder.store(square, row * lanes, value, lanes)
        across_lanes.transposed(square, lanes)
        for row in range(lanes):
            to = (chunk * lanes + row) * panel.width + vector * lanes
            builder.store(queries, to, builder.load(square, row * lanes, lanes) * factor, lanes)


def _tile(panel: _Panel, rows: int, depth: tuple[Any, Any], weight: Callable[[int, Any], Any], spread: Any) -> Any:
    """The innermost product: sums[row][query] of weight(row, i) * spread[i][query] over i in `depth`."""
    lanes, width = panel.lanes, panel.width
    sums = builder.registers(rows * width, "float32")
    for at in range(0, rows * width, lanes):
        builder.store(sums, at, builder.splat(0.0, lanes, "float32"), lanes)
    low, high = depth
    with builder.loop(0, high - low) as i:
        for row in range(rows):
            value = builder.splat(weight(row, low + i), lanes)
            for at in panel.places:
                to = row * width + at
                product = value * builder.load(spread, i * width + at, lanes)
                builder.store(sums, to, builder.load(sums, to, lanes) + product, lanes)
    return sums


def _scores(panel: _Panel, keys: _Keys, buffers: tuple[Any, Any, Any]) -> None:
    """scores[key][query] of a block of keys, and the largest score of each query so far."""
    (queries, scores, tops), k = buffers, panel.k
    origin = keys.rows.start(keys.low)
    with builder.loop(keys.low, keys.high) as group:
        for rows, there in keys.rows.sizes(group):
            with builder.when(there):
                key = keys.rows.start(group)

                def weight(row: int, at: Any, key: Any = key) -> Any:
                    return k.buffer[k.start + (key + row) * k.stride + at]

                sums = _tile(panel, rows, (0, panel.case.size), weight, queries)
                _keep(panel, rows, (sums, scores, tops), (key - origin) * panel.width)


def _keep(panel: _Panel, rows: int, buffers: tuple[Any, Any, Any], start: Any) -> None:
    """Stores a tile of scores at `start`, and raises the largest ones."""
    (sums, scores, tops), lanes = buffers, panel.lanes
    for at in panel.places:
        column = [builder.load(sums, row * panel.width + at, lanes) for row in range(rows)]
        for row, value in enumerate(column):
            builder.store(scores, start + row * panel.width + at, value, lanes)
        highest = across_lanes.folded(column, builder.largest)
        builder.store(tops, at, builder.largest(builder.load(tops, at, lanes), highest), lanes)


def _raise(panel: _Panel, keys: Any, buffers: tuple[Any, Any, Any]) -> None:
    """exp(score - top) in the place of each score, added to the sums."""
    (scores, tops, sums), lanes = buffers, panel.lanes
    with builder.loop(0, keys) as key:
        for at in panel.places:
            place = key * panel.width + at
            above = builder.load(scores, place, lanes) - builder.load(tops, at, lanes)
            raised = builder.held(vectormath.exp(above, lanes))
            builder.store(scores, place, raised, lanes)
            builder.store(sums, at, builder.load(sums, at, lanes) + raised, lanes)


def _results(panel: _Panel, keys: tuple[Any, Any], buffers: tuple[Any, Any], scales: Any) -> None:
    """results[number of the head][query]: what a block of keys gives, added to the results so far times `scales`."""
    (scores, results), v, lanes = buffers, panel.v, panel.lanes
    numbers = blocks_of(panel.case.size, panel.tile.rows)
    with builder.loop(0, numbers.count) as group:
        for rows, there in numbers.sizes(group):
            with builder.when(there):
                first = numbers.start(group)

                def weight(row: int, key: Any, first: Any = first) -> Any:
                    return v.buffer[v.start + key * v.stride + first + row]

                sums = _tile(panel, rows, keys, weight, scores)
                for at in range(0, rows * panel.width, lanes):
                    place, new = first * panel.width + at, builder.load(sums, at, lanes)
                    if scales is not None:
                        new += builder.load(results, place, lanes) * builder.load(scales, at % panel.width, lanes)
                    builder.store(results, place, new, lanes)


def _write_results(panel: _Panel, first: Any, results: Any, sums: Any) -> None:
    """The results divided by the sums, transposed back, for the queries that there are."""
    case, lanes, y = panel.case, panel.lanes, panel.y
    one = builder.splat(1.0, lanes, "float32")
    for at in panel.places:
        builder.store(sums, at, one / builder.load(sums, at, lanes), lanes)
    if case.size % lanes:
        there = builder.least(case.queries - first, panel.width)
        with builder.loop(0, there) as query, builder.loop(0, case.size) as at:
            value = results[at * panel.width + query] * sums[query]
            builder.store(y.buffer, y.start + (first + query) * y.stride + at, value, 1)
        return
    square = builder.registers(lanes * lanes, "float32")
    with builder.loop(0, panel.vectors) as vector, builder.loop(0, case.size // lanes) as chunk:
        share = builder.held(builder.load(sums, vector * lanes, lanes))
        for row in range(lanes):
            place = (chunk * lanes + row) * panel.width + vector * lanes
            builder.store(square, row * lanes, builder.load(results, place, lanes) * share, lanes)
        across_lanes.transposed(square, lanes)
        for row in range(lanes):
            query = first + vector * lanes + row
            with builder.when(query < case.queries):
                to = y.start + query * y.stride + chunk * lanes
                builder.store(y.buffer, to, builder.load(square, row * lanes, lanes), lanes)


def reference(case: AttentionCase, *, q: Floats, k: Floats, v: Floats) -> npt.NDArray[np.float64]:
    """What the kernel computes, in float64, from Q, K, V [batch, tokens, heads * size], for the unpacked result.

    Vaswani et al., "Attention Is All You Need", 2017, equation 1, for every head on its own.
    """

    def heads(array: Floats) -> npt.NDArray[np.float64]:
        wide = array.astype(np.float64).reshape(case.batch, -1, case.heads, case.size)
        return wide.transpose(0, 2, 1, 3)

    scores = case.factor * heads(q) @ heads(k).transpose(0, 1, 3, 2)
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result = raised / raised.sum(axis=-1, keepdims=True) @ heads(v)
    return result.transpose(0, 2, 1, 3).reshape(case.batch, case.queries, -1)
