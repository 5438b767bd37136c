"""Weights of fewer than 8 bits: in all layers at first, then with the fewest bytes more that keep the metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgewright.grids import Grid
from edgewright_plugins.qdq.place import Scheme
from edgewright_plugins.quantize import Params
from edgewright_plugins.quantize.accuracy import LISTED, Outcome, fewest, goodness, lowest_score
from edgewright_plugins.quantize.job import Job

CARRIED = (4, 8)
"""What weights are raised to, step by step: the widths that a file can have."""


@dataclass(frozen=True)
class Raise:
    """A layer gets `bits` instead of `before`. `loss`: what `before` does alone; `worth`: what a byte more gains."""

    layer: str
    before: int
    bits: int
    loss: float
    worth: float


def narrow(job: Job, outcome: Outcome, params: Params) -> Outcome:
    """The outcome with as many of its weights in `params.bits` as the metric bears; unchanged where that is 8.

    Layers are raised towards 8 bits, those first that gain most per byte, until the metric holds.
    """
    if params.bits == 8:
        return outcome
    bits = {layer.name: params.bits for layer in job.layers(outcome.scheme)}
    least = outcome.scheme.narrowed(bits)
    floor = lowest_score(job, params)
    if floor is None or goodness(job, job.score(least, outcome.method)) >= floor:
        return replace(outcome, scheme=least, notes=(*outcome.notes, f"all {len(bits)} layers have {params.bits} bits"))
    widths = (params.bits, *(each for each in CARRIED if each > params.bits))
    ranked = job.ranked_widths(outcome.scheme, widths)
    raises = by_worth(job, outcome.scheme, ranked, widths)

    def holds(count: int) -> bool:
        return goodness(job, job.score(_raised(least, raises[:count]), outcome.method)) >= floor

    needed = _fewest(len(raises), holds)
    return replace(
        outcome,
        scheme=_raised(least, raises[:needed]),
        notes=(*outcome.notes, *_told(least, raises[:needed], params.bits)),
        details={**outcome.details, "weights_alone": [list(entry) for entry in ranked]},
    )


def _fewest(most: int, holds: Callable[[int], bool]) -> int:
    """The least count that holds, looked for from below.

    Layers' errors partly cancel, so that a metric may hold with few raises and fail again with more.
    """
    count = 1
    while count < most and not holds(count):
        count *= 2
    return fewest(min(count, most), holds, fails=count // 2)


def by_worth(job: Job, scheme: Scheme, ranked: Sequence[tuple[str, int, float]], widths: Sequence[int]) -> list[Raise]:
    """Every step from fewer bits to more, the most worth first; the steps of a layer stay in their order."""
    losses = {(name, bits): loss for name, bits, loss in ranked}
    found: list[Raise] = []
    for layer in job.layers(scheme):
        worth = math.inf
        for before, bits in zip(widths, widths[1:]):
            gain = losses[layer.name, before] - losses[layer.name, bits]
            size = layer.weights * (Grid(bits).stored_bits - Grid(before).stored_bits) / 8
            worth = min(worth, gain / size) if size else worth
            found.append(Raise(layer.name, before, bits, losses[layer.name, before], worth))
    return sorted(found, key=lambda step: -step.worth)


def _raised(scheme: Scheme, raises: Sequence[Raise]) -> Scheme:
    return scheme.narrowed({**dict(scheme.widths), **{step.layer: step.bits for step in raises}})


def _told(least: Scheme, raises: Sequence[Raise], bits: int) -> list[str]:
    """Which layers have more bits than was asked for, and how many do not."""
    steps = {step.layer: step for step in raises}
    first = {step.layer: step.loss for step in reversed(raises)}
    named = [f"{name} to {step.bits} (divergence {first[name]:.2g} alone)" for name, step in steps.items()]
    more = f" and {len(named) - LISTED} more" if len(named) > LISTED else ""
    kept = len(least.widths) - len(steps)
    told = f"{kept} of {len(least.widths)} layers have {bits} bits" if kept else f"no layer can have {bits} bits"
    return [f"{told}; raised for accuracy: {', '.join(named[:LISTED])}{more}"]
