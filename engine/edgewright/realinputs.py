"""Real inputs for a bundle that is there already: its task opened, examples drawn, a copy that is timed on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.arrays import npz_bytes
from edgewright.bundle import Bundle, Contents, write_bundle
from edgewright.task import Task, load_task
from edgewright.types import Arrays, Signature

LEAST = 8
"""So many examples are drawn however large they are."""


@dataclass(frozen=True, eq=False)
class RealInputs:
    """Examples, of which `split` of which task, and a copy of the bundle that carries them."""

    task: str
    split: str
    inputs: Arrays
    bundle: Bundle

    @property
    def count(self) -> int:
        """How many examples they are."""
        return len(next(iter(self.inputs.values())))


def open_task(bundle: Bundle, source: str, seed: int | None = None) -> Task:
    """The task at `source`, known to fit the bundle; split by the seed that the bundle was made with, or by `seed`.

    Raises: TaskError.
    """
    if seed is None:
        seed = int(bundle.extra.get("recipe", {}).get("seed", 0))
    return load_task(source, bundle.signature, seed).checked(bundle.signature)


def draw_inputs(task: Task, split: str, count: int, most_bytes: int | None = None) -> Arrays:
    """`count` examples of a split in a random order that is always the same, joined on the example axis.

    There are fewer where the split has no more, or more would not fit into `most_bytes`. They are drawn because
    folders of images come class by class, and some classes are easier than others.
    """
    examples, indices = task.splits[split]
    order = [int(indices[i]) for i in np.random.default_rng(task.seed).permutation(len(indices))]
    if most_bytes is not None:
        one, _ = examples.take(order[:1])
        count = min(count, max(LEAST, most_bytes // max(1, sum(array.nbytes for array in one.values()))))
    return examples.take(order[:count])[0]


def with_inputs(bundle: Bundle, inputs: Arrays, folder: Path) -> Bundle:
    """A copy of the bundle in `folder` whose example is the first of `inputs`, and whose stream is all of them.

    Raises: OutputError.
    """
    files = {
        "example/inputs.npz": npz_bytes(rows_from(inputs, 0, rows_of_run(bundle.signature))),
        "example/stream.npz": npz_bytes(inputs),
    }
    contents = Contents(
        name=bundle.name,
        signature=bundle.signature,
        variants=bundle.variants,
        artifacts=bundle.artifacts,
        plan=bundle.plan,
        files=files,
        extra=bundle.extra,
    )
    return write_bundle(folder / "bundle", contents)


def rows_from(inputs: Arrays, start: int, rows: int) -> Arrays:
    """So many examples from one on, and from the first again after the last."""
    total = len(next(iter(inputs.values())))
    where = np.arange(start, start + rows) % total
    return {name: array[where] for name, array in inputs.items()}


def rows_of_run(signature: Signature) -> int:
    """How many examples one run takes: the first size of the first input, 1 where it is free."""
    first = signature.fed[0].shape[0] if signature.fed and signature.fed[0].shape else 1
    return first if isinstance(first, int) else 1
