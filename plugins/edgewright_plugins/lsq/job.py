"""What `lsq` does: chooses the grids, puts them into the network, and trains weights and steps together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from torch import nn

from edgewright.errors import RefusedError
from edgewright.protocols import Context
from edgewright.torchkit.fakequant import QuantizedLayer
from edgewright.torchkit.fakequant_prepare import layers_of, prepare, usual_grids
from edgewright.torchkit.training import Training
from edgewright.types import Json, Model
from edgewright_plugins.lsq import Params
from edgewright_plugins.rounded_training import listed, module_of, read, rewritten, seen, trained

RATES = {"sgd": 1e-2, "adamw": 2e-4}
DECAYS = {"sgd": 1e-4, "adamw": 1e-2}


def decide(model: Model, params: Params, context: Context) -> Json:
    """Per layer its grids, and the settings of the training. Raises: RefusedError when no layer can be rounded."""
    layers = layers_of(module_of(model), seen(model, context))
    if not layers:
        raise RefusedError(f"{model.name} has no convolution and no linear layer that ran; lsq has nothing to round")
    grids = usual_grids(layers, params.bits, params.activations, edges=params.edges)
    return cast("Json", {"params": asdict(params), "grids": listed(grids)})


def rewrite(model: Model, decision: Json) -> Model:
    """The model with rounding layers in the places of the decision's."""
    grids = read(cast("dict[str, Any]", decision)["grids"])
    return rewritten(model, decision, "lsq", lambda module: prepare(module, grids))


def train_steps(model: Model, decision: Json, context: Context) -> Model:
    """The model after training. Raises: RefusedError without a training split, unless there is no training."""
    params = Params(**cast("dict[str, Any]", decision)["params"])

    def notes(module: nn.Module, how: str) -> str:
        layers = sum(isinstance(each, QuantizedLayer) for each in module.modules())
        bits = f"weights of {params.bits} bits, inputs of {params.activations}, {params.edges} at the ends"
        return f"{layers} layers: {bits}; {how}"

    return trained(model, "lsq", params, context, settings=settings, notes=notes)


def settings(params: Params) -> Training:
    """The settings of the training."""
    return Training(
        epochs=params.epochs,
        batch=params.batch,
        optimizer=params.optimizer,
        rate=params.rate or RATES[params.optimizer],
        weight_decay=DECAYS[params.optimizer],
    )
