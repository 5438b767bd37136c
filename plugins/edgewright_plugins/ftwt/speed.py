"""Chooses the mass by time: networks that fire as much as a mass leaves on average race with the whole network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import cast

import torch
from torch import Tensor, nn

from edgewright.errors import RecipeError, RefusedError
from edgewright.protocols import Context
from edgewright.torchkit.data import Inputs
from edgewright.types import Json, Measurement, Model
from edgewright_plugins.ftwt import Params
from edgewright_plugins.ftwt.budget import MASSES
from edgewright_plugins.ftwt.find import Unit
from edgewright_plugins.ftwt.gates import GatedConv, gate_, gates, targets
from edgewright_plugins.rounded_training import rewritten


def mass_by_time(
    model: Model, units: Sequence[Unit], params: Params, context: Context, batches: Sequence[Inputs]
) -> tuple[float, str]:
    """The largest of `MASSES` that is fast enough, by bisection, and what was measured.

    Raises: RecipeError when none is; RefusedError when no latency is known here.
    """
    speedup = cast("float", params.speedup)

    def ratio(mass: float) -> tuple[float, str]:
        def measure() -> Json:
            context.progress(f"ftwt: timing a mass of {mass:g}")
            fewer = _standing_in(model, units, batches, mass)
            found = context.cost({"whole": model, "fewer": fewer})["fewer"].ratio
            return [found.value, _words(found), found.reason]

        value, words, reason = cast("tuple[float | None, str, str]", context.remember(f"time {mass}", measure))
        if value is None:
            raise RefusedError(f"ftwt: no latency is known here ({reason}); say keep=... instead of speedup")
        return value, words

    mass, value, words = largest(MASSES, ratio, speedup)
    if value < speedup:
        raise RecipeError(
            f"ftwt: no mass makes {model.name} {speedup:g} times as fast; the smallest reaches {value:.2f}: ask for "
            "less, or say keep=..."
        )
    return mass, words


def largest(
    masses: Sequence[float], ratio: Callable[[float], tuple[float, str]], speedup: float
) -> tuple[float, float, str]:
    """The largest of the rising `masses` whose ratio is at least `speedup`, and that, by bisection; else the first."""
    found = {masses[0]: ratio(masses[0])}
    fast, slow = 0, len(masses) if found[masses[0]][0] >= speedup else 1
    while slow - fast > 1:
        middle = (fast + slow) // 2
        found[masses[middle]] = ratio(masses[middle])
        fast, slow = (middle, slow) if found[masses[middle]][0] >= speedup else (fast, middle)
    return (masses[fast], *found[masses[fast]])


def _words(ratio: Measurement) -> str:
    spread = f" [{ratio.interval[0]:.2f}, {ratio.interval[1]:.2f}]" if ratio.interval else ""
    return f"{ratio.value or 0:.2f}x{spread} ({ratio.kind})"


def _standing_in(model: Model, units: Sequence[Unit], batches: Sequence[Inputs], mass: float) -> Model:
    """A network whose predictors do their work and always choose the same blocks: as many as `mass` leaves."""

    def change(module: nn.Module) -> nn.Module:
        gate_(module, units)
        for each, heat in zip(gates(module), heats(module, batches), strict=True):
            _fix(each, usual(heat, mass))
        return module.eval()

    return rewritten(model, {"mass": mass, "units": [asdict(unit) for unit in units]}, "ftwt stand-in", change)


def heats(module: nn.Module, batches: Sequence[Inputs]) -> list[Tensor]:
    """The heat of each gated convolution over all examples, while everything fires."""
    found: dict[int, list[Tensor]] = {}

    def noting(each: GatedConv) -> None:
        def everything(heat: Tensor, logits: Tensor) -> Tensor:
            found.setdefault(id(each), []).append(heat)
            return torch.ones_like(logits)

        each.rule = everything

    for each in gates(module):
        noting(each)
    with torch.no_grad():
        for inputs in batches:
            module(*inputs)
    for each in gates(module):
        each.rule = None
    return [torch.cat(found[id(each)]) for each in gates(module)]


def usual(heat: Tensor, mass: float) -> Tensor:
    """The blocks that fire most often, as many as hold `mass` of the heat on average."""
    fires = targets(heat, mass)
    return fires.mean(0).topk(max(1, round(float(fires.sum(1).mean())))).indices


def _fix(each: GatedConv, chosen: Tensor) -> None:
    with torch.no_grad():
        each.predict.bias.fill_(-1.0)
        each.predict.bias[chosen] = 1.0
