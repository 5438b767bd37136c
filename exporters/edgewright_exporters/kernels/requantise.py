"""Float32 sums to bytes: rounded to even, saturated, several vectors at a time because packing them costs most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.tir import builder

LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
HIGHEST = 65536.0
"""Above every code at once; larger floats have no int32, which x86 tells by the most negative one."""


def to_codes(values: Sequence[Any], *, zero: int, dtype: str, clip: tuple[int, int] | None, lanes: int) -> Any:
    """Vectors of `lanes` float32, one after the other, as saturate(rint(value) + zero), then held within `clip`."""
    count = lanes * len(values)
    short = _held(_joined([_whole(value, lanes) for value in values], lanes), (-32768, 32767), count, "int32")
    codes = builder.cast(short, f"int16x{count}")
    if zero:
        codes = builder.intrinsic("llvm.sadd.sat", f"int16x{count}", codes, builder.splat(zero, count, "int16"))
    return builder.cast(_held(codes, clip or LIMITS[dtype], count, "int16"), f"{dtype}x{count}")


def to_codes_reference(value: npt.NDArray[Any], *, zero: int, dtype: str, clip: tuple[int, int] | None) -> Any:
    """What `to_codes` computes."""
    return np.clip(np.rint(value) + zero, *(clip or LIMITS[dtype])).astype(dtype)


def _whole(value: Any, lanes: int) -> Any:
    held = builder.least(value, builder.splat(HIGHEST, lanes, "float32"))
    return builder.intrinsic("llvm.lrint", f"int32x{lanes}", held)


def _joined(vectors: Sequence[Any], lanes: int) -> Any:
    return vectors[0] if len(vectors) == 1 else builder.shuffle(vectors, range(lanes * len(vectors)))


def _held(value: Any, limits: tuple[int, int], count: int, dtype: str) -> Any:
    low, high = (builder.splat(limit, count, dtype) for limit in limits)
    return builder.least(builder.largest(value, low), high)


def pieces(count: int) -> Sequence[tuple[int, int]]:
    """`count` vectors as runs (begin, count) of four, which are packed at once, then of two and one."""
    runs, begin = [], 0
    while begin < count:
        size = next(size for size in (4, 2, 1) if size <= count - begin)
        runs.append((begin, size))
        begin += size
    return runs
