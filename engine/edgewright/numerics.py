"""How far two computations of the same outputs are apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.types import Array


@dataclass(frozen=True)
class Difference:
    """The largest absolute error of the output `name`, and the same as a share of its largest finite value."""

    name: str
    max_abs: float
    max_rel: float


def difference(name: str, want: Array, got: Array) -> Difference:
    """How far `got` is from `want`.

    Values that are equal, or NaN in both, are no difference. Shapes or dtypes that differ, and a value that
    is finite in one alone, are infinitely far.
    """
    if want.shape != got.shape or want.dtype != got.dtype:
        return Difference(name, math.inf, math.inf)
    exact, other = want.astype(np.float64), got.astype(np.float64)
    apart = ~((exact == other) | (np.isnan(exact) & np.isnan(other)))
    if not apart.any():
        return Difference(name, 0.0, 0.0)
    gap = np.abs(exact[apart] - other[apart])
    error = float(gap.max()) if np.isfinite(gap).all() else math.inf
    scale = float(np.abs(exact, where=np.isfinite(exact), out=np.zeros_like(exact)).max())
    return Difference(name, error, error / scale if scale else math.inf)


def worst(names: Sequence[str], want: Sequence[Array], got: Sequence[Array]) -> Difference:
    """The output that is furthest off, relative to its own scale."""
    return max((difference(*each) for each in zip(names, want, got, strict=True)), key=lambda each: each.max_rel)
