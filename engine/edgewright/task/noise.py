"""Seeded inputs for a model that came without data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgewright.task.task import Task
from edgewright.types import Array, Signature, TensorSpec


def noise_task(signature: Signature, seed: int, count: int = 40) -> Task:
    """A synthetic task: noise in, and agreement with the original as the only metric there can be."""
    rng = np.random.default_rng(seed)
    inputs = {spec.name: noise_for(spec, rng, count) for spec in signature.fed}
    task = Task.from_arrays(inputs, name="seeded noise", seed=seed)
    return replace(task, synthetic=True, notes=())


def noise_for(spec: TensorSpec, rng: np.random.Generator, count: int | None = None) -> Array:
    """Normal floats; bytes over their whole range; other whole numbers 0 or 1, which suits any table and any mask.

    `count` replaces the first size; free dimensions count as 1.
    """
    sizes = [1 if isinstance(dim, str) else dim for dim in spec.shape]
    if count is not None and sizes:
        sizes[0] = count
    dtype = np.dtype(spec.dtype)
    if spec.dtype in ("uint8", "int8"):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, sizes, dtype=dtype, endpoint=True)
    if dtype.kind in "iub":
        return rng.integers(0, 2, sizes).astype(dtype)
    return rng.standard_normal(sizes).astype(dtype)
