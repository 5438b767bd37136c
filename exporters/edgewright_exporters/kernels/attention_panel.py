"""What kernels of attention share: a panel of queries of one head, against keys that the kernel chooses.

The lanes of a vector are queries. Scores are computed as K Q^T and results as V^T P^T, so that the largest score and
the sum are taken lane by lane, never across lanes, and rows of K and V are read as they lie. What is transposed is a
panel of queries on its way in and its results on their way out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import lanes as across_lanes
from edgewright_exporters.kernels import vectormath
from edgewright_exporters.kernels.tiles import blocks_of
from edgewright_exporters.tir import builder

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


@dataclass(frozen=True)
class Operand:
    """Where one head's rows lie in a buffer: row t starts at `start` + t * `stride`."""

    buffer: Any
    start: Any
    stride: int


@dataclass(frozen=True)
class Panel:
    """What every part of the function being written needs to know."""

    case: AttentionCase
    tile: AttentionTile
    lanes: int
    vectors: int
    q: Operand
    k: Operand
    v: Operand
    y: Operand

    @property
    def width(self) -> int:
        """Queries of the panel."""
        return self.vectors * self.lanes

    @property
    def places(self) -> Sequence[int]:
        """Where the panel's vectors begin in a row of `width` numbers."""
        return range(0, self.width, self.lanes)


def operands_of(case: AttentionCase, buffers: Sequence[Any], head: Any) -> Sequence[Operand]:
    """Q, K, V and Y of the `head`-th head of all sequences."""
    row = case.heads * case.size
    sequence, column = head // case.heads, head % case.heads * case.size
    whole = Operand(buffers[-1], sequence * (case.queries * row) + column, row)
    if case.packed:
        first = sequence * (case.queries * 3 * row) + column
        return *(Operand(buffers[0], first + part * row, 3 * row) for part in range(3)), whole
    tokens = (case.queries, case.keys, case.keys)
    apart = [Operand(buffer, sequence * (n * row) + column, row) for buffer, n in zip(buffers, tokens)]
    return *apart, whole


def fill(panel: Panel, buffer: Any, number: float, rows: int) -> None:
    value = builder.splat(number, panel.lanes, "float32")
    with builder.loop(0, rows) as row:
        for at in panel.places:
            builder.store(buffer, row * panel.width + at, value, panel.lanes)


def read_queries(panel: Panel, first: Any, queries: Any) -> None:
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


def product(panel: Panel, rows: int, depth: Any, weight: Callable[[int, Any], Any], spread: Any) -> Any:
    """The innermost product: sums[row][query] of weight(row, i) * spread[i][query] over i below `depth`."""
    lanes, width = panel.lanes, panel.width
    sums = builder.registers(rows * width, "float32")
    for at in range(0, rows * width, lanes):
        builder.store(sums, at, builder.splat(0.0, lanes, "float32"), lanes)
    with builder.loop(0, depth) as i:
        for row in range(rows):
            value = builder.splat(weight(row, i), lanes)
            for at in panel.places:
                to = row * width + at
                product = value * builder.load(spread, i * width + at, lanes)
                builder.store(sums, to, builder.load(sums, to, lanes) + product, lanes)
    return sums


def keep(panel: Panel, rows: int, buffers: tuple[Any, Any, Any], start: Any) -> None:
    """Stores a tile of scores at `start`, and raises the largest ones."""
    (sums, scores, tops), lanes = buffers, panel.lanes
    for at in panel.places:
        column = [builder.load(sums, row * panel.width + at, lanes) for row in range(rows)]
        for row, value in enumerate(column):
            builder.store(scores, start + row * panel.width + at, value, lanes)
        highest = across_lanes.folded(column, builder.largest)
        builder.store(tops, at, builder.largest(builder.load(tops, at, lanes), highest), lanes)


def exponentials(panel: Panel, keys: Any, buffers: tuple[Any, Any, Any]) -> None:
    """exp(score - top) in the place of each score, added to the sums."""
    (scores, tops, sums), lanes = buffers, panel.lanes
    with builder.loop(0, keys) as key:
        for at in panel.places:
            place = key * panel.width + at
            above = builder.load(scores, place, lanes) - builder.load(tops, at, lanes)
            raised = builder.held(vectormath.exp(above, lanes))
            builder.store(scores, place, raised, lanes)
            builder.store(sums, at, builder.load(sums, at, lanes) + raised, lanes)


def results_of(
    panel: Panel, keys: tuple[Any, Callable[[Any], Any]], buffers: tuple[Any, Any], scales: Any = None
) -> None:
    """results[number of the head][query]: what some keys give, added to the results so far times `scales`.

    `keys` are how many, and where the row of one lies behind the start of V.
    """
    count, place_of = keys
    (scores, results), v, lanes = buffers, panel.v, panel.lanes
    numbers = blocks_of(panel.case.size, panel.tile.rows)
    with builder.loop(0, numbers.count) as group:
        for rows, there in numbers.sizes(group):
            with builder.when(there):
                first = numbers.start(group)

                def weight(row: int, key: Any, first: Any = first) -> Any:
                    return v.buffer[v.start + place_of(key) + first + row]

                sums = product(panel, rows, count, weight, scores)
                for at in range(0, rows * panel.width, lanes):
                    place, new = first * panel.width + at, builder.load(sums, at, lanes)
                    if scales is not None:
                        new += builder.load(results, place, lanes) * builder.load(scales, at % panel.width, lanes)
                    builder.store(results, place, new, lanes)


def write_results(panel: Panel, first: Any, results: Any, sums: Any) -> None:
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


def heads_of(case: AttentionCase, array: Floats) -> npt.NDArray[np.float64]:
    """[batch, tokens, heads * size] as [batch, heads, tokens, size], in float64."""
    return array.astype(np.float64).reshape(case.batch, -1, case.heads, case.size).transpose(0, 2, 1, 3)
