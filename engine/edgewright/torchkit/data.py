"""What a training run reads: a task's examples as tensors, batch by batch, the same ones after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.task import Task

Inputs = tuple[Tensor, ...]

Augment = Callable[[Inputs, torch.Generator], Inputs]
"""Changes a batch of inputs at random; every draw comes from the generator, so that a run can be repeated."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's examples: the module's inputs by position, and the labels as a tensor (None without)."""

    inputs: Inputs
    labels: Tensor | None


class Data(Protocol):
    """Examples to train on."""

    def __len__(self) -> int:
        """How many batches an epoch has."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch; the same number gives the same ones."""
        ...


@dataclass(frozen=True, eq=False)
class TaskData:
    """A split of a task. `names` are the inputs in the order in which the module takes them."""

    task: Task
    names: Sequence[str]
    batch: int
    split: str = "training"
    augment: Augment | None = None

    def __len__(self) -> int:
        return math.ceil(self.task.size(self.split) / self.batch)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The split's batches; training ones are shuffled, and augmented by (seed, epoch)."""
        generator = torch.Generator().manual_seed(hash((self.task.seed, number)) & 0x7FFFFFFF)
        for each in self.task.batches(self.split, self.batch, epoch=number):
            inputs = tuple(torch.from_numpy(each.inputs[name]) for name in self.names)
            if self.augment is not None:
                inputs = self.augment(inputs, generator)
            yield Batch(inputs, labels_tensor(each.labels))


def labels_tensor(labels: Any) -> Tensor | None:
    """Labels as torch takes them: integers as int64, numbers as float32, None as it is."""
    if labels is None:
        return None
    tensor = torch.as_tensor(labels)
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def flip_and_shift(pixels: int = 4) -> Augment:
    """Mirror half of the images, and shift each by up to `pixels` (zeros come in). Inputs: one [n, c, h, w]."""

    def augment(inputs: Inputs, generator: torch.Generator) -> Inputs:
        images, *others = inputs
        n, _, height, width = images.shape
        flipped = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
        images = torch.where(flipped, images.flip(3), images)
        padded = functional.pad(images, (pixels, pixels, pixels, pixels))
        rows = torch.randint(0, 2 * pixels + 1, (n, 1), generator=generator) + torch.arange(height)
        columns = torch.randint(0, 2 * pixels + 1, (n, 1), generator=generator) + torch.arange(width)
        picked = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return (picked.permute(0, 3, 1, 2).contiguous(), *others)

    return augment
