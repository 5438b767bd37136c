"""Float32 sums to bytes: rounded to even, saturated, several vectors at a time because packing them costs most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument

LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
HIGHEST = 65536.0
"""Above every code at once; larger floats have no int32, which x86 tells by the most negative one."""


Clip = Sequence[int] | npt.NDArray[np.integer]
"""The lowest and the highest code that a result may have."""

CODES = Argument("codes", "int16", 3)
"""What kernels read of the codes that they give: their zero point, then the lowest and the highest."""


def packed_codes(zero: int, clip: Clip | None, dtype: str) -> npt.NDArray[np.int16]:
    """The constant CODES; without a `clip` there are all codes of the type."""
    return np.array([zero, *(LIMITS[dtype] if clip is None else clip)], np.int16)


def to_codes(values: Sequence[Any], codes: Any, *, dtype: str, clip: bool, lanes: int) -> Any:
    """Vectors of `lanes` float32, one after the other, as saturate(rint(value) + zero), then held within the `clip`.

    `codes` is the buffer of CODES.
    """
    count = lanes * len(values)
    zero, low, high = (builder.splat(codes[place], count) for place in range(3))
    short = _held(_joined([_whole(value, lanes) for value in values], lanes), (-32768, 32767), count, "int32")
    found = builder.intrinsic("llvm.sadd.sat", f"int16x{count}", builder.cast(short, f"int16x{count}"), zero)
    if clip:
        found = builder.least(builder.largest(found, low), high)
    # Also after a clip: the instruction that packs bytes saturates, and needs nothing else to be exact.
    return builder.cast(_held(found, LIMITS[dtype], count, "int16"), f"{dtype}x{count}")


def to_codes_reference(value: npt.NDArray[Any], *, zero: int, dtype: str, clip: Clip | None) -> Any:
    """What `to_codes` computes."""
    low, high = LIMITS[dtype] if clip is None else clip
    return np.clip(np.rint(value) + zero, low, high).astype(dtype)


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
