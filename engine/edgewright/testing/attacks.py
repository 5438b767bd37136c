"""Checks of attacks, against a model with exits that is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgewright.errors import PluginError, RefusedError
from edgewright.gates import depth_of
from edgewright.protocols import Attack
from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import require, require_sentence
from edgewright.types import Array, Arrays, Offer, Refusal

ROWS = 6


class Known:
    """A probe of a model with two gates whose scores are the inputs' mean over two patterns of blocks, plus a half.

    It counts how often it was asked, and tells nothing once that is more than `queries`.
    """

    def __init__(self, inputs: Arrays, *, thresholds: tuple[float, ...] = (0.45, 0.4), queries: int = 20) -> None:
        """`inputs` are the real ones, of which the limits are taken."""
        self.limits: Mapping[str, tuple[float, float]] = {
            name: (float(array.min()), float(array.max())) for name, array in inputs.items()
        }
        self.thresholds = thresholds
        self.queries = queries
        self.asked = 0

    def scores(self, inputs: Arrays) -> Array:
        """Float32 [2, rows]."""
        self._count()
        flat = np.concatenate([array.reshape(len(array), -1).astype(np.float32) for array in inputs.values()], axis=1)
        sides = [np.where(np.arange(flat.shape[1]) // block % 2, -1, 1) for block in (32, 64)]
        return np.stack([0.5 + (flat * side).mean(1) for side in sides]).astype(np.float32)

    def depths(self, inputs: Arrays) -> Array:
        """Int64 [rows]."""
        return depth_of(self.scores(inputs), self.thresholds)

    def _count(self) -> None:
        self.asked += 1
        require(self.asked <= self.queries, "craft", f"it asks more often than the {self.queries} times it may")


def crafts(offer: Offer[Attack], rig: Rig) -> Refusal | None:
    """Rows of the same types and shapes, the same for the same seed, in the limits, and the given ones left alone."""
    refusals = [_crafts(offer.value, inputs) for inputs in _samples().values()]
    return next(filter(None, refusals), None) if all(refusals) else None


def _crafts(attack: Attack, inputs: Arrays) -> Refusal | None:
    before = {name: array.copy() for name, array in inputs.items()}
    try:
        first, second = (attack.craft(Known(inputs), inputs, np.random.default_rng(1)) for _ in range(2))
    except RefusedError as error:
        return require_sentence(Refusal(str(error)), "craft")
    except Exception as cause:
        raise PluginError(f"craft: {type(cause).__name__}: {cause}") from cause
    require(_same(before, inputs), "craft", "it changes the arrays that it is given")
    require(_same(first, second), "mismatch", "the same seed gives other inputs the second time")
    for name, array in inputs.items():
        _check(name, array, first.get(name), Known(inputs).limits[name])
    return None


def _check(name: str, wanted: Array, found: Array | None, limits: tuple[float, float]) -> None:
    if found is None:
        raise PluginError(f"mismatch: the input {name!r} is missing")
    fits = (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    shown, asked = (f"{each.dtype} {list(each.shape)}" for each in (found, wanted))
    require(fits, "mismatch", f"it makes {shown} of {name!r}, which is {asked}")
    low, high = float(found.min()), float(found.max())
    slack = 1e-5 * (limits[1] - limits[0])
    within = limits[0] - slack <= low <= high <= limits[1] + slack
    require(
        within, "mismatch", f"{name!r} goes from {low:g} to {high:g}, real data from {limits[0]:g} to {limits[1]:g}"
    )


def _samples() -> Mapping[str, Arrays]:
    rng = np.random.default_rng(0)
    return {
        "images": {"image": rng.random((ROWS, 3, 8, 8), np.float32)},
        "channels last": {"image": rng.random((ROWS, 8, 8, 1), np.float32)},
        "vectors and tokens": {
            "x": rng.standard_normal((ROWS, 64)).astype(np.float32),
            "tokens": rng.integers(0, 9, (ROWS, 5)),
        },
    }


def _same(one: Arrays, other: Arrays) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)
