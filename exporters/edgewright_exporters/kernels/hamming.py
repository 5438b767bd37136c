"""Products of queries and keys of which only signs are left: bits, compared four or eight at a time and counted.

    y[b, h, t, s] = scale[h] * sum_i sign(q[t, i] - q_bounds[h, i]) * sign(k[s, i] - k_bounds[h, i])

with sign(0) = -1, as `Where(Greater(x, bound), 1, -1)` has it. The sum is size - 2 * (number of bits that differ). The
lanes of a vector are keys, a byte of each. Where an instruction counts the bits of bytes (ARM, see `Isa.counts`), it
does. x86 of old has none, but looks up 32 bytes at once: a plane then holds four bits of each key, and the table, which
the query's four bits choose, says what these add to the sum: neither xor nor count is left.

Keys are packed once per head and block; one work item is a few queries against a block of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from edgewright_exporters.kernels import epilogue
from edgewright_exporters.kernels.codebook import LOOKUPS
from edgewright_exporters.kernels.tiles import Blocks, Tile, blocks_of
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Array = npt.NDArray[Any]

CACHE = 16 * 1024
"""Bytes of packed keys in a block: half of a small first cache."""

MOST = 127
"""Numbers of a head whose sum of signs always fits a signed byte; longer ones are summed in pieces."""

PIECE = 120
"""Numbers in such a piece: whole bytes."""

TOGETHER = 64
"""Queries that are packed before the first of them is multiplied: one alone would wait for its bits."""


@dataclass(frozen=True)
class HammingCase:
    """What is computed, for `batch` sequences of `queries` and `keys` tokens and `heads` heads of `size` each.

    Element i of a token is number `offset + b * batch + h * head + t * token + i` of an array of `values` float32, and
    `q` and `k` say (values, offset, batch, head, token) of theirs. The result is [batch, heads, queries, keys]. Without
    `scaled`, scales are ones.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    size: int
    q: tuple[int, int, int, int, int]
    k: tuple[int, int, int, int, int]
    scaled: bool = False


def tiles(case: HammingCase, isa: Isa) -> Sequence[Tile]:
    """Queries by vectors of keys: as many sums as registers hold beside tables and planes, best guess first."""
    shapes = ((1, 8), (2, 4), (4, 2), (6, 2)) if isa.registers < 32 else ((1, 16), (2, 8), (4, 4), (8, 2))
    most = ceil(case.keys / (4 * isa.lanes))
    return tuple(dict.fromkeys(Tile(min(rows, case.queries), min(vectors, most)) for rows, vectors in shapes))


def items(case: HammingCase, tile: Tile, isa: Isa) -> int:
    """How many pieces of work there are: heads times blocks of keys times blocks of queries."""
    plan = _Plan(case, tile, isa)
    return case.batch * case.heads * plan.blocks.count * plan.rows.count


def pack(
    case: HammingCase, tile: Tile, isa: Isa, *, q_bounds: Array, k_bounds: Array, scale: Array | None = None
) -> tuple[Array, ...]:
    """Bounds [heads, size] and scale [heads] float32 as they are, and where bits are looked up, all tables."""
    each = (q_bounds, k_bounds, *(() if scale is None else (scale,)))
    given = tuple(np.ascontiguousarray(values, np.float32).ravel() for values in each)
    if isa.counts:
        return given
    numbers = np.arange(16, dtype=np.uint8)
    differ = np.unpackbits((numbers[:, None] ^ numbers)[..., None], axis=-1).sum(-1, dtype=np.int8)
    return *given, (4 - 2 * differ).astype(np.int8).ravel()


def arguments(case: HammingCase, tile: Tile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers that the kernel takes, in order: Q, K, bounds of Q, bounds of K, [scale], [tables], Y."""
    width = case.heads * case.size
    return (
        Argument("q", "float32", case.q[0]),
        Argument("k", "float32", case.k[0]),
        Argument("q_bounds", "float32", width),
        Argument("k_bounds", "float32", width),
        *((Argument("scale", "float32", case.heads),) if case.scaled else ()),
        *(() if isa.counts else (Argument("tables", "int8", 256),)),
        Argument("y", "float32", case.batch * case.heads * case.queries * case.keys),
    )


def function(case: HammingCase, tile: Tile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    pointers, plan = arguments(case, tile, isa), _Plan(case, tile, isa)

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        keys = builder.registers(plan.blocks.most * plan.planes * plan.width, "int8")
        queries = builder.registers(plan.rows.most * plan.planes, plan.place)
        kernel = _Kernel(plan, dict(zip((pointer.name for pointer in pointers), buffers)), keys, queries)
        with builder.loop(begin, end) as item:
            block, row = item // plan.rows.count, item % plan.rows.count
            head, block = block // plan.blocks.count, block % plan.blocks.count
            for vectors, enough in plan.blocks.sizes(block):
                with builder.when(enough):
                    first = plan.blocks.start(block)
                    with builder.when(builder.either(item == begin, row == 0)):
                        _pack_keys(kernel, head, first, vectors)
                    for rows, there in plan.rows.sizes(row):
                        with builder.when(there):
                            spot = _Spot(head, plan.rows.start(row), rows, first, vectors)
                            _pack_queries(kernel, spot)
                            _products(kernel, spot)

    return builder.function(symbol, pointers, body)


@dataclass(frozen=True)
class _Plan:
    """How a case is cut: `width` keys are a vector."""

    case: HammingCase
    tile: Tile
    isa: Isa

    @property
    def width(self) -> int:
        return 4 * self.isa.lanes

    @property
    def bytes(self) -> int:
        """How many bytes the bits of one token are."""
        return ceil(self.case.size / 8)

    @property
    def planes(self) -> int:
        """How many bytes are kept of one token: half of each is the place in a table."""
        return self.bytes * (1 if self.isa.counts else 2)

    @property
    def place(self) -> str:
        """The type of what is kept of a query."""
        return "int8" if self.isa.counts else "uint8"

    @property
    def rows(self) -> Blocks:
        """Blocks of queries."""
        return blocks_of(self.case.queries, max(TOGETHER, self.tile.rows))

    @property
    def blocks(self) -> Blocks:
        """Blocks of vectors of keys."""
        fitting = max(2 * self.tile.vectors, CACHE // (self.planes * self.width))
        return blocks_of(ceil(self.case.keys / self.width), fitting)

    def lane(self, key: Any) -> Any:
        """Where a key's byte lies in a vector: so that `_floats`, which parts 16 bytes by themselves, orders keys."""
        run, place = key // self.isa.lanes, key % self.isa.lanes
        return place // 4 * 16 + run * 4 + place % 4

    def start(self, vector: Any) -> Any:
        """The first key of a vector. The last one ends with the last key, and may overlap the one before it."""
        return builder.least(vector * self.width, max(0, self.case.keys - self.width))


@dataclass(frozen=True)
class _Kernel:
    """What every part of the function being written needs to know; `keys` and `queries` are the packed ones."""

    plan: _Plan
    buffers: dict[str, Any]
    keys: Any
    queries: Any


@dataclass(frozen=True)
class _Spot:
    """`rows` queries of a `head`, counted through all sequences, from `row` on, and `vectors` of keys from `first`."""

    head: Any
    row: Any
    rows: int
    first: Any
    vectors: int


@dataclass(frozen=True)
class _Part:
    """A tile of a spot: `rows` queries from `row` on, `vectors` of keys from `first` on, counted within the spot."""

    row: Any
    rows: int
    first: Any
    vectors: int


# ------------------------------------------------------------------ packing


def _pack_keys(kernel: _Kernel, head: Any, first: Any, vectors: int) -> None:
    """planes[vector][byte][key] of a block of keys; keys that are not there are zero, and never written."""
    plan = kernel.plan
    case, width = plan.case, plan.width
    with builder.loop(0, vectors) as vector, builder.loop(0, min(width, case.keys)) as key:
        start = _token(case.k, case, head, plan.start(first + vector) + key)
        lane = plan.lane(key)
        for at, byte in enumerate(_bytes(kernel, "k", head, start)):
            place = (vector * plan.planes + at * (plan.planes // plan.bytes)) * width + lane
            builder.store(kernel.keys, place, builder.cast(byte, "int8"), 1)
    if plan.isa.counts:
        return
    with builder.loop(0, vectors * plan.bytes) as at:
        words = builder.reinterpret(builder.load(kernel.keys, at * 2 * width, width), "int32", plan.isa.lanes)
        mask = builder.splat(0x0F0F0F0F, plan.isa.lanes, "int32")
        low = builder.held(words & mask)
        high = builder.held((words >> builder.splat(4, plan.isa.lanes, "int32")) & mask)
        for half, value in enumerate((low, high)):
            builder.store(kernel.keys, (at * 2 + half) * width, builder.reinterpret(value, "int8", width), width)


def _pack_queries(kernel: _Kernel, spot: _Spot) -> None:
    """The bytes of each query, or where the tables of its two halves begin."""
    plan = kernel.plan
    with builder.loop(0, spot.rows) as row:
        start = _token(plan.case.q, plan.case, spot.head, spot.row + row)
        for at, byte in enumerate(_bytes(kernel, "q", spot.head, start)):
            if plan.isa.counts:
                builder.store(kernel.queries, row * plan.planes + at, builder.cast(byte, "int8"), 1)
                continue
            both = builder.held(byte)
            four, high = builder.splat(4, 1, "int32"), builder.splat(0xF0, 1, "int32")
            for half, value in enumerate(((both << four) & high, both & high)):
                place = row * plan.planes + 2 * at + half
                builder.store(kernel.queries, place, builder.cast(value, "uint8"), 1)


def _token(about: Sequence[int], case: HammingCase, head: Any, token: Any) -> Any:
    """Where a token's numbers of a head begin."""
    _, offset, batch, heads, tokens = about
    return offset + head // case.heads * batch + head % case.heads * heads + token * tokens


def _bytes(kernel: _Kernel, name: str, head: Any, start: Any) -> Sequence[Any]:
    """The bits of the token at `start`, as int32 of eight each; bits past the last one are zero."""
    plan, x, bounds = kernel.plan, kernel.buffers[name], kernel.buffers[f"{name}_bounds"]
    size = plan.case.size
    bound = head % plan.case.heads * size
    whole = [_byte(plan.isa, x, start + at, bounds, bound + at) for at in range(0, size - 7, 8)]
    rest = range(size // 8 * 8, size)
    bits = [builder.cast(x[start + at] > bounds[bound + at], "int32") for at in rest]
    if not bits:
        return whole
    last = bits[0]
    for at, bit in enumerate(bits[1:], start=1):
        last = last | (bit << builder.splat(at, 1, "int32"))
    return [*whole, last]


def _byte(isa: Isa, x: Any, at: Any, bounds: Any, bound: Any) -> Any:
    """Whether each of eight numbers is above its bound, the first in the lowest bit."""
    above = builder.load(x, at, 8) > builder.load(bounds, bound, 8)
    if isa.machine == "x86_64":
        ones = builder.splat(0, 8, "int32") - builder.cast(above, "int32x8")
        return builder.intrinsic("llvm.x86.avx.movmsk.ps.256", "int32", builder.reinterpret(ones, "float32", 8))
    ones = builder.splat(0, 8, "int16") - builder.cast(above, "int16x8")
    bits = ones & builder.constants([1 << bit for bit in range(8)], "int16")
    return builder.cast(builder.intrinsic("llvm.vector.reduce.add", "int16", bits), "int32")


# ------------------------------------------------------------------ products


def _products(kernel: _Kernel, spot: _Spot) -> None:
    """The results of the packed queries and a block of keys, a tile at a time."""
    rows = min(kernel.plan.tile.rows, spot.rows)
    groups = blocks_of(spot.vectors, kernel.plan.tile.vectors)
    with builder.loop(0, ceil(spot.rows / rows)) as few, builder.loop(0, groups.count) as group:
        row = builder.held(builder.least(few * rows, spot.rows - rows))
        for vectors, there in groups.sizes(group):
            with builder.when(there):
                _tile(kernel, spot, _Part(row, rows, groups.start(group), vectors))


def _tile(kernel: _Kernel, spot: _Spot, part: _Part) -> None:
    """One tile: sums in registers, then results."""
    plan, lanes = kernel.plan, kernel.plan.isa.lanes
    pieces, size = _pieces(plan.case.size), part.rows * part.vectors * plan.width
    totals = builder.registers(size, "float32") if len(pieces) > 1 else None
    for number, piece in enumerate(pieces):
        sums = _sums(kernel, part, piece)
        for begin in range(0, size, plan.width):
            for run, value in enumerate(_floats(builder.load(sums, begin, plan.width), plan.width)):
                at = begin + run * lanes
                total = value if totals is None or not number else value + builder.load(totals, at, lanes)
                if number == len(pieces) - 1:
                    _write(kernel, spot, part, at=at, value=total)
                else:
                    builder.store(totals, at, total, lanes)


def _floats(codes: Any, width: int) -> Sequence[Any]:
    """Four vectors of float32: `codes` - 128, taken from every 16 bytes four by four.

    A code is put below 0x4B00, the upper half of 2^23, whose lowest bit counts as one.
    """
    zero, upper = builder.splat(0, width, "int8"), builder.splat(0x4B00, width // 2, "int16")
    exact = builder.splat(float(2**23 + 128), width // 4, "float32")
    found = []
    for wide in (builder.reinterpret(each, "int16", width // 2) for each in _zipped(codes, zero, width, 16)):
        found += [builder.reinterpret(each, "float32", width // 4) for each in _zipped(wide, upper, width // 2, 8)]
    return [each - exact for each in found]


def _zipped(first: Any, second: Any, count: int, block: int) -> Sequence[Any]:
    """The lower, then the upper halves of all blocks of two vectors, element by element."""
    first, second = builder.held(first), builder.held(second)
    halves = [range(half, half + block // 2) for half in (0, block // 2)]
    places = [[start + at for start in range(0, count, block) for at in half] for half in halves]
    return [
        builder.held(builder.shuffle((first, second), [at + off for at in each for off in (0, count)]))
        for each in places
    ]


def _pieces(size: int) -> Sequence[tuple[int, int]]:
    """Where each piece of a head begins, and how many numbers it has."""
    if size <= MOST:
        return ((0, size),)
    return [(begin, min(PIECE, size - begin)) for begin in range(0, size, PIECE)]


def _sums(kernel: _Kernel, part: _Part, piece: tuple[int, int]) -> Any:
    """int8 sums[row][key] of the signs in one piece of a head, plus 128."""
    plan, width, (begin, numbers) = kernel.plan, kernel.plan.width, piece
    count, halves = ceil(numbers / 8), plan.planes // plan.bytes
    places = range(0, part.rows * part.vectors * width, width)
    start = 0 if plan.isa.counts else _signed(128 + numbers - 8 * count)
    sums = builder.registers(len(places) * width, "int8")
    for at in places:
        builder.store(sums, at, builder.splat(start, width, "int8"), width)
    with builder.loop(begin // 8, begin // 8 + count) as byte:
        for half in range(halves):
            _add(kernel, sums, part, byte * halves + half)
    for at in places if plan.isa.counts else ():
        twice = builder.load(sums, at, width) * builder.splat(2, width, "int8")
        builder.store(sums, at, builder.splat(_signed(128 + numbers), width, "int8") - twice, width)
    return sums


def _signed(byte: int) -> int:
    """The same eight bits as a signed byte."""
    return (byte + 128) % 256 - 128


def _add(kernel: _Kernel, sums: Any, part: _Part, plane: Any) -> None:
    """Adds what one plane of the keys gives."""
    plan, width = kernel.plan, kernel.plan.width
    places = [((part.first + vector) * plan.planes + plane) * width for vector in range(part.vectors)]
    held = [builder.held(builder.load(kernel.keys, place, width)) for place in places]
    for row in range(part.rows):
        add = _adder(kernel, kernel.queries[(part.row + row) * plan.planes + plane])
        for vector, bits in enumerate(held):
            to = (row * part.vectors + vector) * width
            builder.store(sums, to, add(builder.load(sums, to, width), bits), width)


def _adder(kernel: _Kernel, query: Any) -> Callable[[Any, Any], Any]:
    """Adds to sums what a plane of keys and a query's bits of it give: counts, or entries of a table."""
    width = kernel.plan.width
    if kernel.plan.isa.counts:
        spread = builder.held(builder.splat(query, width))
        return lambda sums, bits: sums + builder.intrinsic("llvm.ctpop", f"int8x{width}", bits ^ spread)
    sixteen = builder.load(kernel.buffers["tables"], builder.cast(query, "int32"), 16)
    table = builder.held(builder.shuffle([sixteen] * (width // 16), range(width)))
    return lambda sums, bits: sums + builder.intrinsic(LOOKUPS["x86", width], f"int8x{width}", table, bits)


def _write(kernel: _Kernel, spot: _Spot, part: _Part, *, at: int, value: Any) -> None:
    """Scales and stores the sums that are number `at` of a tile, as far as there are keys for them."""
    plan, lanes = kernel.plan, kernel.plan.isa.lanes
    case, width = plan.case, plan.width
    row, vector, key = at // (part.vectors * width), at // width % part.vectors, at % width
    if key >= case.keys:
        return
    if case.scaled:
        value = value * builder.splat(kernel.buffers["scale"][spot.head % case.heads], lanes)
    first = (spot.head * case.queries + spot.row + part.row + row) * case.keys
    to = first + plan.start(spot.first + part.first + vector) + key
    epilogue.write(kernel.buffers["y"], to, value, lanes=lanes, real=min(lanes, case.keys - key))


def reference(
    case: HammingCase, *, q: Array, k: Array, q_bounds: Array, k_bounds: Array, scale: Array | None = None
) -> npt.NDArray[np.float32]:
    """What the kernel computes, from the whole arrays: [batch, heads, queries, keys]."""

    def signs(array: Array, about: Sequence[int], tokens: int, bounds: Array) -> npt.NDArray[np.int64]:
        _, offset, *strides = about
        shape = (case.batch, case.heads, tokens, case.size)
        rows = as_strided(array.ravel()[offset:], shape, [array.itemsize * each for each in (*strides, 1)])
        return np.where(rows > bounds.reshape(case.heads, 1, case.size), 1, -1)

    products = signs(q, case.q, case.queries, q_bounds) @ signs(k, case.k, case.keys, k_bounds).swapaxes(-1, -2)
    sums = products.astype(np.float32)
    return sums if scale is None else sums * scale.reshape(case.heads, 1, 1)
