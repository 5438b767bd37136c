"""The 16-bit floats, and which constants survive in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgewright.types import Array


@dataclass(frozen=True)
class HalfType:
    """A 16-bit float: how ONNX, its schemas and numpy call it, and the largest value it holds."""

    name: str
    code: ir.DataType
    schema: str
    numpy: np.dtype[Any]
    largest: float


TYPES = {
    "fp16": HalfType("float16", ir.DataType.FLOAT16, "tensor(float16)", np.dtype(np.float16), 65504.0),
    "bf16": HalfType(
        "bfloat16", ir.DataType.BFLOAT16, "tensor(bfloat16)", np.dtype(ml_dtypes.bfloat16), 255 / 128 * 2.0**127
    ),
}


def is_float(value: ir.Value | None) -> bool:
    """Whether the value is a float32 tensor."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def fits(array: Array, half: HalfType) -> bool:
    """Whether a constant survives: nothing finite overflows, and no lone number (an epsilon, say) becomes zero."""
    finite = array[np.isfinite(array)]
    if finite.size and float(np.abs(finite).max()) > half.largest:
        return False
    return not (array.size == 1 and array.any() and not array.astype(half.numpy).astype(np.float32).any())
