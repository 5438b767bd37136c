"""Inputs to run a network on when nothing better is at hand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgewright.types import Array, TensorSpec


def noise(specs: Iterable[TensorSpec], seed: int, *, still: Iterable[str] = ()) -> dict[str, Array]:
    """One batch per tensor: normal floats, small integers; zeros for the names in `still`.

    A free dimension gets the size 1. Recurrent states are `still`: that is how they start.
    """
    rng = np.random.default_rng(seed)
    zeros = set(still)
    return {spec.name: np.zeros(_sizes(spec), spec.dtype) if spec.name in zeros else _draw(spec, rng) for spec in specs}


def _draw(spec: TensorSpec, rng: np.random.Generator) -> Array:
    """Whole numbers are 0 or 1, which indexes any table and suits any mask; bytes use their full range."""
    if spec.dtype in ("uint8", "int8"):
        limits = np.iinfo(spec.dtype)
        return rng.integers(limits.min, limits.max, _sizes(spec), dtype=spec.dtype, endpoint=True)
    if np.dtype(spec.dtype).kind in "iub":
        return rng.integers(0, 2, _sizes(spec)).astype(spec.dtype)
    return rng.standard_normal(_sizes(spec)).astype(spec.dtype)


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(1 if isinstance(dim, str) else dim for dim in spec.shape)
