"""Multiplies packed signs, plane by plane: bits that differ are counted, or looked up four at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any

from edgewright_exporters.kernels import epilogue
from edgewright_exporters.kernels.codebook import LOOKUPS
from edgewright_exporters.kernels.hamming_cut import WORD, Kernel, Spot
from edgewright_exporters.kernels.lanes import zipped
from edgewright_exporters.kernels.tiles import blocks_of
from edgewright_exporters.tir import builder

AT_A_TIME = 2
"""Planes that one turn of the loop adds; with more, LLVM adds in an order for which registers do not suffice."""


@dataclass(frozen=True)
class _Part:
    """A tile of a spot: `rows` queries from `row` on, `vectors` of keys from `first` on, counted within the spot."""

    row: Any
    rows: int
    first: Any
    vectors: int


def products(kernel: Kernel, spot: Spot) -> None:
    """The results of the packed queries and a block of keys, a tile at a time."""
    rows = min(kernel.plan.tile.rows, spot.rows)
    groups = blocks_of(spot.vectors, kernel.plan.tile.vectors)
    with builder.loop(0, ceil(spot.rows / rows)) as few, builder.loop(0, groups.count) as group:
        row = builder.held(builder.least(few * rows, spot.rows - rows))
        for vectors, there in groups.sizes(group):
            with builder.when(there):
                _tile(kernel, spot, _Part(row, rows, groups.start(group), vectors))


def _tile(kernel: Kernel, spot: Spot, part: _Part) -> None:
    """One tile: sums in registers, then results."""
    plan, lanes = kernel.plan, kernel.plan.isa.lanes
    pieces, size = plan.case.pieces, part.rows * part.vectors * plan.width
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
    for wide in (builder.reinterpret(each, "int16", width // 2) for each in zipped(codes, zero, width, 16)):
        found += [builder.reinterpret(each, "float32", width // 4) for each in zipped(wide, upper, width // 2, 8)]
    return [each - exact for each in found]


def _sums(kernel: Kernel, part: _Part, piece: range) -> Any:
    """int8 sums[row][key] of the signs in one piece of a head, plus 128."""
    plan, width = kernel.plan, kernel.plan.width
    numbers = [plan.case.words[word] for word in piece]
    places = range(0, part.rows * part.vectors * width, width)
    start = 0 if plan.counts else _signed(128 + sum(numbers) - 8 * sum(ceil(count / 8) for count in numbers))
    sums = builder.registers(len(places) * width, "int8")
    for at in places:
        builder.store(sums, at, builder.splat(start, width, "int8"), width)
    whole, per = numbers.count(WORD), 4 * plan.halves
    if whole:
        with builder.loop(piece[0] * per // AT_A_TIME, (piece[0] + whole) * per // AT_A_TIME) as turn:
            for slot in range(AT_A_TIME):
                _add(kernel, sums, part, turn * AT_A_TIME + slot)
    for word, count in zip(piece[whole:], numbers[whole:]):
        for byte, half in product(range(ceil(count / 8)), range(plan.halves)):
            _add(kernel, sums, part, plan.slot(word, byte, half))
    for at in places if plan.counts else ():
        twice = builder.load(sums, at, width) * builder.splat(2, width, "int8")
        builder.store(sums, at, builder.splat(_signed(128 + sum(numbers)), width, "int8") - twice, width)
    return sums


def _signed(byte: int) -> int:
    """The same eight bits as a signed byte."""
    return (byte + 128) % 256 - 128


def _add(kernel: Kernel, sums: Any, part: _Part, slot: Any) -> None:
    """Adds what one plane of the keys gives."""
    plan, width = kernel.plan, kernel.plan.width
    places = [((part.first + vector) * plan.slots + slot) * width for vector in range(part.vectors)]
    held = [builder.held(builder.load(kernel.keys, place, width)) for place in places]
    for row in range(part.rows):
        add = _adder(kernel, kernel.queries[(part.row + row) * plan.slots + slot])
        for vector, bits in enumerate(held):
            to = (row * part.vectors + vector) * width
            builder.store(sums, to, add(builder.load(sums, to, width), bits), width)


def _adder(kernel: Kernel, query: Any) -> Callable[[Any, Any], Any]:
    """Adds to sums what a plane of keys and a query's bits of it give: counts, or entries of a table."""
    width = kernel.plan.width
    if kernel.plan.counts:
        spread = builder.held(builder.splat(builder.reinterpret(query, "int8", 1), width))
        return lambda sums, bits: sums + builder.intrinsic("llvm.ctpop", f"int8x{width}", bits ^ spread)
    sixteen = builder.load(kernel.buffers["tables"], builder.cast(query, "int32"), 16)
    table = builder.held(builder.shuffle([sixteen] * (width // 16), range(width)))
    return lambda sums, bits: sums + builder.intrinsic(LOOKUPS["x86", width], f"int8x{width}", table, bits)


def _write(kernel: Kernel, spot: Spot, part: _Part, *, at: int, value: Any) -> None:
    """Scales and stores the sums that are number `at` of a tile, as far as there are keys for them, once each."""
    plan, lanes = kernel.plan, kernel.plan.isa.lanes
    case, width = plan.case, plan.width
    row, vector, key = at // (part.vectors * width), at // width % part.vectors, at % width
    if key >= case.keys:
        return
    if case.scaled:
        value = value * builder.splat(kernel.buffers["scale"][spot.head % case.heads], lanes)
    first = (spot.head * case.queries + spot.row + part.row + row) * case.keys
    at_vector = builder.held(spot.first + part.first + vector)
    to, real = first + plan.start(at_vector) + key, min(lanes, case.keys - key)
    if vector == part.vectors - 1 and key + lanes <= plan.overlap:
        with builder.when(at_vector != plan.vectors - 1):
            epilogue.write(kernel.buffers["y"], to, value, lanes=lanes, real=real)
    else:
        epilogue.write(kernel.buffers["y"], to, value, lanes=lanes, real=real)
