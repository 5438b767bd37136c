"""What attacks may change: the inputs that are floats, within the range of real data, no further than a given way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgewright.errors import RefusedError
from edgewright.types import Array, Arrays

EPS = 8 / 255
"""How far a changed value may be from the real one, as a share of the range of real data."""


def each_float(inputs: Arrays, change: Callable[[str, Array], Array], name: str) -> dict[str, Array]:
    """The inputs, the floats among them replaced by `change(input's name, array)` in their own type.

    Raises: RefusedError when none is a float; `name` is the attack's.
    """
    floats = [key for key, array in inputs.items() if array.dtype.kind == "f"]
    if not floats:
        raise RefusedError(f"{name} changes inputs that are floats; there is none among {', '.join(inputs)}")
    return {key: change(key, array).astype(array.dtype) if key in floats else array for key, array in inputs.items()}


def moved(array: Array, steps: Array, limits: tuple[float, float], eps: float) -> Array:
    """`array` plus `steps` (of -1 to 1) times `eps` of the range of real data, kept in that range."""
    low, high = limits
    return np.clip(array + eps * (high - low) * steps, low, high)


def signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """-1 or 1 each, as likely."""
    return rng.integers(0, 2, shape) * 2.0 - 1.0


def spatial_axes(array: Array) -> tuple[int, int] | None:
    """The axes of height and width of images [rows, c, h, w] or [rows, h, w, c]; None when these are no images."""
    if array.ndim != 4:
        return None
    axes = (1, 2) if array.shape[3] in (1, 3) and array.shape[1] not in (1, 3) else (2, 3)
    return axes if min(array.shape[axis] for axis in axes) > 1 else None
