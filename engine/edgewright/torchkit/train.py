"""What a method calls to train: the task's data, augmentation, loss and loop, and the original as the teacher."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from edgewright.errors import EdgewrightError, InputError, RefusedError, TaskError
from edgewright.protocols import Context
from edgewright.task import Task
from edgewright.torchkit.data import TaskData
from edgewright.torchkit.fit import Fitted, fit
from edgewright.torchkit.losses import Objective, distilled, supervised
from edgewright.torchkit.training import Groups, Training


def train(
    module: nn.Module,
    teacher: nn.Module | None,
    context: Context,
    training: Training,
    *,
    objective: Objective | None = None,
    groups: Groups | None = None,
    part: str = "training",
) -> Fitted:
    """Train `module` in place on the task's training split, on the GPU where there is one.

    A killed run goes on where it was when it is called again. Where the task has a loop of its own, that loop
    trains; what it keeps across a kill is its own affair.

    Args:
        module: takes the model's inputs by position; ends on the CPU, in evaluation mode.
        teacher: whose outputs count for half of the loss, and for all of it without labels; None for labels alone.
        context: the step's; its seed replaces the one in `training`.
        training: the settings.
        objective: what to make small instead of the task's loss and the distance to the teacher.
        groups: parameter groups, as `fit` takes them.
        part: names this training, where a step trains more than once.

    Raises: RefusedError without training examples, or for recurrent models; TaskError when the task's own loss
        or loop fails; EdgewrightError when the training breaks down.
    """
    task = _task_of(context)
    training = replace(training, seed=context.seed)
    names = [spec.name for spec in context.original.signature.inputs]
    data = TaskData(replace(task, seed=context.seed), names, training.batch, augment=task.augment)
    if objective is None:
        objective = supervised(task.loss) if teacher is None else distilled(teacher, task.loss)
    folder = context.scratch / part
    if task.loop is not None:
        folder.mkdir(parents=True, exist_ok=True)
        return _own_loop(task.name, module, partial(task.loop, module, data, training, objective, folder))
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return fit(module, data, training, objective, folder=folder, progress=context.progress, groups=groups)
    finally:
        module.cpu()


def _task_of(context: Context) -> Task:
    task = context.task
    if task is None or task.size("training") == 0:
        raise RefusedError("there is no training split to train on; give x_train, y_train, x_test, y_test, or a task")
    if context.original.signature.state:
        raise RefusedError(f"{context.original.name} is recurrent, and only networks without states are trained")
    return task


def _own_loop(task: str, module: nn.Module, loop: Callable[[], Any]) -> Fitted:
    started = time.monotonic()
    try:
        loop()
    except InputError:
        raise
    except Exception as cause:
        raise TaskError(f"the training loop of task {task!r} failed: {type(cause).__name__}: {cause}") from cause
    if not all(bool(tensor.isfinite().all()) for tensor in module.parameters()):
        raise EdgewrightError(f"the training loop of task {task!r} left weights that are not finite")
    module.cpu().eval()
    return Fitted((), 0, time.monotonic() - started, "own loop")
