"""Runs a net with exits over a split, for the temperatures of its gates and the accuracy of its exits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgewright.task import Task
from edgewright.torchkit.data import labels_tensor
from edgewright.torchkit.losses import logits_of
from edgewright_plugins.early_exit.split import Chain
from edgewright_plugins.early_exit.temperature import temperature_of

TOGETHER = 64


@dataclass(frozen=True, eq=False)
class Answers:
    """What every exit said to a split, the final answer last, [n, classes] each; and the labels, None without."""

    exits: tuple[Tensor, ...]
    labels: Any


def answers_on(chain: Chain, task: Task, names: Sequence[str], split: str) -> Answers:
    """The answers to all of a split, on the GPU where there is one; the chain ends on the CPU."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    chain.to(place).eval()
    parts: list[list[Tensor]] = []
    for batch in task.batches(split, TOGETHER):
        inputs = [torch.from_numpy(batch.inputs[name]).to(place) for name in names]
        with torch.no_grad():
            parts.append([tensor.cpu() for tensor in chain.answers(chain.net(*inputs))])
    chain.cpu()
    return Answers(tuple(torch.cat(each) for each in zip(*parts, strict=True)), task.labels(split))


def temperatures(answers: Answers) -> list[float]:
    """One for each exit but the last; without labels that are classes, against the final answer's probabilities."""
    labels = None if answers.labels is None else labels_tensor(answers.labels)
    wanted: Tensor = torch.softmax(logits_of(answers.exits[-1]), 1)
    if isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.ndim == 1:
        wanted = labels
    return [temperature_of(logits_of(logits), wanted) for logits in answers.exits[:-1]]


def scores(answers: Answers, labels: Any, task: Task, output: str) -> list[float]:
    """The task's metric of every exit, the final answer last, if everyone left there; `output` is the model's."""
    return [task.judge({output: logits.numpy()}, labels) for logits in answers.exits]
