"""Products of bytes summed in int32, exactly, with what each instruction set has for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.tir import builder
from edgewright_exporters.tir.isa import Isa


@dataclass(frozen=True)
class Dot:
    """One way to multiply: `step` bytes of a row with `step` bytes of each of `lanes` columns, added to int32 sums.

    `kind` is "vnni", "sdot", "pairs" (x86 without a dot product: bytes widened to 16 bits, because the instruction that
    multiplies and adds them directly saturates), "words" (the same for rows that are int16 already), "gentle" (that
    instruction, for weights that keep it from saturating) or "widen" (ARM without a dot product). `takes` is the type
    that the row's bytes must have, nothing where both will do.
    """

    kind: str
    step: int
    lanes: int
    takes: str | None = None

    def shift(self, dtype: str) -> int:
        """What is added to every byte of a row of type `dtype` before it is multiplied."""
        if self.takes in (None, dtype):
            return 0
        return 128 if self.takes == "uint8" else -128


def dot_of(isa: Isa, *, gentle: bool = False) -> Dot:
    """The way that is exact and fastest on `isa`; `gentle` says that the weights are."""
    if isa.dot == "vnni":
        return Dot("vnni", 4, isa.lanes, "uint8")
    if isa.dot == "sdot":
        return Dot("sdot", 4, isa.lanes, "int8")
    if isa.machine == "x86_64":
        return Dot("gentle" if gentle else "pairs", 4, isa.lanes, "uint8")
    return Dot("widen", 1, 2 * isa.lanes)


def dot_of_gathered(isa: Isa, *, gentle: bool) -> Dot:
    """The same for rows that may be rearranged, and widened to int16, beforehand."""
    if isa.dot or (gentle and isa.machine == "x86_64"):
        return dot_of(isa, gentle=gentle)
    return Dot("words", 2, isa.lanes) if isa.machine == "x86_64" else Dot("widen", 1, isa.lanes)


def gentle(weights: npt.NDArray[Any]) -> bool:
    """Whether no product of bytes with two neighbours of [..., depth] weights leaves int16, whatever the bytes."""
    padded = np.pad(weights.astype(np.int16), [(0, 0)] * (weights.ndim - 1) + [(0, weights.shape[-1] % 2)])
    pairs = padded.reshape(-1, 2)
    most, least = np.maximum(pairs, 0).sum(axis=1).max(initial=0), np.minimum(pairs, 0).sum(axis=1).min(initial=0)
    return bool(255 * int(most) <= 32767 and 255 * int(least) >= -32768)


def check_gentle(weights: npt.NDArray[Any]) -> None:
    """Raises: ValueError for weights that are not, where a case says that they are."""
    if not gentle(weights):
        raise ValueError(
            "weights are not gentle: two neighbours' products leave int16; use a case that does not say so"
        )


def spread(dot: Dot, x: Any, at: Any, *, dtype: str, real: int) -> Any:
    """`real` <= step bytes of `x` from `at` on, with the shift of `dtype`, in each of the lanes of `multiply`.

    Bytes that are not real are zero, so that it does not matter what weight they meet.
    """
    word = builder.splat(_word(dot, x, at, real), dot.lanes)
    if not dot.shift(dtype):
        return word
    flip = int.from_bytes(b"\x80" * real, "little")
    return word ^ builder.splat(flip - 2**32 if real == 4 else flip, dot.lanes, "int32")


def _word(dot: Dot, x: Any, at: Any, real: int) -> Any:
    if dot.kind == "widen":
        return builder.cast(x[at], "int32")
    if dot.kind == "words":
        return builder.reinterpret(builder.load(x, at, 2), "int32", 1)
    if real == dot.step:
        return builder.reinterpret(builder.load(x, at, 4), "int32", 1)
    mask = builder.splat(0xFF, 1, "int32")
    word = builder.cast(x[at], "int32") & mask
    for place in range(1, real):
        part = builder.cast(x[at + place], "int32") & mask
        word = word | (part << builder.splat(8 * place, 1, "int32"))
    return word


def multiply(dot: Dot, sums: Any, spread: Any, weights: Any) -> Any:
    """`sums` (int32 lanes) plus the products of `spread`, a word in every lane, and `weights` (step int8 a lane)."""
    lanes = dot.lanes
    if dot.kind == "widen":
        return sums + spread * builder.cast(builder.cast(weights, f"int16x{lanes}"), f"int32x{lanes}")
    if dot.kind == "words":
        row, wide = builder.reinterpret(spread, "int16", 2 * lanes), builder.cast(weights, f"int16x{2 * lanes}")
        return sums + multiply_pairs(row, wide, lanes)
    if dot.kind == "pairs":
        return _pairs(sums, spread, weights, lanes)
    row = builder.reinterpret(spread, "int8", 4 * lanes)
    if dot.kind == "gentle":
        name = "llvm.x86.avx512.pmaddubs.w.512" if lanes == 16 else "llvm.x86.avx2.pmadd.ub.sw"
        pairs = builder.intrinsic(name, f"int16x{2 * lanes}", row, weights)
        return sums + multiply_pairs(pairs, builder.splat(1, 2 * lanes, "int16"), lanes)
    if dot.kind == "sdot":
        return builder.intrinsic("llvm.aarch64.neon.sdot", f"int32x{lanes}", sums, row, weights)
    return builder.intrinsic(f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", f"int32x{lanes}", sums, row, weights)


def _pairs(sums: Any, spread: Any, weights: Any, lanes: int) -> Any:
    """First the row's bytes 0 and 2, then 1 and 3: these pairs of 16 bits are one instruction away from the word."""
    words = builder.reinterpret(spread, "uint16", 2 * lanes)
    even, odd = words & builder.splat(0xFF, 2 * lanes, "uint16"), words >> builder.splat(8, 2 * lanes, "uint16")
    for half, row in enumerate((even, odd)):
        bytes_ = builder.shuffle([weights], range(half * 2 * lanes, (half + 1) * 2 * lanes))
        factors = (builder.reinterpret(row, "int16", 2 * lanes), builder.cast(bytes_, f"int16x{2 * lanes}"))
        sums = sums + multiply_pairs(*factors, lanes)
    return sums


def multiply_pairs(first: Any, second: Any, lanes: int) -> Any:
    """On x86: neighbours of int16 multiplied and added to one int32, in each of `lanes` lanes."""
    name = "llvm.x86.avx512.pmaddw.d.512" if lanes == 16 else "llvm.x86.avx2.pmadd.wd"
    return builder.intrinsic(name, f"int32x{lanes}", first, second)


def arranged(dot: Dot, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weights [..., columns, step] in the order in which `multiply` reads those of each of its vectors."""
    if dot.kind != "pairs":
        return weights
    *outer, columns, _ = weights.shape
    parted = weights.reshape(*outer, columns // dot.lanes, dot.lanes, 2, 2)
    return np.moveaxis(parted, -1, -3).reshape(weights.shape)
