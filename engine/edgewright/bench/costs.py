"""Costs that need no device at hand: predicted ones, and those of an earlier run read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgewright.protocols import Predictor
from edgewright.registry import PREDICTORS, Registry, blame
from edgewright.types import Cost, Measurement, Model, Stage, StageCost, Target, Variant


def predicted(models: Mapping[str, Model], quantity: str, registry: Registry, target: Target) -> Mapping[str, Cost]:
    """What the target's predictor says each model costs, relative to the first."""
    offer = registry.get(PREDICTORS, target.predictor)
    predictor: Predictor = offer.value
    first = next(iter(models.values()))
    with blame(offer, f"predicting {quantity} for {target.name}"):
        return {
            name: Cost(
                predictor.predict(model, target, quantity),
                predictor.predict_ratio(first, model, target, quantity),
            )
            for name, model in models.items()
        }


def predicted_stages(model: Model, registry: Registry, target: Target) -> tuple[StageCost, ...]:
    """What the target's predictor says each stage takes, as a model of its own."""
    alone = {stage.name: stage_alone(model, stage) for stage in model.variants[0].stages}
    costs = {name: predicted({name: each}, "latency", registry, target)[name].value for name, each in alone.items()}
    return tuple(
        StageCost(name, value, value, found.interval[1] if found.interval else value, 0)
        for name, found in costs.items()
        for value in [found.value or 0.0]
    )


def stage_alone(model: Model, stage: Stage) -> Model:
    """One stage as a model of its own, as far as a predictor looks at it."""
    alone = replace(stage, gate=None, carry=(), outputs=stage.returns)
    return replace(model, variants=(Variant(model.variants[0].name, (alone,)),))


def read_cost(entry: Mapping[str, Any]) -> Cost:
    """A Cost from its JSON form."""
    return Cost(read_measurement(entry["value"]), read_measurement(entry["ratio"]))


def read_measurement(entry: Mapping[str, Any]) -> Measurement:
    """A Measurement from its JSON form."""
    interval = entry.get("interval")
    fields: dict[str, Any] = {**entry, "interval": None if interval is None else tuple(interval)}
    return Measurement(**fields)
