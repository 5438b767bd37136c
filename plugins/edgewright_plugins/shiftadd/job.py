"""What `shiftadd` does: chooses the layers, puts shifts into them, and trains the whole network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import nn

from edgewright.errors import RecipeError, RefusedError
from edgewright.protocols import Context
from edgewright.torchkit.anatomy import Attention, examine
from edgewright.torchkit.data import Inputs
from edgewright.torchkit.fakequant import QuantizedLayer
from edgewright.torchkit.fakequant_prepare import Grids, layers_of, replaced, usual_grids
from edgewright.torchkit.losses import Objective
from edgewright.torchkit.training import Training, decayed_and_not
from edgewright.types import Json, Model
from edgewright_plugins.rounded_training import listed, module_of, read, rewritten, seen, trained
from edgewright_plugins.shiftadd import Params
from edgewright_plugins.shiftadd.attention import SignAttention, attend, binarisable
from edgewright_plugins.shiftadd.layers import PowerLayer, ShiftLayer
from edgewright_plugins.shiftadd.mixture import balanced, mixture_of, mixtures
from edgewright_plugins.shiftadd.prices import measured

RATES = {"weights": 5e-4, "powers": 2e-4}
FASTER = 20.0
"""How many times the rate powers, signs and routers learn with: a power must move by a half before a weight changes,
and a router starts from chance where weights start from what they were."""
DECAY = 1e-2
KINDS = {"weights": ShiftLayer, "powers": PowerLayer}


def decide(model: Model, params: Params, context: Context) -> Json:
    """The paths of layers that shift, per other layer its grids, the attentions, and the settings of the training.

    Raises: RefusedError when there is nothing that can shift or binarise, or none of what was asked for.
    """
    module, said = module_of(model), dict((context.task.anatomy if context.task else None) or {})
    batches = seen(model, context)
    layers = layers_of(module, batches)
    paths = chosen(module, [layer.path for layer in layers], params.layers, batches[0], said)
    found = [] if params.attention == "softmax" else binarisable(module, _first(batches[0]), said)
    if not paths and not found:
        raise RefusedError(
            f"{model.name} has {len(layers)} layers that ran, and its ends do not shift: nothing is left"
        )
    usual = usual_grids(layers, 8, 8)
    grids = {path: pair for path, pair in usual.items() if path in paths or params.others == "int8"}
    return cast(
        "Json",
        {
            "params": _plain(asdict(params)),
            "shifts": paths,
            "grids": listed(grids),
            "attentions": [asdict(each) for each in found],
            "latencies": _latencies(module, paths, batches, params, context) if params.experts == "mixture" else [],
        },
    )


def _plain(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """As JSON gives it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in params.items()}


def _latencies(
    module: nn.Module, paths: Sequence[str], batches: Sequence[Inputs], params: Params, context: Context
) -> list[float]:
    """Of products and of shifts, as they were said, or of the first layer that is mixed.

    Raises: RefusedError when no linear layer is left to mix; RecipeError for another number of latencies than two.
    """
    linear = [path for path in paths if isinstance(module.get_submodule(path), nn.Linear)]
    if not linear:
        raise RefusedError(
            "a mixture routes tokens through linear layers, and none of these shifts; leave experts=shift"
        )
    if len(params.latencies) not in (0, 2):
        raise RecipeError(f"shiftadd: latencies has {len(params.latencies)} numbers; write those of products+shifts")
    if params.latencies:
        return list(params.latencies)
    return cast("list[float]", context.remember("latencies", lambda: measured(module, linear[0], batches[0], context)))


def _first(example: Inputs) -> Inputs:
    return tuple(tensor[:1] for tensor in example)


def chosen(module: nn.Module, layers: Sequence[str], which: str, example: Inputs, said: Mapping[str, Any]) -> list[str]:
    """Those of `layers`, in call order, that shift. Raises: RefusedError for `mlp` where none is found."""
    if which == "none":
        return []
    inner = list(layers[1:-1])
    if which == "all":
        return inner
    try:
        blocks = examine(module, _first(example), said).blocks
    except RefusedError:
        if which == "mlp":
            raise
        return inner
    found = {path for block in blocks if block.mlp for path in (block.mlp.up, block.mlp.down, block.mlp.gate)}
    if not found and which == "mlp":
        raise RefusedError("the network has no MLP whose layers could shift; say layers=all for all but its ends")
    return [path for path in layers if path in found] or inner


def rewrite(model: Model, decision: Json) -> Model:
    """The model with layers that round to shifts, to 8 bits where the others are integers, and attention by signs."""
    said = cast("dict[str, Any]", decision)
    grids, params = read(said["grids"]), Params(**said["params"])
    attentions = [Attention(**each) for each in said["attentions"]]

    def change(module: nn.Module) -> nn.Module:
        mixed = params.experts == "mixture"
        return attend(shifting(module, grids, said["shifts"], params.train, mixed), attentions, params.attention)

    return rewritten(model, decision, "shiftadd", change)


def shifting(
    module: nn.Module, grids: Grids, shifts: Sequence[str], learns: str = "weights", mixed: bool = False
) -> nn.Module:
    """Replace layers in place: those in `shifts` by layers that shift, or by mixtures where they are linear."""

    def make(path: str, layer: nn.Module) -> nn.Module:
        weights, inputs = grids[path]
        if path not in shifts:
            return QuantizedLayer(layer, weights, inputs)
        if mixed and isinstance(layer, nn.Linear):
            return mixture_of(layer, QuantizedLayer(layer, weights, inputs), KINDS[learns])
        return KINDS[learns](layer, inputs)

    # Routers start alike wherever they are made.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return replaced(module, grids, make)


def train_shifts(model: Model, decision: Json, context: Context) -> Model:
    """The model after training. Raises: RefusedError without a training split, unless there is no training."""
    said = cast("dict[str, Any]", decision)
    params = Params(**said["params"])

    def objective(usual: Objective) -> Objective:
        return balanced(usual, said["latencies"], params.balance) if said["latencies"] else usual

    return trained(
        model, "shiftadd", params, context, settings=settings, notes=_notes, groups=groups, objective=objective
    )


def settings(params: Params) -> Training:
    """The settings of the training."""
    rate = params.rate or RATES[params.train]
    return Training(epochs=params.epochs, batch=params.batch, rate=rate, weight_decay=DECAY)


def groups(module: nn.Module) -> list[dict[str, Any]]:
    """Powers, signs and routers apart: they learn faster, and nothing draws them to 0, where a weight is one step."""
    layers = [each for each in module.modules() if isinstance(each, PowerLayer)]
    powers = [parameter for layer in layers for parameter in (layer.shift, layer.sign)]
    own = [*powers, *(parameter for each in mixtures(module) for parameter in each.router.parameters())]
    rest = [
        {**group, "params": [each for each in group["params"] if all(each is not other for other in own)]}
        for group in decayed_and_not(module, DECAY)
    ]
    mine = {"params": own, "weight_decay": 0.0, "lr": FASTER}
    return [group for group in (*rest, mine) if group["params"]]


def _notes(module: nn.Module, how: str) -> str:
    layers = [each for each in module.modules() if isinstance(each, QuantizedLayer)]
    shifts = [each for each in layers if isinstance(each, ShiftLayer)]
    attentions = [each for each in module.modules() if isinstance(each, SignAttention)]
    with torch.no_grad():
        zeros = sum(int((each.rounded() == 0).sum()) for each in shifts)
    weights = sum(each.weight.numel() for each in shifts)
    done = [f"{len(shifts)} layers shift, {len(layers) - len(shifts)} others are int8"]
    if weights:
        done.append(f"{weights} weights of 4 bits, {100 * zeros / weights:.0f} % of them 0")
    if mixed := mixtures(module):
        share = sum(each.share for each in mixed) / len(mixed)
        done.append(f"{len(mixed)} mixtures, in which {100 * share:.0f} % of the tokens shift")
    if attentions:
        done.append(f"{len(attentions)} attentions by signs ({attentions[0].form})")
    return "; ".join((*done, how))
