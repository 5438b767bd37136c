"""Which form, runtime and options a candidate ships with: the usual ones, unless others win clearly on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewright.asking.recipe import USUAL_FORM
from edgewright.bench import Bench, stage_artifacts
from edgewright.deploying.exporting import exported
from edgewright.errors import DeviceError, InputError, PluginError, RefusedError
from edgewright.numerics import worst
from edgewright.types import Cost, Entrant, Model, Placement, Plan

FURTHEST = 0.05
"""How far the outputs of another form may be from the usual ones, as a share of the largest.

Integers may round otherwise in a form; accuracy is judged later, on what the device computes.
"""

BROKEN = (RefusedError, PluginError, InputError, DeviceError)
"""What keeps a way to run a candidate out of the race, and nothing else."""

EVERYWHERE = ("allow_fallback", "threads")
"""Options that are the same for all who race."""


@dataclass(frozen=True)
class Raced:
    """A candidate's plan, its cost beside the original's default plan, and what came of every way to run it."""

    plan: Plan
    cost: Cost
    entrants: tuple[Entrant, ...] = ()


@dataclass(frozen=True)
class _Way:
    """A way to run a candidate: the exporter that wrote it, and where its stages run."""

    form: str
    plan: Plan


def race(models: Mapping[str, Model], bench: Bench) -> Mapping[str, Raced]:
    """Race every way to run every candidate, interleaved; the first model is the one that ratios refer to."""
    ways = {name: _usual_ways(model, bench) for name, model in models.items()}
    if bench.device is None:
        costs = bench.costs(models)
        return {name: Raced(ways[name][0].plan, costs[name], _not_raced(name, bench)) for name in models}
    absent: dict[str, list[Entrant]] = {name: [] for name in models}
    for name, model in models.items():
        ways[name], absent[name] = _vetted(name, model, ways[name], bench)
        for exporter in bench.recipe.exporters[1:]:
            try:
                ways[name].append(_Way(exporter, _other_form(model, exporter, ways[name][0].plan, bench)))
            except BROKEN as reason:
                absent[name].append(Entrant(name, exporter, "", None, reason=str(reason)))
    plans = {
        _key(name, position): (models[name], way.plan)
        for name, several in ways.items()
        for position, way in enumerate(several)
    }
    costs = bench.plan_costs(plans)
    return {name: _decided(name, several, costs, absent[name]) for name, several in ways.items()}


def _usual_ways(model: Model, bench: Bench) -> list[_Way]:
    """The default plan for the first exporter's form, then plans that differ from it in one stage."""
    form = bench.recipe.exporters[0]
    artifacts = () if form == USUAL_FORM else exported(model, form, bench)
    found = [bench.placements(artifact) for artifact in artifacts or stage_artifacts(model)]
    default = [placements[0] for placements in found]
    plans = [Plan(tuple(default), artifacts)]
    for position, placements in enumerate(found):
        for other in placements[1:]:
            plans.append(Plan((*default[:position], other, *default[position + 1 :]), artifacts))
    return [_Way(form, plan) for plan in plans]


def _not_raced(name: str, bench: Bench) -> tuple[Entrant, ...]:
    """The other forms of a candidate, which nothing can be said of without a device."""
    reason = "no device is at hand to race on; name the target's with --on, or ship this form with --exporter {}"
    return tuple(Entrant(name, form, "", None, reason=reason.format(form)) for form in bench.recipe.exporters[1:])


def _vetted(name: str, model: Model, ways: Sequence[_Way], bench: Bench) -> tuple[list[_Way], list[Entrant]]:
    """The ways that answer as the default does, and why others do not race; only other runtimes have to show it."""
    default, kept, absent = ways[0], [ways[0]], list[Entrant]()
    for way in ways[1:]:
        try:
            if _runtimes(way) != _runtimes(default):
                _check_answers(model, default.plan, way.plan, bench)
            kept.append(way)
        except BROKEN as reason:
            absent.append(Entrant(name, way.form, _described(way.plan.placements), None, reason=str(reason)))
    return kept, absent


def _runtimes(way: _Way) -> list[str]:
    return [placement.runtime for placement in way.plan.placements]


def _other_form(model: Model, exporter: str, default: Plan, bench: Bench) -> Plan:
    """A plan for what another exporter writes, known to answer as the default plan does.

    Raises: RefusedError, or what is wrong with it otherwise.
    """
    artifacts = exported(model, exporter, bench)
    plan = Plan(tuple(bench.placements(artifact)[0] for artifact in artifacts), artifacts)
    _check_answers(model, default, plan, bench)
    return plan


def _check_answers(model: Model, default: Plan, plan: Plan, bench: Bench) -> None:
    """Raises: RefusedError when a plan answers otherwise than the default one does."""
    usual, found = (bench.deployed_outputs(model, "selection", each) for each in (default, plan))
    difference = worst(list(usual), list(usual.values()), [found[name] for name in usual])
    if difference.max_rel > FURTHEST:
        raise RefusedError(f"its outputs are {difference.max_rel:.2g} of the largest away from those of the usual form")


def _decided(name: str, ways: Sequence[_Way], costs: Mapping[str, Cost], absent: Sequence[Entrant]) -> Raced:
    """The default, unless another plan's whole interval lies above the default's value."""
    ratios = [costs[_key(name, position)].ratio for position in range(len(ways))]
    best = 0
    for position, ratio in enumerate(ratios):
        value = ratios[best].value
        if ratio.interval and value and ratio.interval[0] > value:
            best = position
    entrants = (
        Entrant(name, way.form, _described(way.plan.placements), ratio, won=position == best)
        for position, (way, ratio) in enumerate(zip(ways, ratios))
    )
    return Raced(ways[best].plan, costs[_key(name, best)], (*entrants, *absent))


def _key(name: str, position: int) -> str:
    return name if position == 0 else f"{name} #{position}"


def _described(placements: Sequence[Placement]) -> str:
    """`ort CPU graph=all`; once where all stages run alike."""
    return ", ".join(dict.fromkeys(map(_placed, placements)))


def _placed(placement: Placement) -> str:
    raced = {key: value for key, value in sorted(placement.options.items()) if key not in EVERYWHERE}
    provider = placement.provider.removesuffix("ExecutionProvider")
    return " ".join((placement.runtime, provider, *(f"{key}={value}" for key, value in raced.items())))
