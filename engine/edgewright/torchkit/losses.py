"""What a training run makes small: the task's loss, and by default the distance to the original's outputs as well."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.errors import InputError, TaskError
from edgewright.torchkit.data import Batch

Loss = Callable[[Any, Any], Tensor]
"""(what the module returns, labels) -> a scalar."""

Objective = Callable[[nn.Module, Batch], Tensor]
"""(the module in training, a batch) -> the scalar to make small. Methods with losses of their own write one."""


def outputs_of(returned: Any) -> list[Tensor]:
    """The tensors that a module returned, in order: a tensor, a tuple, a mapping or a transformers output.

    Raises: TaskError for anything else.
    """
    if isinstance(returned, Tensor):
        return [returned]
    values = returned.values() if isinstance(returned, Mapping) else returned
    if not isinstance(returned, (Mapping, tuple, list)):
        raise TaskError(f"the module returns {type(returned).__name__}; it must return tensors, or tuples or dicts")
    return [tensor for value in values if value is not None for tensor in outputs_of(value)]


def cross_entropy(smoothing: float = 0.0) -> Loss:
    """Cross entropy of the first output with integer labels.

    The output is logits (or probabilities, when the network ends in a softmax) [n, classes], [n, t, classes] or
    [n, classes, h, w]; labels have its shape without the classes, and -100 leaves an entry out.
    """

    def loss(returned: Any, labels: Any) -> Tensor:
        outputs = outputs_of(returned)[0]
        axis = _class_axis(outputs, labels)
        if axis is None:
            raise TaskError(
                f"there is no built-in loss for an output of shape {list(outputs.shape)} and labels "
                f"{_described(labels)}; give the task a loss: a function of (outputs, labels)"
            )
        if int(labels.max()) >= outputs.shape[axis]:
            raise TaskError(
                f"a training label is {int(labels.max())}, but the output has {outputs.shape[axis]} classes, "
                f"which labels count from 0; mend the labels, or give the task a loss"
            )
        logits = logits_of(outputs.float().movedim(axis, -1)).movedim(-1, 1)
        return functional.cross_entropy(logits, labels, label_smoothing=smoothing)

    return loss


def logits_of(scores: Tensor) -> Tensor:
    """`scores` [..., classes], or their logarithms when they are probabilities already."""
    return scores.clamp_min(1e-8).log() if _are_probabilities(scores) else scores


def supervised(loss: Loss | None = None) -> Objective:
    """The task's loss alone; cross entropy when it has none."""
    loss = loss or cross_entropy()

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise TaskError("the training examples have no labels; give labels, or train with distillation alone")
        return judged(loss, module(*batch.inputs), batch.labels)

    return objective


def distilled(
    teacher: nn.Module, loss: Loss | None = None, *, weight: float = 0.5, temperature: float = 2.0
) -> Objective:
    """`1 - weight` of the task's loss and `weight` of the distance to the outputs of the teacher as it is now.

    Classes (the first output, where labels number its columns, and probabilities) are compared by
    T^2 KL(teacher || student) at temperature T (Hinton, Vinyals and Dean 2015, section 2), any other output by
    its squared error over the teacher's energy. Examples without labels, or `weight` 1, leave the distance alone.
    """
    loss = loss or cross_entropy()
    teacher = copy.deepcopy(teacher).eval()

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            wanted = outputs_of(teacher.to(batch.inputs[0].device)(*batch.inputs))
        returned = module(*batch.inputs)
        distance = _distances(outputs_of(returned), wanted, batch.labels, temperature)
        if batch.labels is None or weight >= 1:
            return distance
        return (1 - weight) * judged(loss, returned, batch.labels) + weight * distance

    return objective


def _distances(found: list[Tensor], wanted: list[Tensor], labels: Any, temperature: float) -> Tensor:
    shapes = [[list(tensor.shape) for tensor in tensors] for tensors in (found, wanted)]
    if shapes[0] != shapes[1]:
        raise TaskError(f"the outputs to train have the shapes {shapes[0]}, but the original's have {shapes[1]}")
    distances: list[Tensor] = []
    for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if not other.is_floating_point():
            continue
        numbered = index == 0 and other.ndim == 2 and other.shape[1] > 1 and _class_axis(other, labels) is not None
        if numbered or _are_probabilities(other):
            distances.append(divergence(logits_of(one.float()), logits_of(other.float()), temperature))
        else:
            distances.append(functional.mse_loss(one.float(), other.float()) / _energy(other))
    return torch.stack(distances).mean()


def divergence(found: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """T^2 KL(wanted || found) at temperature T, the mean over rows; both are logits [..., classes]."""
    student, target = (
        functional.log_softmax(logits / temperature, dim=-1).flatten(0, -2) for logits in (found, wanted)
    )
    return temperature**2 * functional.kl_div(student, target, reduction="batchmean", log_target=True)


def _energy(tensor: Tensor) -> Tensor:
    return tensor.float().square().mean().clamp_min(1e-12)


def _are_probabilities(scores: Tensor) -> bool:
    if scores.ndim < 2 or scores.shape[-1] < 2:
        return False
    scores = scores.detach().float()
    return bool((scores >= 0).all()) and bool(((scores.sum(-1) - 1).abs() < 0.01).all())


def _class_axis(outputs: Tensor, labels: Any) -> int | None:
    """Which axis of the outputs integer labels number; None when they number none."""
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        return None
    for axis in (1, -1) if outputs.ndim == 4 else (-1, 1):
        if outputs.ndim >= 2 and labels.shape == outputs.movedim(axis, -1).shape[:-1]:
            return axis
    return None


def judged(loss: Loss, returned: Any, labels: Any) -> Tensor:
    """A task's loss of what the module returned. Raises: TaskError that says what the loss was given."""
    try:
        return loss(returned, labels)
    except InputError:
        raise
    except Exception as cause:
        raise TaskError(
            f"the task's loss failed on labels {_described(labels)}: {type(cause).__name__}: {cause}"
        ) from cause


def _described(labels: Any) -> str:
    if isinstance(labels, Tensor):
        return f"{str(labels.dtype).removeprefix('torch.')} {list(labels.shape)}"
    return f"of type {type(labels).__name__}"
