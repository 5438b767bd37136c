"""Weights of four bits: two in a byte, each the number of one of sixteen int8 values, found by a table look-up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels.dot import Dot
from edgewright_exporters.tir import builder

INT4 = tuple(range(-8, 8))
"""The values of plain four-bit integers."""

LOOKUPS = {
    ("x86", 64): "llvm.x86.avx512.pshuf.b.512",
    ("x86", 32): "llvm.x86.avx2.pshuf.b",
    ("arm", 16): "llvm.aarch64.neon.tbl1",
    ("arm", 8): "llvm.aarch64.neon.tbl1",
}
"""The look-up in a table of 16 bytes, by how many bytes it takes at a time. On x86 each 16 have their own table."""


def encode(codes: tuple[int, ...], weight: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The place in `codes` of every element of `weight`.

    Raises:
        ValueError: when `codes` are not 16 int8 values, or an element is none of them.
    """
    if len(codes) != 16 or not all(-128 <= value <= 127 for value in codes):
        raise ValueError(f"a codebook of four bits has 16 values in -128..127, not {codes}")
    places = np.full(256, 255, np.uint8)
    for place, value in enumerate(codes):
        places[value + 128] = place
    found = places[weight.astype(np.int16) + 128]
    if (found == 255).any():
        raise ValueError(f"the weight {weight[found == 255][0]} is not in the codebook {codes}")
    return found


def decode(dot: Dot, pairs: Any, half: int, codes: tuple[int, ...]) -> Any:
    """The int8 values of the low (`half` 0) or high (1) four bits of `pairs`, as many bytes as a multiply takes."""
    count = dot.lanes * dot.step
    lanes = count // 4
    words = builder.reinterpret(pairs, "int32", lanes)
    if half:
        words = words >> builder.splat(4, lanes, "int32")
    places = builder.reinterpret(words & builder.splat(0x0F0F0F0F, lanes, "int32"), "int8", count)
    x86 = dot.kind in ("vnni", "pairs", "gentle")
    table = builder.constants(codes * (count // 16 if x86 else 1), "int8")
    return builder.intrinsic(LOOKUPS["x86" if x86 else "arm", count], f"int8x{count}", table, places)
