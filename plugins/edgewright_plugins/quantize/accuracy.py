"""What int8 may lose and how it loses least: the best ranges, and the worst layers put back to float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgewright_plugins.qdq.place import Scheme
from edgewright_plugins.quantize import Params
from edgewright_plugins.quantize.job import Job

LISTED = 5
"""How many layers a note names; the details of the step hold them all."""


@dataclass(frozen=True)
class Outcome:
    """An int8 form that is settled: how it is made and what is to be said about it."""

    scheme: Scheme
    method: str
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def settle(job: Job, scheme: Scheme, params: Params) -> Outcome | None:
    """The scheme with its best ranges and, where it loses too much, its worst layers put back to float.

    None when that would leave nothing in int8.
    """
    method, notes = best_ranges(job, scheme)
    outcome = Outcome(scheme, method, notes)
    floor = lowest_score(job, params)
    if floor is None or goodness(job, job.score(scheme, method)) >= floor:
        return outcome
    return put_back(job, outcome, floor)


def best_ranges(job: Job, scheme: Scheme) -> tuple[str, tuple[str, ...]]:
    """The range method with the best metric, ties broken by the smaller error of the outputs, and why."""
    methods = list(job.ranges)
    if not scheme.kind.startswith("static") or len(methods) == 1:
        return methods[0], ()
    noises = {method: job.signal_to_noise(scheme, method) for method in methods}
    scores = {method: job.score(scheme, method) for method in methods}
    best = max(methods, key=lambda m: (goodness(job, scores[m]), noises[m]))
    found = ", ".join(f"{m} {_written(job, scores[m])}{noises[m]:.1f} dB" for m in methods)
    return best, (f"ranges by {best}, of {found}",)


def lowest_score(job: Job, params: Params) -> float | None:
    """The goodness that int8 may not fall below; None when there is no task to judge by, or accuracy binds nothing.

    `--max-drop` counts from the original; where an earlier method has spent it, from the model at hand.
    """
    bound = job.context.max_drop
    if job.metric is None or (params.drop is None and bound is None):
        return None
    before = goodness(job, job.score_of(job.model))
    if params.drop is not None:
        return before - params.drop * job.metric.full_scale
    allowed = (bound or 0.0) * job.metric.full_scale
    least = goodness(job, job.score_of(job.context.original)) - allowed
    return least if before >= least else before - allowed


def put_back(job: Job, outcome: Outcome, floor: float) -> Outcome | None:
    """The fewest of the most sensitive layers put back to float with which the metric holds, by bisection."""
    ranked = job.ranked(outcome.scheme, outcome.method)

    def holds_without(count: int) -> bool:
        return goodness(job, job.score(_without(outcome.scheme, ranked[:count]), outcome.method)) >= floor

    holds = fewest(len(ranked), holds_without)
    if holds == len(ranked):
        return None
    return replace(
        outcome,
        scheme=_without(outcome.scheme, ranked[:holds]),
        notes=(*outcome.notes, f"put back to float for accuracy: {listed(ranked[:holds])}"),
        details={"sensitivity": [list(entry) for entry in ranked]},
    )


def fewest(most: int, holds: Callable[[int], bool], *, fails: int = 0) -> int:
    """The least count, by bisection, that `holds`; `fails` is known not to, and `most` to hold."""
    while most - fails > 1:
        middle = (fails + most) // 2
        fails, most = (fails, middle) if holds(middle) else (middle, most)
    return most


def _without(scheme: Scheme, layers: Sequence[tuple[str, float]]) -> Scheme:
    return scheme.keeping(frozenset(name for name, _ in layers))


def listed(layers: Sequence[tuple[str, float]]) -> str:
    named = ", ".join(f"{name} ({decibels:.0f} dB alone)" for name, decibels in layers[:LISTED])
    return f"{named} and {len(layers) - LISTED} more" if len(layers) > LISTED else named


def goodness(job: Job, score: float | None) -> float:
    """The metric, negated where less is better; 0 where there is none, so that other grounds decide."""
    if score is None or job.metric is None:
        return 0.0
    return score if job.metric.direction == "higher" else -score


def _written(job: Job, score: float | None) -> str:
    if score is None or job.metric is None:
        return ""
    return f"{score:.2f} {job.metric.unit}".strip() + ", "
