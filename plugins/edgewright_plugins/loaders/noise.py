"""Inputs to run a network on when nothing better is at hand."""

from __future__ import annotations

from collections.abc import Iterable

from edgewright.types import Array, TensorSpec


def noise(specs: Iterable[TensorSpec], seed: int, *, still: Iterable[str] = ()) -> dict[str, Array]:
    """One batch per tensor, as `edgewright.task.noise_for` draws it; zeros for the names in `still`.

    A free dimension gets the size 1. Recurrent states are `still`: that is how they start.
    """
    import numpy as np

    from edgewright.task import noise_for

    rng = np.random.default_rng(seed)
    drawn = {spec.name: noise_for(spec, rng) for spec in specs}
    return {**drawn, **{name: np.zeros_like(drawn[name]) for name in still if name in drawn}}
