"""Fits the gates of a chain: thresholds from scores seen and costs measured, exits that earn nothing taken out.

Costs are measured in the running chain: first with rows leaving anywhere, so that each stage is seen, then with
the thresholds found, because a stage that is rarely reached is cold when it is. (Times of stages run on their own
promise more than the chain keeps.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from edgewright.bench import Bench
from edgewright.bundle import plain
from edgewright.exits.fit import Costs, Fit, Observed, fit
from edgewright.exits.observe import FITTED_ON, observe
from edgewright.store import key_of
from edgewright.types import Goal, Json, Model, Plan, StageCost, Tradeoff

USUAL_DROP = 0.01
"""What may be lost when nobody said: the same share as the contract's."""
LOOKS = 3
"""How often costs are measured and thresholds fitted, at most."""


@dataclass(frozen=True, eq=False)
class Settled:
    """A chain with thresholds, what its stages cost on the device, and the choices there were."""

    model: Model
    costs: tuple[StageCost, ...]
    tradeoffs: tuple[Tradeoff, ...]
    notes: tuple[str, ...]


def unsettled(model: Model) -> bool:
    """Whether a gate of the model has no threshold yet."""
    return any(stage.gate is not None and stage.gate.threshold is None for stage in model.stages)


def settle(model: Model, bench: Bench, plan: Plan | None = None) -> Settled:
    """The chain with fitted thresholds; exits that do not earn their place are merged away.

    Args:
        model: an ONNX chain; thresholds it has already are fitted anew.
        bench: where scores are computed and costs measured.
        plan: how its stages run; the target's default plan when None.

    Raises: RefusedError when nothing tells good answers from bad ones.
    """
    goal = model.variants[0].goal or Goal(drop=_usual_drop(bench))
    chain = with_thresholds(model, [None] * (len(model.stages) - 1))
    device = bench.device.device().fingerprint if bench.device else bench.target.name
    key = key_of("settle", chain.digest, goal, plan, bench.task.digest, device, bench.recipe.threads)
    found = cast("dict[str, Any]", bench.store.remember(key, "fit", lambda: _found(chain, goal, bench, plan)))
    settled = _closed(chain, found["thresholds"], bench)
    settled = replace(settled, variants=(replace(settled.variants[0], goal=goal),))
    costs = tuple(StageCost(**each) for each in found["costs"])
    tradeoffs = tuple(_tradeoff(each, bench) for each in found["tradeoffs"])
    return Settled(settled, costs, tradeoffs, _notes(chain, settled, found["expected"], bench))


def with_thresholds(model: Model, thresholds: Sequence[float | None]) -> Model:
    """The chain with these thresholds, one per gate in order."""
    left = iter(thresholds)
    variant = model.variants[0]
    stages = [s if s.gate is None else replace(s, gate=replace(s.gate, threshold=next(left))) for s in variant.stages]
    return replace(model, variants=(replace(variant, stages=tuple(stages)), *model.variants[1:]))


def _found(chain: Model, goal: Goal, bench: Bench, plan: Plan | None) -> Json:
    """A threshold per gate (None: dropped), costs of the stages that stay, choices, and what is expected."""
    observed = observe(chain, bench)
    gates = len(observed.scores)
    whole = bench.stage_costs(_closed(chain, [None] * gates, bench), _plan_of(plan, chain.stages[-1:]))[0].mean_ms
    kept = list(range(gates))
    candidate, found = chain, None
    for look in range(LOOKS):
        costs = bench.stage_costs(candidate, _plan_of(plan, candidate.stages))
        found = fit(_only(observed, kept), _costs(costs, whole), goal)
        stays = [number for number, threshold in zip(kept, found.thresholds, strict=True) if threshold is not None]
        candidate = _closed(chain, _placed(gates, kept, found), bench)
        steady, kept = stays == kept, stays
        if not kept or (look and steady):
            break
    assert found is not None
    thresholds = [stage.gate.threshold for stage in candidate.stages if stage.gate]
    everywhere: list[float | None] = [None] * gates
    for number, threshold in zip(kept, thresholds, strict=True):
        everywhere[number] = threshold
    return plain(
        {
            "thresholds": everywhere,
            "costs": bench.stage_costs(candidate, _plan_of(plan, candidate.stages)),
            "tradeoffs": found.tradeoffs,
            "expected": {**_expected(found), "whole_ms": whole, "n": observed.scores.shape[1]},
        }
    )


def _placed(gates: int, kept: Sequence[int], found: Fit) -> list[float | None]:
    thresholds: list[float | None] = [None] * gates
    for number, threshold in zip(kept, found.thresholds, strict=True):
        thresholds[number] = threshold
    return thresholds


def _only(observed: Observed, kept: Sequence[int]) -> Observed:
    """What was seen of some exits, and of the last answer."""
    return Observed(observed.scores[list(kept)], observed.quality[[*kept, -1]])


def _costs(costs: Sequence[StageCost], whole_ms: float) -> Costs:
    """With what dropping an exit saves: its share of what the chain takes more than one graph without exits."""
    stages = tuple(cost.mean_ms for cost in costs)
    exits = len(stages) - 1
    return Costs(stages, (max(0.0, sum(stages) - whole_ms) / exits,) * exits)


def _closed(chain: Model, thresholds: Sequence[float | None], bench: Bench) -> Model:
    """The chain with thresholds; stages whose gate has none are merged into the next."""
    chain = with_thresholds(chain, thresholds)
    closed = [number for number, threshold in enumerate(thresholds) if threshold is None]
    if not closed:
        return chain
    from edgewright.onnxchain import dropped

    return replace(chain, variants=(dropped(chain.variants[0], closed, bench.store.keep),))


def _plan_of(plan: Plan | None, stages: Sequence[Any]) -> Plan | None:
    """What a plan says of the stages that are left."""
    names = {stage.name for stage in stages}
    return None if plan is None else Plan(tuple(p for p in plan.placements if p.stage in names))


def _expected(found: Fit) -> dict[str, Any]:
    return {"cost_ms": found.cost_ms, "drop": found.drop, "drop_error": found.drop_error, "shares": found.shares}


def _notes(chain: Model, settled: Model, said: dict[str, Any], bench: Bench) -> tuple[str, ...]:
    metric = bench.task.metric
    where = " and ".join(split for split in FITTED_ON if bench.task.size(split))
    notes = [
        f"gates fitted on {said['n']} examples ({where}): {said['cost_ms']:.3g} ms expected on average, "
        f"{said['whole_ms']:.3g} ms without exits; {metric.full_scale * said['drop']:.2f} "
        f"(+- {metric.full_scale * said['drop_error']:.2f}) {metric.unit} below the last answer"
    ]
    names = {stage.name for stage in settled.stages}
    gone = [stage.name for stage in chain.stages if stage.name not in names]
    return (*notes, f"dropped, because they do not earn their place: {', '.join(gone)}") if gone else tuple(notes)


def _tradeoff(entry: dict[str, Any], bench: Bench) -> Tradeoff:
    """With the metric in its own unit: qualities are shares of its full scale, higher being better."""
    metric = bench.task.metric
    value = float(entry["metric"]) * metric.full_scale * (1 if metric.direction == "higher" else -1)
    fields: dict[str, Any] = {**entry, "thresholds": tuple(entry["thresholds"]), "metric": value}
    return Tradeoff(**fields)


def _usual_drop(bench: Bench) -> float:
    bound = bench.recipe.bounds.max_drop
    return USUAL_DROP if bound is None else bound.share
