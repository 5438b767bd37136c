"""What a training run reads: a task's examples as tensors, batch by batch, the same ones after a kill."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgewright.task import Task

Inputs = tuple[Tensor, ...]

Augment = Callable[[Inputs, torch.Generator], Inputs]
"""Changes a batch of inputs at random; every draw comes from the generator, so that a run can be repeated."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's examples: the module's inputs by position, and the labels: a tensor where they are numbers."""

    inputs: Inputs
    labels: Any


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
    """A split of a task. `names` are the inputs in the order in which the module takes them.

    A training split leaves out its last batch where that is not full, other examples in each epoch: batch norm
    learns nothing from a few examples, and fails on a single one.
    """

    task: Task
    names: Sequence[str]
    batch: int
    split: str = "training"
    augment: Augment | None = None

    def __len__(self) -> int:
        whole, rest = divmod(self.task.size(self.split), self.batch)
        return whole if whole and self.split == "training" else whole + bool(rest)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The split's batches; order (of training) and augmentation follow from the task's seed and `number`."""
        generator = torch.Generator().manual_seed(self.task.seed * 1_000_003 + number)
        batches = self.task.batches(self.split, self.batch, epoch=number)
        for each in itertools.islice(batches, len(self)):
            inputs = tuple(torch.from_numpy(each.inputs[name]) for name in self.names)
            if self.augment is not None:
                inputs = self.augment(inputs, generator)
            yield Batch(inputs, labels_tensor(each.labels))


def labels_tensor(labels: Any) -> Any:
    """Labels as torch takes them: integers as int64, numbers as float32; whatever is no array of numbers as it is."""
    try:
        array = np.asarray(labels)
    except ValueError:
        return labels
    if array.dtype.kind not in "biuf":
        return labels
    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


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
