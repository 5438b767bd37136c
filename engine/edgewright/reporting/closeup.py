"""How the original and what ships spend their time: nodes as the device ran them, kernels as they are predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from edgewright.bench import Bench, holding
from edgewright.bundle import plain
from edgewright.errors import InputError, PluginError
from edgewright.measuring import measure
from edgewright.protocols import Itemising
from edgewright.registry import PREDICTORS, blame
from edgewright.store import key_of
from edgewright.types import Closeup, Evidence, Measurement, Model, Operator, Plan

SECONDS = 2.0
"""About how long a model runs while its nodes are timed."""

FEWEST, MOST = 5, 50
"""Runs, however long or short one is."""


def closeup(model: Model, plan: Plan, evidence: Evidence, bench: Bench) -> Closeup:
    """What is known of one model; its nodes are timed on the device, and not again for the same plan."""
    operators, reason = _operators(model, plan, evidence, bench)
    offer = bench.registry.get(PREDICTORS, bench.target.predictor)
    predictor = offer.value
    with blame(offer, f"predicting {evidence.name} for {bench.target.name}"):
        kernels = predictor.kernels(model, bench.target) if isinstance(predictor, Itemising) else ()
        told = [predictor.predict(model, bench.target, quantity) for quantity in ("latency", "energy")]
    return Closeup(
        evidence.name,
        spread=evidence.spread,
        operators=operators,
        reason=reason,
        kernels=tuple(kernels),
        predicted=tuple(_brief(each) for each in told),
    )


def _operators(model: Model, plan: Plan, evidence: Evidence, bench: Bench) -> tuple[tuple[Operator, ...], str]:
    """The nodes of every stage, or why there are none."""
    if bench.device is None:
        return (), f"no {bench.target.name} is at hand"
    key = key_of("operators", model.digest, plan, bench.device.device().fingerprint)
    try:
        found = bench.store.remember(key, "nodes", lambda: plain(_timed(model, plan, _runs(evidence), bench)))
    except (InputError, PluginError) as error:
        return (), str(error)
    nodes = _named(model, [Operator(**entry) for entry in cast("Sequence[Mapping[str, Any]]", found)])
    return nodes, "" if nodes else "the runtime does not tell what single nodes take"


def _timed(model: Model, plan: Plan, runs: int, bench: Bench) -> list[Operator]:
    device = bench.device
    assert device is not None
    lock = measure.device_lock(bench.store.folder("locks"), device.address, bench.progress)
    with lock, holding(device, bench.trial(model, plan), bench.entries(plan)) as opened:
        bench.progress(f"timing the nodes of {model.name}", 0, 0)
        device.warm(opened)
        return [
            Operator(stage.name, **vars(node))
            for number, stage in enumerate(model.variants[0].stages)
            for node in device.profile(opened, runs=runs, stage=number)
        ]


def _named(model: Model, operators: Sequence[Operator]) -> tuple[Operator, ...]:
    """The same, each with the node of the graph that it computes."""
    from edgewright import onnxkit
    from edgewright.reporting.renaming import original, originals

    known = {stage.name: originals(onnxkit.read(stage.graph)) for stage in model.variants[0].stages}
    return tuple(replace(each, kernel=original(each.node, each.operator, known[each.stage])) for each in operators)


def _runs(evidence: Evidence) -> int:
    ms = next(iter(evidence.latency.values())).value
    return MOST if not ms else max(FEWEST, min(MOST, math.ceil(SECONDS * 1000 / ms)))


def _brief(predicted: Measurement) -> Measurement:
    """Without the list of kernels, which stands beside it."""
    return replace(predicted, conditions={k: v for k, v in predicted.conditions.items() if k != "kernels"})
