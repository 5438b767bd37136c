"""The attack `slowdown`: a search for inputs that look the same and pass every gate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewright.protocols import Probe
from edgewright.types import Array, Arrays
from edgewright_plugins.attacks.ball import EPS, each_float, moved, signs, spatial_axes

FIRST, LAST = 0.5, 0.05
"""The share of an image's side (of all values, where there is no image) that a step changes, first and last."""

REACHED = 1e-6
"""What a gate that is just reached adds to the loss: with a margin of 0 the row still leaves."""


@dataclass(frozen=True)
class Slowdown:
    """Random search in a box of `eps` of the data's range around each input.

    The aim is that of DeepSloth (Hong et al. 2021, arXiv 2010.02432), which follows gradients: lower what every exit
    is sure of. The search is that of the Square Attack (Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 1
    and 2), which needs the scores alone and so works on any runtime: stripes first, then squares, each kept where it
    does not raise the loss. A row's loss is the sum over gates of how far the score is above the threshold.
    """

    eps: float = EPS
    name: str = "slowdown"
    summary: str = "small changes, searched for, that make no exit sure (8/255 of the range)"

    def craft(self, probe: Probe, inputs: Arrays, rng: np.random.Generator) -> Arrays:
        """The best that was found in `probe.queries` questions. Raises: RefusedError without an input of floats."""
        steps = _floats(each_float(inputs, lambda _, array: np.zeros_like(array), self.name))
        loss = losses(probe, inputs)
        for query in range(1, probe.queries):
            going = np.flatnonzero(loss > 0)
            if len(going) == 0:
                break
            share = FIRST * (LAST / FIRST) ** (query / probe.queries)
            tried = self._changed(_rows(steps, going), rng, None if query == 1 else share)
            found = losses(probe, self._moved(probe, _rows(inputs, going), tried))
            kept = found <= loss[going]
            loss[going[kept]] = found[kept]
            for key, array in tried.items():
                steps[key][going[kept]] = array[kept]
        return self._moved(probe, inputs, steps)

    def _changed(self, steps: Arrays, rng: np.random.Generator, share: float | None) -> Arrays:
        """Other steps: stripes when `share` is None, else the same with a part painted over."""
        paint = _stripes if share is None else lambda array, rng: _repainted(array, rng, share)
        return each_float(steps, lambda _, array: paint(array, rng), self.name)

    def _moved(self, probe: Probe, inputs: Arrays, steps: Arrays) -> Arrays:
        def go(key: str, array: Array) -> Array:
            return moved(array, steps[key], probe.limits[key], self.eps)

        return each_float(inputs, go, self.name)


def losses(probe: Probe, inputs: Arrays) -> Array:
    """How far each row is from passing every gate, float [rows]; 0 when it gets to the end.

    Without scores, where a graph decides inside, it falls with the exit that the row takes, and is never 0.
    """
    scores = probe.scores(inputs)
    if len(scores) == 0:
        return 1.0 / (1.0 + probe.depths(inputs))
    margins = np.nan_to_num(scores - np.array(probe.thresholds)[:, None], nan=-1.0)
    return np.where(margins >= 0, margins + REACHED, 0.0).sum(0)


def _stripes(array: Array, rng: np.random.Generator) -> Array:
    """Columns of one sign for each channel; a sign for each value where this is no image."""
    axes = spatial_axes(array)
    if axes is None:
        return signs(rng, array.shape)
    shape = [1 if axis == axes[0] else size for axis, size in enumerate(array.shape)]
    return np.broadcast_to(signs(rng, tuple(shape)), array.shape)


def _repainted(array: Array, rng: np.random.Generator, share: float) -> Array:
    """In each row one square gets another sign for each channel; a random choice of values where this is no image."""
    axes = spatial_axes(array)
    if axes is None:
        return np.where(rng.random(array.shape) < share, signs(rng, array.shape), array)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(array.shape))
    return np.where(_squares(array, axes, rng, share), signs(rng, shape), array)


def _squares(array: Array, axes: tuple[int, int], rng: np.random.Generator, share: float) -> Array:
    """A square of `share` of the shorter side somewhere in each row, bool, spread over channels by broadcasting."""
    side = max(1, round(share * min(array.shape[axis] for axis in axes)))
    bands: list[Array] = []
    for axis in axes:
        size = array.shape[axis]
        start = rng.integers(0, size - side + 1, (len(array), 1, 1, 1))
        places = np.arange(size).reshape([size if i == axis else 1 for i in range(array.ndim)])
        bands.append((start <= places) & (places < start + side))
    return bands[0] & bands[1]


def _rows(arrays: Arrays, rows: Array) -> dict[str, Array]:
    return {key: array[rows] for key, array in arrays.items()}


def _floats(arrays: Arrays) -> dict[str, Array]:
    return {key: array for key, array in arrays.items() if array.dtype.kind == "f"}
