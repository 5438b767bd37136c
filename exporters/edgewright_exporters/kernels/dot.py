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
    multiplies and adds them directly saturates) or "widen" (ARM without one). `takes` is the type that the row's bytes
    must have, nothing where both will do.
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


def dot_of(isa: Isa) -> Dot:
    """The way that is exact and fastest on `isa`."""
    if isa.dot == "vnni":
        return Dot("vnni", 4, isa.lanes, "uint8")
    if isa.dot == "sdot":
        return Dot("sdot", 4, isa.lanes, "int8")
    if isa.machine == "x86_64":
        return Dot("pairs", 4, isa.lanes, "uint8")
    return Dot("widen", 1, 2 * isa.lanes)


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
    if dot.kind == "pairs":
        return _pairs(sums, spread, weights, lanes)
    row = builder.reinterpret(spread, "int8", 4 * lanes)
    if dot.kind == "sdot":
        return builder.intrinsic("llvm.aarch64.neon.sdot", f"int32x{lanes}", sums, row, weights)
    return builder.intrinsic(f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", f"int32x{lanes}", sums, row, weights)


def _pairs(sums: Any, spread: Any, weights: Any, lanes: int) -> Any:
    """First the row's bytes 0 and 2, then 1 and 3: these pairs of 16 bits are one instruction away from the word."""
    name = "llvm.x86.avx512.pmaddw.d.512" if lanes == 16 else "llvm.x86.avx2.pmadd.wd"
    words = builder.reinterpret(spread, "uint16", 2 * lanes)
    even, odd = words & builder.splat(0xFF, 2 * lanes, "uint16"), words >> builder.splat(8, 2 * lanes, "uint16")
    for half, row in enumerate((even, odd)):
        bytes_ = builder.shuffle([weights], range(half * 2 * lanes, (half + 1) * 2 * lanes))
        factors = (builder.reinterpret(row, "int16", 2 * lanes), builder.cast(bytes_, f"int16x{2 * lanes}"))
        sums = sums + builder.intrinsic(name, f"int32x{lanes}", *factors)
    return sums


def arranged(dot: Dot, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weights [..., columns, step] in the order in which `multiply` reads those of each of its vectors."""
    if dot.kind != "pairs":
        return weights
    *outer, columns, _ = weights.shape
    parted = weights.reshape(*outer, columns // dot.lanes, dot.lanes, 2, 2)
    return np.moveaxis(parted, -1, -3).reshape(weights.shape)
