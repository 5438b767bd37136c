"""What a mix came to: the model with its step, and what was said beside what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from edgewright import onnxkit
from edgewright.types import Model, Step
from edgewright_plugins.mixed_bits import Params
from edgewright_plugins.mixed_bits.job import Job
from edgewright_plugins.mixed_bits.losses import Losses
from edgewright_plugins.mixed_bits.net import FLOAT, FULL, Mix, Net
from edgewright_plugins.mixed_bits.prices import Prices

LISTED = 8
"""How many layers a note names; the details of the step hold them all."""
OFF = 2.0
"""From this factor on, a note says that the losses of single layers do not tell that of the mix."""
FAINT = 1e-4
"""Losses below this are nothing to compare."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a search found, before it is told. `budget` is a share of the cost of 8 bits everywhere."""

    job: Job
    params: Params
    losses: Losses
    prices: Prices
    budget: float


@dataclass(frozen=True)
class Found:
    """The cost of a mix as a share of that of 8 bits everywhere, and how it was found."""

    share: float
    how: str


def shipped(outcome: Outcome, mix: Mix, *, relaxed: bool) -> Model:
    """The model in the chosen mix."""
    result = outcome.job.finished(mix, tune=outcome.params.tune)
    found = _find(outcome, mix, result)
    notes = [*_bits(outcome, mix), _loss(outcome, mix), _cost(outcome, mix, found), *_score(outcome.job, result)]
    if relaxed:
        notes.append(f"the budget of {outcome.budget:.3f} was raised: within it the metric falls by more than it may")
    return result.after(_step(outcome, notes, mix, found=found.share))


def as_it_was(outcome: Outcome, dearest: Mix) -> Model:
    """The model unchanged, since no mix keeps the metric."""
    job = outcome.job
    score = _score(job, job.finished(dearest, tune=outcome.params.tune))
    notes = [*score, "nothing gained: the metric falls by more than it may even in the most precise mix"]
    return job.model.after(_step(outcome, notes, dearest, declined=True))


def _find(outcome: Outcome, mix: Mix, result: Model) -> Found:
    job = outcome.job
    if outcome.params.cost == "latency":
        race = job.race_again(mix)
        return Found(race.share, race.kind)
    if outcome.params.cost == "bitops":
        return Found(outcome.prices.share(mix), "counted")
    full = weight_bytes(job.net.made(job.net.uniform(FULL)), job.net)
    return Found(weight_bytes(onnxkit.read(result.graph), job.net) / full, "in the file")


def weight_bytes(proto: onnx.ModelProto, net: Net) -> int:
    """What the layers' weights take in a file, without scales and biases."""
    names = tuple(layer.weight for layer in net.layers)
    kept = [t for t in proto.graph.initializer if len(t.dims) > 1 and t.name.startswith(names)]
    return sum(len(tensor.raw_data) or tensor.ByteSize() for tensor in kept)


# ------------------------------------------------------------------ notes


def _bits(outcome: Outcome, mix: Mix) -> Iterator[str]:
    for bits in outcome.losses.options:
        names = [layer.name for layer, own in zip(outcome.job.net.layers, mix) if own == bits]
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            yield f"{_width(bits)}: {', '.join(names[:LISTED])}{more}"


def _width(bits: int) -> str:
    return "float" if bits == FLOAT else f"{bits} bits"


def _loss(outcome: Outcome, mix: Mix) -> str:
    job, predicted = outcome.job, outcome.losses.predicted(mix)
    found, other = job.loss(mix), job.loss(mix, "selection")
    note = (
        f"distance of the outputs from float: said {predicted:.3g}, found {found:.3g}, on other examples {other:.3g} "
        f"({_width(outcome.losses.options[-1])} everywhere {outcome.losses.base:.3g})"
    )
    off = max(found, FAINT) / max(predicted, FAINT)
    adds_up = 1 / OFF < off < OFF
    return note if adds_up else f"{note}; what layers lose alone does not add up here: found is {off:.2g} times said"


def _cost(outcome: Outcome, mix: Mix, found: Found) -> str:
    weights = [layer.weights for layer in outcome.job.net.layers]
    average = sum(n * bits for n, bits in zip(weights, mix)) / sum(weights)
    return (
        f"{outcome.params.cost} as a share of 8 bits everywhere: budget {outcome.budget:.3f}, "
        f"said {outcome.prices.share(mix):.3f}, found {found.share:.3f} ({found.how}); {average:.2f} bits per weight"
    )


def _score(job: Job, result: Model) -> Iterator[str]:
    if job.metric is not None:
        before, after = job.score(job.model), job.score(result)
        if before is not None and after is not None:
            yield f"{job.metric.name} on the selection split: {before:.2f} -> {after:.2f} {job.metric.unit}".rstrip()


# ------------------------------------------------------------------ the step


def _step(
    outcome: Outcome, notes: Sequence[str], mix: Mix, *, found: float | None = None, declined: bool = False
) -> Step:
    details: dict[str, Any] = {
        "bits": {layer.name: bits for layer, bits in zip(outcome.job.net.layers, mix)},
        "layers": ranked(outcome),
        "budget": outcome.budget,
        "said": outcome.prices.share(mix),
        "found": found,
    }
    return Step("mixed-bits", "edgewright", asdict(outcome.params), tuple(notes), details, declined)


def ranked(outcome: Outcome) -> list[Mapping[str, Any]]:
    """Every layer with what it adds to the loss and to the cost in each option, the most sensitive first."""
    options = list(map(str, outcome.losses.options))
    rows = [
        {"layer": layer.name, "loss": dict(zip(options, losses)), "cost": dict(zip(options, costs))}
        for layer, losses, costs in zip(outcome.job.net.layers, outcome.losses.increases, outcome.prices.costs)
    ]
    return sorted(rows, key=lambda row: -row["loss"][options[0]])
