"""Packs the signs of queries and keys: a bit for each number, set where it is above its bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgewright_exporters.kernels.hamming_cut import WORD, HammingCase, Kernel, Plan, Spot
from edgewright_exporters.kernels.lanes import folded, zipped
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.isa import Isa


def pack_keys(kernel: Kernel, head: Any, first: Any, vectors: int) -> None:
    """The planes of a block of keys; what they say of keys that are not there is never written."""
    plan = kernel.plan
    case, width = plan.case, plan.width
    words = builder.registers(len(case.words) * width, "int32")
    with builder.loop(0, vectors) as vector:
        with builder.loop(0, min(width, case.keys)) as key:
            start = _token(case.k, case, head, plan.start(first + vector) + key)
            for at, word in enumerate(_words(kernel, "k", head, start)):
                builder.store(words, at * width + key, word, 1)
        for at, numbers in enumerate(case.words):
            planes = parted([builder.load(words, at * width + n * width // 4, width // 4) for n in range(4)], plan)
            for byte, plane in enumerate(planes[: -(-numbers // 8)]):
                for half, value in enumerate(_halves(plane, plan)):
                    place = (vector * plan.slots + plan.slot(at, byte, half)) * width
                    builder.store(kernel.keys, place, builder.reinterpret(value, "int8", width), width)


def pack_queries(kernel: Kernel, spot: Spot) -> None:
    """The bytes of each query, or where the tables of its two halves begin."""
    plan = kernel.plan
    mask, four = (builder.splat(number, 1, "int32") for number in (0xF0F0F0F0 - 2**32, 4))
    with builder.loop(0, spot.rows) as row:
        start = _token(plan.case.q, plan.case, spot.head, spot.row + row)
        for at, word in enumerate(_words(kernel, "q", spot.head, start)):
            whole = builder.held(word)
            values = (whole,) if plan.counts else ((whole << four) & mask, whole & mask)
            for half, value in enumerate(values):
                place = row * plan.slots + plan.slot(at, 0, half)
                builder.store(kernel.queries, place, builder.reinterpret(value, "uint8", 4), 4)


def parted(words: Sequence[Any], plan: Plan) -> Sequence[Any]:
    """Four planes, as int32, of four vectors of words: byte b of every word.

    In every 16 bytes of a plane there are four keys of the first vector, four of the second, and so on: the order in
    which bytes are to be that `hamming_sums` widens to float32.
    """
    lanes, width = plan.isa.lanes, plan.width
    order = [start + byte + 4 * word for start in range(0, width, 16) for byte in range(4) for word in range(4)]
    sorted_ = [builder.shuffle([builder.reinterpret(each, "int8", width)], order) for each in words]
    rows = [builder.reinterpret(each, "int32", lanes) for each in sorted_]
    pairs = [zipped(rows[at], rows[at + 1], lanes, 4) for at in (0, 2)]
    wide = [[builder.reinterpret(each, "int64", lanes // 2) for each in pair] for pair in pairs]
    planes = [each for low, high in zip(*wide) for each in zipped(low, high, lanes // 2, 2)]
    return [builder.held(builder.reinterpret(each, "int32", lanes)) for each in planes]


def _halves(plane: Any, plan: Plan) -> Sequence[Any]:
    """A plane, or its lower and its upper four bits."""
    if plan.counts:
        return (plane,)
    mask = builder.splat(0x0F0F0F0F, plan.isa.lanes, "int32")
    return plane & mask, (plane >> builder.splat(4, plan.isa.lanes, "int32")) & mask


def _token(about: Sequence[int], case: HammingCase, head: Any, token: Any) -> Any:
    """Where a token's numbers of a head begin."""
    _, offset, batch, heads, tokens = about
    return offset + head // case.heads * batch + head % case.heads * heads + token * tokens


def _words(kernel: Kernel, name: str, head: Any, start: Any) -> Sequence[Any]:
    """The bits of the token at `start`, as int32; bits past the last one are zero."""
    plan, x, bounds = kernel.plan, kernel.buffers[name], kernel.buffers[f"{name}_bounds"]
    bound = head % plan.case.heads * plan.case.size
    return [
        _word(plan.isa, (x, start + at * WORD), (bounds, bound + at * WORD), numbers)
        for at, numbers in enumerate(plan.case.words)
    ]


def _word(isa: Isa, x: tuple[Any, Any], bounds: tuple[Any, Any], numbers: int) -> Any:
    """Bits of `numbers` neighbours, eight of them in each byte but the last."""
    if isa.machine == "x86_64" and isa.lanes == 16 and numbers == WORD:
        return _masked(_above(x, bounds, 0, WORD))
    if isa.machine == "x86_64" and numbers == WORD:
        return _packed([_above(x, bounds, at) for at in range(0, WORD, 8)])
    whole = numbers // 8 * 8
    bytes_ = [(at, _byte(isa, _above(x, bounds, at))) for at in range(0, whole, 8)]
    bits = [(at, builder.cast(_above(x, bounds, at, 1), "int32")) for at in range(whole, numbers)]
    moved = [value << builder.splat(at, 1, "int32") if at else value for at, value in bytes_ + bits]
    return folded(moved, lambda left, right: left | right)


def _above(x: tuple[Any, Any], bounds: tuple[Any, Any], at: int, count: int = 8) -> Any:
    """Which of `count` numbers are above their bounds."""
    return builder.load(x[0], x[1] + at, count) > builder.load(bounds[0], bounds[1] + at, count)


def _packed(parts: Sequence[Any]) -> Any:
    """One int32 of four times eight truths, on x86: in the order in which its instructions narrow vectors."""
    ones = [builder.splat(0, 8, "int32") - builder.cast(part, "int32x8") for part in parts]
    words = [builder.intrinsic("llvm.x86.avx2.packssdw", "int16x16", *ones[at : at + 2]) for at in (0, 2)]
    bytes_ = builder.intrinsic("llvm.x86.avx2.packsswb", "int8x32", *words)
    return builder.intrinsic("llvm.x86.avx2.pmovmskb", "int32", bytes_)


def _masked(above: Any) -> Any:
    """One int32 of 32 truths: LLVM sees that AVX-512's comparisons leave just these bits in a mask register."""
    ones = builder.splat(0, WORD, "int8") - builder.cast(above, f"int8x{WORD}")
    return builder.intrinsic("llvm.x86.avx2.pmovmskb", "int32", ones)


def _byte(isa: Isa, above: Any) -> Any:
    """An int32 of eight truths, the first in the lowest bit."""
    if isa.machine == "x86_64":
        ones = builder.splat(0, 8, "int32") - builder.cast(above, "int32x8")
        return builder.intrinsic("llvm.x86.avx.movmsk.ps.256", "int32", builder.reinterpret(ones, "float32", 8))
    ones = builder.splat(0, 8, "int16") - builder.cast(above, "int16x8")
    bits = ones & builder.constants([1 << bit for bit in range(8)], "int16")
    return builder.cast(builder.intrinsic("llvm.vector.reduce.add", "int16", bits), "int32")
