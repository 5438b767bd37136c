"""What `ftwt` does: chooses the budget before anything trains, puts predictors in, and trains both in two halves."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

from torch import nn

from edgewright.errors import RecipeError, RefusedError
from edgewright.protocols import Context
from edgewright.torchkit.data import Inputs
from edgewright.torchkit.fit import Fitted
from edgewright.torchkit.losses import distilled
from edgewright.torchkit.train import train
from edgewright.types import Json, Model, Step, Target, TorchGraph
from edgewright_plugins.ftwt import Params
from edgewright_plugins.ftwt.budget import MASSES, estimate, mass_for, share_left, total_macs
from edgewright_plugins.ftwt.find import Unit, units_of
from edgewright_plugins.ftwt.gates import gate_, gates
from edgewright_plugins.ftwt.learn import firing, freeze, groups, level, settings, wire
from edgewright_plugins.ftwt.speed import mass_by_time
from edgewright_plugins.rounded_training import module_of, rewritten, seen, teacher_of

KEEP = 0.6
"""Of the multiply-accumulates, where nobody says how many stay."""


def decide(model: Model, params: Params, context: Context) -> Json:
    """The convolutions that skip, the mass of heat that is computed, and the share of work that this leaves.

    Raises: RefusedError, RecipeError.
    """
    batches = seen(model, context)
    params = replace(params, block=params.block or block_for(context.target))
    units = units_of(module_of(model), [tensor[:1] for tensor in batches[0]], params.block)
    if not units:
        raise RefusedError(
            f"{model.name} has no convolution that can leave out channels: of 8 inputs or more, "
            "without groups, whose output (behind its batch norm) an activation alone reads"
        )
    mass, timed = _mass(model, params, context, units, batches)
    share = _left(model, units, batches, context)(mass)
    found = {
        "mass": mass, "estimate": share, "measured": timed, "units": [asdict(unit) for unit in units],
        "params": asdict(params),
    }  # fmt: skip
    context.progress(f"ftwt: {_told(found)}")
    return cast("Json", json.loads(json.dumps(found)))


def block_for(target: Target) -> int:
    """How many channels are left out together where nobody says: a vector of float32, two where these are short."""
    return 16 if target.isa.startswith("x86") and "avx512bw" in target.features else 8


def _mass(
    model: Model, params: Params, context: Context, units: Sequence[Unit], batches: Sequence[Inputs]
) -> tuple[float, str]:
    """The mass that reaches what was asked for, and what was measured of it. Raises: RecipeError, RefusedError."""
    asked = [name for name in ("keep", "speedup", "mass") if getattr(params, name) is not None]
    if len(asked) > 1:
        raise RecipeError(f"ftwt: {' and '.join(asked)} say the same thing in other ways; write one of them")
    if params.mass is not None:
        return params.mass, ""
    if params.speedup is not None:
        return mass_by_time(model, units, params, context, batches)
    keep = KEEP if params.keep is None else params.keep
    left = _left(model, units, batches, context)
    mass = mass_for(keep, left)
    if mass is None:
        raise RecipeError(
            f"ftwt: keep={keep:g} cannot be met; what does not skip and the least of what does are "
            f"{left(MASSES[0]):.2f} of {model.name}'s multiply-accumulates: ask for more than that"
        )
    return mass, ""


def _left(model: Model, units: Sequence[Unit], batches: Sequence[Inputs], context: Context) -> Callable[[float], float]:
    """What gives the share that a mass leaves, each estimated once."""

    def share_of(mass: float) -> float:
        def compute() -> Json:
            context.progress(f"ftwt: what a mass of {mass:g} leaves to do")
            return estimate(module_of(model), units, batches, (mass,))[mass]

        return cast("float", context.remember(f"estimate {mass}", compute))

    return share_of


def rewrite(model: Model, decision: Json) -> Model:
    """The network with gated convolutions, by which everything fires."""
    said = cast("dict[str, Any]", decision)

    def change(module: nn.Module) -> nn.Module:
        gate_(module, _units(said))
        for each in gates(module):
            each.joint = said["params"]["mode"] == "joint"
        return module

    return rewritten(model, decision, "ftwt", change)


def train_gates(model: Model, decision: Json, context: Context) -> Model:
    """The network after training: first with its predictors, then with predictors that rest.

    Raises: RefusedError without a training split; what `torchkit.train` raises.
    """
    said = cast("dict[str, Any]", decision)
    params, units = Params(**said["params"]), _units(said)
    module, batches = copy.deepcopy(module_of(model)), seen(model, context)
    usual = distilled(
        teacher := teacher_of(module, context), context.task.loss if context.task else None, weight=params.distill
    )
    total = total_macs(teacher, [tensor[:1] for tensor in batches[0]])
    wire(module.eval(), said["mass"], batches)
    later = params.epochs // 2
    first = settings(params, params.epochs - later)
    fitted = [train(module, None, context, first, objective=firing(usual, said["mass"]), groups=groups, part="wiring")]
    level(module, said["mass"], batches)
    freeze(module)
    if later:
        fitted.append(
            train(module, None, context, settings(params, later), objective=usual, groups=groups, part="adapting")
        )
    left = share_left(module, units, total, batches)
    notes = (_told(said), f"{100 * left:.0f} % are left after training; {_how(fitted)}", _form(model))
    step = Step("ftwt", plugin="edgewright", params=said["params"], notes=notes)
    return model.with_graph(TorchGraph(module.eval(), model.digest)).after(step)


def _units(said: dict[str, Any]) -> list[Unit]:
    return [Unit(**unit) for unit in said["units"]]


def _told(said: dict[str, Any]) -> str:
    timed = f"; {said['measured']}" if said["measured"] else ""
    return (
        f"{len(said['units'])} convolutions compute {100 * said['mass']:.0f} % of their heat: an estimated "
        f"{100 * said['estimate']:.0f} % of the multiply-accumulates, predictors counted{timed}"
    )


def _how(fitted: Sequence[Fitted]) -> str:
    losses = [each.losses for each in fitted if each.losses]
    return f"loss {losses[-1][0]:.3f} when predictors rest, {losses[-1][-1]:.3f} at the end" if losses else "own loop"


def _form(model: Model) -> str:
    batch = model.signature.inputs[0].shape[0]
    if batch == 1:
        return "channels that do not fire are not computed"
    return f"at a batch of {batch} examples differ in what fires: everything is computed, and masked; use a batch of 1"
