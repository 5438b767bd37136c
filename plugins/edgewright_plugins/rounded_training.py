"""The frame of methods that train a whole network whose layers round: lsq and shiftadd."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import nn

from edgewright.grids import Grid
from edgewright.params import TrainingParams
from edgewright.protocols import Context
from edgewright.torchkit.data import Inputs, TaskData
from edgewright.torchkit.fakequant_prepare import Grids, calibrate, observe, passing, reestimate
from edgewright.torchkit.fit import Fitted
from edgewright.torchkit.losses import Objective, distilled
from edgewright.torchkit.train import train
from edgewright.torchkit.training import Groups, Training
from edgewright.types import Json, Model, Step, TorchGraph

EXAMPLES = 256
"""How many examples of the calibration split set the steps that inputs start with."""
TOGETHER = 64
REESTIMATE = 40
"""Over how many batches batch norms average at the end."""

P = TypeVar("P", bound=TrainingParams)


def listed(grids: Grids) -> dict[str, list[Any]]:
    """Grids as a decision keeps them."""
    return {path: [grid and asdict(grid) for grid in pair] for path, pair in grids.items()}


def read(grids: dict[str, Any]) -> Grids:
    """Grids out of a decision."""
    return {path: (Grid(**pair[0]), pair[1] and Grid(**pair[1])) for path, pair in grids.items()}


def rewritten(model: Model, decision: Json, name: str, change: Callable[[nn.Module], nn.Module]) -> Model:
    """The model with a copy of its module that `change` has changed as the decision of the method `name` says."""
    text = f"{name} {model.digest} {json.dumps(decision, sort_keys=True)}"
    return model.with_graph(
        TorchGraph(change(copy.deepcopy(module_of(model))), hashlib.sha256(text.encode()).hexdigest())
    )


def trained(
    model: Model,
    name: str,
    params: P,
    context: Context,
    *,
    settings: Callable[[P], Training],
    notes: Callable[[nn.Module, str], str],
    groups: Groups | None = None,
    objective: Callable[[Objective], Objective] | None = None,
) -> Model:
    """The model after calibration and training; batch norms get the statistics of the final weights.

    Args:
        model: whose layers round already.
        name: the method's.
        params: what it was told; 0 epochs calibrate alone.
        context: the step's.
        settings: those of the trainer, from the parameters.
        notes: a sentence on the result, from the module and from how the training went.
        groups: parameter groups, as `fit` takes them.
        objective: makes the objective of the usual one: the task's loss with distillation from the original.

    Raises: RefusedError without a training split, unless there is no training.
    """
    module = copy.deepcopy(module_of(model))
    teacher = teacher_of(module, context)
    calibrate(module, seen(model, context))
    fitted = None
    if params.epochs:
        usual = distilled(teacher, context.task.loss if context.task else None, weight=params.distill)
        made = objective(usual) if objective else usual
        fitted = train(module, teacher, context, settings(params), objective=made, groups=groups)
    reestimate(module, last_look(model, context, params.batch))
    observe(module, seen(model, context))
    step = Step(name, plugin="edgewright", params=asdict(params), notes=(notes(module, _how(fitted)),))
    return model.with_graph(TorchGraph(module, model.digest)).after(step)


def _how(fitted: Fitted | None) -> str:
    if fitted is None:
        return "rounded, not trained"
    losses = fitted.losses
    return f"loss {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last" if losses else "own loop"


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


def module_of(model: Model) -> nn.Module:
    """The model's module."""
    return cast("TorchGraph", model.graph).module
