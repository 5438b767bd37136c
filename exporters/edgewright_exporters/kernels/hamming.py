"""Products of queries and keys of which only signs are left: bits, compared four or eight at a time and counted.

    y[b, h, t, s] = scale[h] * sum_i sign(q[t, i] - q_bounds[h, i]) * sign(k[s, i] - k_bounds[h, i])

with sign(0) = -1, as `Where(Greater(x, bound), 1, -1)` has it. The sum is size - 2 * (number of bits that differ). The
lanes of a vector are keys, a byte of each. Where an instruction counts the bits of bytes (ARM, AVX-512 with BITALG), it
does. Other x86 has none, but looks up 32 bytes at once: a plane then holds four bits of each key, and the table, which
the query's four bits choose, says what these add to the sum: neither xor nor count is left.

Keys are packed once per head and block; one work item is a few queries against a block of keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from edgewright_exporters.kernels.hamming_cut import HammingCase, Kernel, Plan, Spot
from edgewright_exporters.kernels.hamming_signs import pack_keys, pack_queries
from edgewright_exporters.kernels.hamming_sums import products
from edgewright_exporters.kernels.tiles import Tile
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Array = npt.NDArray[Any]


def tiles(case: HammingCase, isa: Isa) -> Sequence[Tile]:
    """Queries by vectors of keys: as many sums as registers hold beside tables and planes, best guess first."""
    shapes = ((1, 8), (1, 4), (2, 4), (4, 2)) if isa.registers < 32 else ((1, 16), (1, 8), (2, 8), (4, 4))
    most = ceil(case.keys / (4 * isa.lanes))
    return tuple(dict.fromkeys(Tile(min(rows, case.queries), min(vectors, most)) for rows, vectors in shapes))


def items(case: HammingCase, tile: Tile, isa: Isa) -> int:
    """How many pieces of work there are: heads times blocks of keys times blocks of queries."""
    plan = Plan(case, tile, isa)
    return case.batch * case.heads * plan.blocks.count * plan.rows.count


def pack(
    case: HammingCase, tile: Tile, isa: Isa, *, q_bounds: Array, k_bounds: Array, scale: Array | None = None
) -> tuple[Array, ...]:
    """Bounds [heads, size] and scale [heads] float32 as they are, and where bits are looked up, all tables."""
    each = (q_bounds, k_bounds, *(() if scale is None else (scale,)))
    given = tuple(np.ascontiguousarray(values, np.float32).ravel() for values in each)
    if Plan(case, tile, isa).counts:
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
        *(() if Plan(case, tile, isa).counts else (Argument("tables", "int8", 256),)),
        Argument("y", "float32", case.batch * case.heads * case.queries * case.keys),
    )


def function(case: HammingCase, tile: Tile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    pointers, plan = arguments(case, tile, isa), Plan(case, tile, isa)

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        keys = builder.registers(plan.blocks.most * plan.slots * plan.width, "int8")
        queries = builder.registers(plan.rows.most * plan.slots, "uint8")
        kernel = Kernel(plan, dict(zip((pointer.name for pointer in pointers), buffers)), keys, queries)
        with builder.loop(begin, end) as item:
            block, row = item // plan.rows.count, item % plan.rows.count
            head, block = block // plan.blocks.count, block % plan.blocks.count
            for vectors, enough in plan.blocks.sizes(block):
                with builder.when(enough):
                    first = plan.blocks.start(block)
                    with builder.when(builder.either(item == begin, row == 0)):
                        pack_keys(kernel, head, first, vectors)
                    for rows, there in plan.rows.sizes(row):
                        with builder.when(there):
                            spot = Spot(head, plan.rows.start(row), rows, first, vectors)
                            pack_queries(kernel, spot)
                            products(kernel, spot)

    return builder.function(symbol, pointers, body)


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
