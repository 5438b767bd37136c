"""What a training run makes small: the task's loss, and by default the distance to the original's outputs as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.errors import TaskError
from edgewright.torchkit.data import Batch

Loss = Callable[[Any, Tensor], Tensor]
"""(what the module returns, labels) -> a scalar."""

Objective = Callable[[nn.Module, Batch], Tensor]
"""(the module in training, a batch) -> the scalar to make small. Methods with losses of their own write one."""


def outputs_of(returned: Any) -> list[Tensor]:
    """The tensors that a module returned, in order: a tensor, a tuple, a mapping or a transformers output."""
    if isinstance(returned, Tensor):
        return [returned]
    values = returned.values() if hasattr(returned, "values") else returned
    return [tensor for value in values if value is not None for tensor in outputs_of(value)]


def cross_entropy(smoothing: float = 0.0) -> Loss:
    """Cross entropy of the first output [n, classes] with integer labels [n]."""

    def loss(returned: Any, labels: Tensor) -> Tensor:
        logits = outputs_of(returned)[0].float()
        if labels.is_floating_point() or logits.ndim != labels.ndim + 1:
            raise TaskError(
                f"there is no built-in loss for outputs of shape {list(logits.shape)} and labels of shape "
                f"{list(labels.shape)}; give the task a loss: a function of (outputs, labels)"
            )
        return functional.cross_entropy(logits.movedim(-1, 1), labels, label_smoothing=smoothing)

    return loss


def supervised(loss: Loss | None = None) -> Objective:
    """The task's loss alone; cross entropy when it has none."""
    loss = loss or cross_entropy()

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise TaskError("the training examples have no labels; give labels, or train with distillation alone")
        return loss(module(*batch.inputs), batch.labels)

    return objective


def distilled(
    teacher: nn.Module, loss: Loss | None = None, *, weight: float = 0.5, temperature: float = 2.0
) -> Objective:
    """`1 - weight` of the task's loss and `weight` of the distance to the teacher's outputs.

    Logits [n, classes] are compared by T^2 KL(teacher || student) at temperature T (Hinton, Vinyals and Dean 2015,
    section 2), any other output by its squared error over the teacher's energy. Examples without labels, or
    `weight` 1, leave the distance alone.
    """
    loss = loss or cross_entropy()
    teacher.eval().requires_grad_(False)

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            wanted = outputs_of(teacher(*batch.inputs))
        returned = module(*batch.inputs)
        pairs = list(zip(outputs_of(returned), wanted, strict=True))
        distance = torch.stack([_distance(found, want, temperature) for found, want in pairs]).mean()
        if batch.labels is None or weight >= 1:
            return distance
        return (1 - weight) * loss(returned, batch.labels) + weight * distance

    return objective


def _distance(found: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    found, wanted = found.float(), wanted.float()
    if found.ndim != 2 or found.shape[1] < 2:
        return functional.mse_loss(found, wanted) / wanted.square().mean().clamp_min(1e-12)
    student = functional.log_softmax(found / temperature, dim=1)
    target = functional.log_softmax(wanted / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, target, reduction="batchmean", log_target=True)
