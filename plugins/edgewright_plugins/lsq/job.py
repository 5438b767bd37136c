"""What `lsq` does: chooses the grids, puts them into the network, and trains weights and steps together."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from edgewright.errors import RefusedError
from edgewright.grids import Grid
from edgewright.protocols import Context
from edgewright.torchkit.data import Inputs, TaskData
from edgewright.torchkit.fakequant import QuantizedLayer
from edgewright.torchkit.fakequant_prepare import (
    Grids,
    calibrate,
    layers_of,
    observe,
    passing,
    prepare,
    reestimate,
    usual_grids,
)
from edgewright.torchkit.fit import Fitted
from edgewright.torchkit.losses import distilled
from edgewright.torchkit.train import train
from edgewright.torchkit.training import Training
from edgewright.types import Json, Model, Step, TorchGraph
from edgewright_plugins.lsq import Params

EXAMPLES = 256
"""How many examples of the calibration split set the steps that inputs start with."""
TOGETHER = 64
REESTIMATE = 40
"""Over how many batches batch norms average at the end."""
RATES = {"sgd": 1e-2, "adamw": 2e-4}
DECAYS = {"sgd": 1e-4, "adamw": 1e-2}


def decide(model: Model, params: Params, context: Context) -> Json:
    """Per layer its grids, and the settings of the training. Raises: RefusedError when no layer can be rounded."""
    layers = layers_of(_module(model), seen(model, context))
    if not layers:
        raise RefusedError(f"{model.name} has no convolution and no linear layer that ran; lsq has nothing to round")
    grids = usual_grids(layers, params.bits, params.activations, edges=params.edges)
    return cast("Json", {"params": asdict(params), "grids": {path: _listed(pair) for path, pair in grids.items()}})


def _listed(grids: tuple[Grid, Grid | None]) -> list[Any]:
    return [grid and asdict(grid) for grid in grids]


def rewrite(model: Model, decision: Json) -> Model:
    """The model with rounding layers in the places of the decision's."""
    said = cast("dict[str, Any]", decision)
    grids: Grids = {path: (Grid(**pair[0]), pair[1] and Grid(**pair[1])) for path, pair in said["grids"].items()}
    module = prepare(copy.deepcopy(_module(model)), grids)
    text = f"lsq {model.digest} {json.dumps(decision, sort_keys=True)}"
    return model.with_graph(TorchGraph(module, hashlib.sha256(text.encode()).hexdigest()))


def train_steps(model: Model, decision: Json, context: Context) -> Model:
    """The model after training; batch norms get the statistics of the final weights.

    Raises: RefusedError without a training split.
    """
    params = Params(**cast("dict[str, Any]", decision)["params"])
    module = copy.deepcopy(_module(model))
    teacher = teacher_of(module, context)
    calibrate(module, seen(model, context))
    task = context.task
    objective = distilled(teacher, task.loss if task else None, weight=params.distill)
    fitted = train(module, teacher, context, settings(params), objective=objective)
    reestimate(module, last_look(model, context, params.batch))
    observe(module, seen(model, context))
    step = Step("lsq", plugin="edgewright", params=asdict(params), notes=_notes(module, params, fitted))
    return model.with_graph(TorchGraph(module, model.digest)).after(step)


def settings(params: Params) -> Training:
    """The settings of the training."""
    return Training(
        epochs=params.epochs,
        batch=params.batch,
        optimizer=params.optimizer,
        rate=params.rate or RATES[params.optimizer],
        weight_decay=DECAYS[params.optimizer],
    )


def teacher_of(module: nn.Module, context: Context) -> nn.Module:
    """The original where it is a torch module, else this module as it is before it rounds and trains."""
    graph = context.original.graph
    if isinstance(graph, TorchGraph):
        return copy.deepcopy(graph.module)
    with passing(module):
        return copy.deepcopy(module)


def seen(model: Model, context: Context) -> list[Inputs]:
    """Examples of the calibration split, some together."""
    names = [spec.name for spec in model.signature.inputs]
    feeds = list(context.feed(model, "calibration", EXAMPLES))
    return [
        tuple(torch.from_numpy(np.concatenate([feed[name] for feed in some])) for name in names)
        for some in (feeds[start : start + TOGETHER] for start in range(0, len(feeds), TOGETHER))
    ]


def last_look(model: Model, context: Context, batch: int) -> Iterable[Inputs]:
    """The batches over which batch norms average at the end; none without a task."""
    if context.task is None:
        return []
    names = [spec.name for spec in model.signature.inputs]
    batches = TaskData(context.task, names, batch).epoch(0)
    return (each.inputs for each in itertools.islice(batches, REESTIMATE))


def _notes(module: nn.Module, params: Params, fitted: Fitted) -> tuple[str, ...]:
    layers = sum(isinstance(each, QuantizedLayer) for each in module.modules())
    bits = f"weights of {params.bits} bits, inputs of {params.activations}, {params.edges} at the ends"
    losses = fitted.losses
    trained = f"loss {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last" if losses else "own loop"
    return (f"{layers} layers: {bits}; {trained}",)


def _module(model: Model) -> nn.Module:
    return cast("TorchGraph", model.graph).module
