"""Which form, runtime and options a candidate ships with: the usual ones, unless others win clearly on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewright.bench import Bench, stage_artifacts
from edgewright.errors import DeviceError, InputError, PluginError, RefusedError
from edgewright.exporting import exported
from edgewright.numerics import worst
from edgewright.types import Cost, Measurement, Model, Plan

FURTHEST = 0.01
"""How far the outputs of another form may be from the usual one's, as a share of the largest: beyond rounding."""


@dataclass(frozen=True)
class Raced:
    """A candidate's plan, its cost beside the original's default plan, and what came of other plans."""

    plan: Plan
    cost: Cost
    notes: tuple[str, ...]


def race(models: Mapping[str, Model], bench: Bench) -> Mapping[str, Raced]:
    """Race every plan of every candidate, interleaved; the first model is the one that ratios refer to."""
    plans = {name: _plans(model, bench) for name, model in models.items()}
    if bench.device is None:
        costs = bench.costs(models)
        return {name: Raced(plans[name][0], costs[name], ()) for name in models}
    notes: dict[str, list[str]] = {name: [] for name in models}
    for name, model in models.items():
        for exporter in bench.recipe.exporters[1:]:
            try:
                plans[name].append(_other_form(model, exporter, plans[name][0], bench))
            except (RefusedError, PluginError, InputError, DeviceError) as reason:
                notes[name].append(f"{exporter} did not race: {reason}")
    entrants = {
        _entrant(name, position): (models[name], plan)
        for name, options in plans.items()
        for position, plan in enumerate(options)
    }
    costs = bench.plan_costs(entrants)
    return {name: _winner(name, options, costs, notes[name]) for name, options in plans.items()}


def _other_form(model: Model, exporter: str, default: Plan, bench: Bench) -> Plan:
    """A plan for what another exporter writes, known to answer as the default plan does.

    Raises: RefusedError, or what is wrong with it otherwise.
    """
    artifacts = exported(model, exporter, bench)
    plan = Plan(tuple(bench.placements(artifact)[0] for artifact in artifacts), artifacts)
    usual, found = (bench.deployed_outputs(model, "selection", each) for each in (default, plan))
    difference = worst(list(usual), list(usual.values()), [found[name] for name in usual])
    if difference.max_rel > FURTHEST:
        raise RefusedError(f"its outputs are {difference.max_rel:.2g} of the largest away from those of the usual form")
    return plan


def _plans(model: Model, bench: Bench) -> list[Plan]:
    """The default plan, then plans that differ from it in one stage."""
    ways = [bench.placements(artifact) for artifact in stage_artifacts(model)]
    default = [placements[0] for placements in ways]
    plans = [Plan(tuple(default))]
    for position, placements in enumerate(ways):
        for other in placements[1:]:
            plans.append(Plan((*default[:position], other, *default[position + 1 :])))
    return plans


def _winner(name: str, options: Sequence[Plan], costs: Mapping[str, Cost], notes: Sequence[str]) -> Raced:
    """The default, unless another plan's whole interval lies above the default's value."""
    default = costs[_entrant(name, 0)]
    best = 0
    for position in range(1, len(options)):
        ratio = costs[_entrant(name, position)].ratio
        rival = costs[_entrant(name, best)].ratio
        if ratio.interval and rival.value and ratio.interval[0] > rival.value:
            best = position
    told = [
        f"{_describe(plan)} ran {_gain(default.ratio, costs[_entrant(name, position)].ratio)} as fast as the default"
        for position, plan in enumerate(options)
        if position == best != 0 or (plan.artifacts and position != best)
    ]
    return Raced(options[best], costs[_entrant(name, best)], (*told, *notes))


def _entrant(name: str, position: int) -> str:
    return name if position == 0 else f"{name} #{position}"


def _gain(default: Measurement, chosen: Measurement) -> str:
    return f"{(chosen.value or 1.0) / (default.value or 1.0):.2f}x"


def _describe(plan: Plan) -> str:
    return ", ".join(
        f"{f'{p.artifact} on ' if plan.artifacts else ''}{p.runtime} {p.provider.removesuffix('ExecutionProvider')} "
        + " ".join(f"{key}={value}" for key, value in sorted(p.options.items()))
        for p in plan.placements
    )
