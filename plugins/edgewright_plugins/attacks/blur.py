"""The attack `blur`: images out of focus, which a network is less sure of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewright.errors import RefusedError
from edgewright.protocols import Probe
from edgewright.types import Array, Arrays
from edgewright_plugins.attacks.ball import each_float, spatial_axes


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur whose deviation is `width` of the image's shorter side."""

    width: float = 0.08
    name: str = "blur"
    summary: str = "images out of focus: a Gaussian of 8 % of their side"

    def craft(self, probe: Probe, inputs: Arrays, rng: np.random.Generator) -> Arrays:
        """Raises: RefusedError without an input of images."""
        if not any(spatial_axes(array) for array in inputs.values()):
            raise RefusedError("blur needs images, [rows, channels, height, width] or channels last; no input is one")
        return each_float(inputs, lambda key, array: self._blurred(array), self.name)

    def _blurred(self, array: Array) -> Array:
        axes = spatial_axes(array)
        if axes is None:
            return array
        deviation = self.width * min(array.shape[axis] for axis in axes)
        for axis in axes:
            array = _along(array, axis, deviation)
        return array


def _along(array: Array, axis: int, deviation: float) -> Array:
    """One pass of the separable blur; beyond the edge the image goes on as its last pixel."""
    reach = max(1, round(3 * deviation))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / max(deviation, 1e-6)) ** 2)
    size = array.shape[axis]
    rows = (np.take(array, np.clip(np.arange(size) + offset, 0, size - 1), axis) for offset in offsets)
    return sum((weight * row for weight, row in zip(weights / weights.sum(), rows, strict=True)), np.zeros(array.shape))
