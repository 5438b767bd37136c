"""Indexable data: in memory, or whatever else gives rows of inputs and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgewright.errors import TaskError
from edgewright.types import Array, Arrays


class Examples(Protocol):
    """Indexable data. An example is one row of every input."""

    @property
    def digest(self) -> str:
        """Changes when any example or label does."""
        ...

    @property
    def labelled(self) -> bool: ...
    def __len__(self) -> int: ...
    def take(self, indices: Sequence[int]) -> tuple[Arrays, Any]:
        """The inputs by name, stacked, and the labels (None without labels)."""
        ...

    def labels_at(self, indices: Sequence[int]) -> Any:
        """The labels alone, without reading inputs."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayExamples:
    """Examples that lie in memory (or in a memory map)."""

    inputs: Arrays
    labels: Any = None

    @property
    def digest(self) -> str:
        """The sha-256 of every array, in order of name."""
        sha = hashlib.sha256()
        for name in sorted(self.inputs):
            sha.update(name.encode() + array_digest(self.inputs[name]).encode())
        if self.labels is not None:
            sha.update(array_digest(np.asarray(self.labels)).encode())
        return sha.hexdigest()

    @property
    def labelled(self) -> bool:
        """Whether there is a label for each example."""
        return self.labels is not None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, indices: Sequence[int]) -> tuple[Arrays, Any]:
        """The rows at `indices`."""
        rows = np.asarray(indices, dtype=np.int64)
        inputs = {name: np.ascontiguousarray(array[rows]) for name, array in self.inputs.items()}
        return inputs, self.labels_at(indices)

    def labels_at(self, indices: Sequence[int]) -> Any:
        """The labels of the rows at `indices`."""
        return None if self.labels is None else np.asarray(self.labels)[np.asarray(indices, dtype=np.int64)]


@dataclass(frozen=True, eq=False)
class Renamed:
    """Examples whose only input goes by another name."""

    examples: Examples
    old: str
    new: str

    @property
    def digest(self) -> str:
        return self.examples.digest

    @property
    def labelled(self) -> bool:
        return self.examples.labelled

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, indices: Sequence[int]) -> tuple[Arrays, Any]:
        inputs, labels = self.examples.take(indices)
        return {self.new: inputs[self.old]}, labels

    def labels_at(self, indices: Sequence[int]) -> Any:
        return self.examples.labels_at(indices)


def check_arrays(name: str, inputs: Arrays, labels: Any) -> None:
    """Raises: TaskError when lengths differ, there is nothing, or a value is not a number."""
    if not inputs:
        raise TaskError(f"task {name!r} has no inputs")
    lengths = {key: len(array) for key, array in inputs.items()}
    if labels is not None:
        lengths["labels"] = len(labels)
    if len(set(lengths.values())) != 1:
        found = ", ".join(f"{key} {n}" for key, n in lengths.items())
        raise TaskError(f"task {name!r} has arrays of different length: {found}")
    for key, array in inputs.items():
        if array.dtype.kind == "O":
            raise TaskError(f"task {name!r}: input {key!r} holds Python objects; give plain numbers")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0]
            raise TaskError(f"task {name!r}: input {key!r} is NaN or infinite at {where.tolist()}; clean the data")


def array_digest(array: Array) -> str:
    """The sha-256 of dtype, shape and values."""
    sha = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    if array.dtype.hasobject:
        sha.update(repr(array.tolist()).encode())
    else:
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
