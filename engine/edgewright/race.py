"""Which runtime and options each candidate runs with: the usual ones, unless others win clearly on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewright.bench import Bench, stage_artifacts
from edgewright.types import Cost, Measurement, Model, Placement, Plan


@dataclass(frozen=True)
class Raced:
    """A candidate's plan, its cost beside the original's default plan, and what its options alone gained."""

    plan: Plan
    cost: Cost
    notes: tuple[str, ...]


def race(models: Mapping[str, Model], bench: Bench) -> Mapping[str, Raced]:
    """Race every plan of every candidate, interleaved; the first model is the one that ratios refer to."""
    plans = {name: _plans(model, bench) for name, model in models.items()}
    if bench.device is None:
        costs = bench.costs(models)
        return {name: Raced(plans[name][0], costs[name], ()) for name in models}
    entrants = {
        _entrant(name, position): (models[name], plan)
        for name, options in plans.items()
        for position, plan in enumerate(options)
    }
    costs = bench.plan_costs(entrants)
    return {name: _winner(name, options, costs) for name, options in plans.items()}


def _plans(model: Model, bench: Bench) -> Sequence[Plan]:
    """The default plan, then plans that differ from it in one stage."""
    ways = [bench.placements(artifact) for artifact in stage_artifacts(model)]
    default = [placements[0] for placements in ways]
    plans = [Plan(tuple(default))]
    for position, placements in enumerate(ways):
        for other in placements[1:]:
            plans.append(Plan((*default[:position], other, *default[position + 1 :])))
    return plans


def _winner(name: str, options: Sequence[Plan], costs: Mapping[str, Cost]) -> Raced:
    """The default, unless another plan's whole interval lies above the default's value."""
    default = costs[_entrant(name, 0)]
    best = 0
    for position in range(1, len(options)):
        ratio = costs[_entrant(name, position)].ratio
        rival = costs[_entrant(name, best)].ratio
        if ratio.interval and rival.value and ratio.interval[0] > rival.value:
            best = position
    notes = ()
    if best:
        chosen = costs[_entrant(name, best)]
        notes = (
            f"{_describe(options[best].placements)} ran {_gain(default.ratio, chosen.ratio)} as fast as the default",
        )
    return Raced(options[best], costs[_entrant(name, best)], notes)


def _entrant(name: str, position: int) -> str:
    return name if position == 0 else f"{name} #{position}"


def _gain(default: Measurement, chosen: Measurement) -> str:
    return f"{(chosen.value or 1.0) / (default.value or 1.0):.2f}x"


def _describe(placements: Sequence[Placement]) -> str:
    return ", ".join(
        f"{p.runtime} {p.provider.removesuffix('ExecutionProvider')} "
        + " ".join(f"{key}={value}" for key, value in sorted(p.options.items()))
        for p in placements
    )
