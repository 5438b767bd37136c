"""What follows a product while its results are in registers: an activation, a residual, the end of a row."""

from __future__ import annotations

from math import erf, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import vectormath
from edgewright_exporters.tir import builder

ACTIVATIONS = ("none", "relu", "gelu")


def activated(activation: str, value: Any, lanes: int) -> Any:
    """One of ACTIVATIONS applied to a vector of float32."""
    if activation == "relu":
        return builder.largest(value, builder.splat(0.0, lanes, "float32"))
    return vectormath.gelu(value, lanes) if activation == "gelu" else value


def activation_reference(activation: str, value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What `activated` computes, in float64."""
    if activation == "relu":
        return np.maximum(value, 0.0)
    return 0.5 * value * (1.0 + np.vectorize(erf)(value / sqrt(2.0))) if activation == "gelu" else value


def write(buffer: Any, at: Any, value: Any, *, lanes: int, real: int, residual: Any = None) -> None:
    """Stores a vector, with `residual` from the same place added; only its first `real` lanes where these are fewer."""
    if real >= lanes:
        builder.store(buffer, at, value if residual is None else value + builder.load(residual, at, lanes), lanes)
        return
    spilled = builder.registers(lanes, buffer.dtype)
    builder.store(spilled, 0, value, lanes)
    for lane in range(real):
        builder.store(buffer, at + lane, spilled[lane] if residual is None else spilled[lane] + residual[at + lane], 1)
