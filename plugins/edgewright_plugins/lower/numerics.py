"""How far two computations of the same outputs are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.types import Array


@dataclass(frozen=True)
class Difference:
    """The largest absolute error of one output, and the same over the output's largest absolute value."""

    name: str
    max_abs: float
    max_rel: float


def difference(name: str, want: Array, got: Array) -> Difference:
    """How far `got` is from `want`; infinitely far when shapes differ or only one of them is not finite."""
    if want.shape != got.shape:
        return Difference(name, float("inf"), float("inf"))
    exact, other = want.astype(np.float64), got.astype(np.float64)
    same = (exact == other) | (np.isnan(exact) & np.isnan(other))
    if same.all():
        return Difference(name, 0.0, 0.0)
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(exact - other))
    error = float(np.nan_to_num(gap, nan=np.inf).max())
    finite = np.abs(exact[np.isfinite(exact)])
    scale = float(finite.max()) if finite.size else 0.0
    return Difference(name, error, error / scale if scale else float("inf"))


def worst(names: Sequence[str], want: Sequence[Array], got: Sequence[Array]) -> Difference:
    """The output that is furthest off, relative to its own scale."""
    found = [difference(*each) for each in zip(names, want, got, strict=True)]
    return max(found, key=lambda each: each.max_rel)
