"""A task: four splits of examples, and the metric that judges outputs on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from edgewright.errors import TaskError
from edgewright.task.examples import ArrayExamples, Examples, Renamed, check_arrays
from edgewright.task.metrics import AGREEMENT, TOP1, agreement, agreement_each, top1, top1_each
from edgewright.types import Array, Arrays, Metric, Signature, TensorSpec

SPLITS = ("training", "calibration", "selection", "test")

Score = Callable[[Arrays, Any], float]
"""(outputs by name joined on the example axis, labels) -> the metric's value.

Labels are whatever the examples hold; where they hold none, they are the original model's outputs.
"""

Each = Callable[[Arrays, Any], Array]
"""(outputs, labels) -> one score per example, whose mean is the metric."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some examples: exactly what the model's inputs take, their labels, and which examples they are."""

    inputs: Arrays
    labels: Any
    ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Task:
    """Data, metric and splits. `splits` maps a split's name to (examples, the indices that belong to it).

    The rest is for methods that train. `loss` is (what the module returns, labels) -> a torch scalar, cross entropy
    without. `augment` is (inputs by position, torch.Generator) -> inputs, applied to every training batch.
    `loop` trains in place of the built-in trainer: (module, data, training, objective, folder) -> anything, where
    `data.epoch(n)` gives batches, `objective(module, batch)` the scalar to make small, and `folder` outlives a kill.
    `anatomy` describes the network to methods that take it apart.

    `code` is the digest of the user's Python behind it, so that an edited metric is not taken for the old one.
    A `synthetic` task is seeded noise: it shows agreement with the original, and says nothing of accuracy.
    """

    name: str
    splits: Mapping[str, tuple[Examples, Sequence[int]]]
    metric: Metric
    score: Score
    each: Each | None = None
    preprocessing: str = ""
    loss: Callable[..., Any] | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()
    synthetic: bool = False
    code: str = ""
    hidden: frozenset[str] = field(default_factory=frozenset)
    augment: Callable[..., Any] | None = None
    loop: Callable[..., Any] | None = None
    anatomy: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        unknown = set(self.splits) - set(SPLITS)
        if unknown:
            raise TaskError(
                f"task {self.name!r} has no split named {sorted(unknown)[0]!r}; allowed: {', '.join(SPLITS)}"
            )
        if self.metric.direction not in ("higher", "lower"):
            raise TaskError(
                f"metric {self.metric.name!r} says direction={self.metric.direction!r}; allowed: higher, lower"
            )
        _check_optional(self)

    @property
    def digest(self) -> str:
        """Changes when an example, a label, the split or the metric does."""
        sha = hashlib.sha256(f"{self.name} {self.metric} {self.code}".encode())
        for name in sorted(self.splits):
            examples, indices = self.splits[name]
            sha.update(f"{name} {examples.digest} ".encode() + np.asarray(indices, np.int64).tobytes())
        return sha.hexdigest()

    @property
    def labelled(self) -> bool:
        """Whether the split that counts has labels; without, outputs are compared with the original's."""
        return all(examples.labelled for examples, _ in self.splits.values())

    def size(self, split: str) -> int:
        """How many examples the split has; 0 when there is no such split."""
        return len(self.splits[split][1]) if split in self.splits else 0

    def without(self, split: str) -> Task:
        """The same task, in which asking for `split` is an error: what methods get to see."""
        return replace(self, hidden=self.hidden | {split})

    def batches(self, split: str, size: int = 1, *, epoch: int = 0, limit: int | None = None) -> Iterator[Batch]:
        """The examples of a split, `size` at a time; training is shuffled by (seed, epoch)."""
        if split in self.hidden:
            raise TaskError(f"the {split} split of task {self.name!r} is read by the contract only")
        if split not in self.splits:
            raise TaskError(f"task {self.name!r} has no {split} split; it has: {', '.join(self.splits)}")
        examples, indices = self.splits[split]
        order = np.asarray(indices, dtype=np.int64)
        if split == "training":
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        order = order[:limit]
        for start in range(0, len(order), size):
            chosen = [int(i) for i in order[start : start + size]]
            inputs, labels = examples.take(chosen)
            yield Batch(inputs, labels, tuple(chosen))

    def checked(self, signature: Signature) -> Task:
        """This task, once its first example is known to fit the model.

        A task that calls its only input something else than the model does is renamed to fit.
        Raises: TaskError with the shape that was expected and the one that was found.
        """
        first = next(iter(self.without("test").batches(self._first_split()))).inputs
        task = self
        if len(first) == 1 and len(signature.fed) == 1 and set(first) != {signature.fed[0].name}:
            task = self._renamed(next(iter(first)), signature.fed[0].name)
            first = {signature.fed[0].name: next(iter(first.values()))}
        for spec in signature.fed:
            if spec.name not in first:
                raise TaskError(
                    f"task {self.name!r} gives no array for the model's input {spec.name!r}; "
                    f"it gives: {', '.join(first)}"
                )
            _check_fits(self.name, spec, first[spec.name])
        return task

    def _first_split(self) -> str:
        present = [name for name in SPLITS if self.size(name) and name not in self.hidden and name != "test"]
        if not present:
            raise TaskError(f"task {self.name!r} has no examples outside its test split")
        return present[0]

    def _renamed(self, old: str, new: str) -> Task:
        splits = {name: (Renamed(examples, old, new), rows) for name, (examples, rows) in self.splits.items()}
        return replace(self, splits=splits)

    def judge(self, outputs: Arrays, labels: Any) -> float:
        """The metric of `outputs`. Raises: TaskError when the user's own function fails or gives no number."""
        try:
            value = float(self.score(outputs, labels))
        except Exception as cause:
            raise TaskError(
                f"the metric {self.metric.name!r} of task {self.name!r} failed: {type(cause).__name__}: {cause}"
            ) from cause
        if not np.isfinite(value):
            raise TaskError(f"the metric {self.metric.name!r} of task {self.name!r} gave {value}, which is no number")
        return value

    def labels(self, split: str) -> Any:
        """The labels of a whole split; None without labels."""
        examples, indices = self.splits[split]
        return examples.labels_at(indices) if examples.labelled else None

    @staticmethod
    def from_arrays(
        inputs: Arrays,
        labels: Any = None,
        *,
        metric: Metric | None = None,
        score: Score | None = None,
        each: Each | None = None,
        name: str = "task",
        training: tuple[Arrays, Any] | None = None,
        preprocessing: str = "",
        loss: Callable[..., Any] | None = None,
        augment: Callable[..., Any] | None = None,
        loop: Callable[..., Any] | None = None,
        anatomy: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Task:
        """A task over arrays.

        Without `metric` and `score`, integer labels are classes and scored by top-1, and what has no labels by its
        agreement with the original. `each` gives one score per example, whose mean `score` is; with it, differences
        get a closer interval. With `training` (inputs, labels), `inputs` is the test split, and calibration (5 %) and
        selection (15 %) are taken from training by seed. Without, `inputs` is split 15/25/60 into calibration,
        selection and test.

        Raises: TaskError when lengths differ, or without a metric for labels that are no classes.
        """
        check_arrays(name, inputs, labels)
        if metric is None or score is None:
            metric, score, each = _usual(name, labels, metric or score or each)
        test = ArrayExamples(inputs, labels)
        if training is None:
            parts = split_indices(len(test), {"calibration": 0.15, "selection": 0.25, "test": 0.60}, seed)
            splits = {part: (test, rows) for part, rows in parts.items()}
            notes = (_describe_split("split by seed", seed, splits),)
        else:
            check_arrays(name, *training)
            train = ArrayExamples(*training)
            parts = split_indices(len(train), {"calibration": 0.05, "selection": 0.15, "training": 0.80}, seed)
            splits = {part: (train, rows) for part, rows in parts.items()}
            splits["test"] = (test, list(range(len(test))))
            notes = (_describe_split("calibration and selection taken from training by seed", seed, splits),)
        return Task(
            name,
            splits,
            metric,
            score,
            each,
            preprocessing,
            loss,
            seed,
            notes,
            augment=augment,
            loop=loop,
            anatomy=anatomy,
        )


def _usual(name: str, labels: Any, given: object) -> tuple[Metric, Score, Each]:
    """What is scored by where nothing else is said."""
    if given is not None:
        raise TaskError(f"task {name!r} gives a part of its scoring; metric and score come together, or neither")
    if labels is None:
        return AGREEMENT, agreement, agreement_each
    found = np.asarray(labels)
    if found.dtype.kind not in "iu" or found.size != len(found):
        raise TaskError(
            f"task {name!r}: labels are {found.dtype} {list(found.shape)}; without a metric they are scored by top-1, "
            "which takes one integer class per example; give metric and score in a file.py:name"
        )
    return TOP1, top1, top1_each


def split_indices(count: int, shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Disjoint index lists that cover `range(count)`, by seed; the last share takes what is left.

    Raises: TaskError when a share would get no example.
    """
    order = np.random.default_rng(seed).permutation(count)
    parts: dict[str, list[int]] = {}
    start = 0
    for position, (name, share) in enumerate(shares.items()):
        end = count if position == len(shares) - 1 else start + round(count * share)
        parts[name] = sorted(int(i) for i in order[start:end])
        start = end
    empty = [name for name, rows in parts.items() if not rows]
    if empty:
        raise TaskError(f"{count} examples are too few to split: {empty[0]} would get none; give at least 10")
    return parts


def _check_optional(task: Task) -> None:
    wanted = {
        "loss": "a function of (outputs, labels)",
        "augment": "a function of (inputs, generator)",
        "loop": "a function of (module, data, training, objective, folder)",
    }
    for name, what in wanted.items():
        value = getattr(task, name)
        if value is not None and not callable(value):
            raise TaskError(f"task {task.name!r} gives a {type(value).__name__} as {name}; it must be {what}, or None")
    anatomy = cast("object", task.anatomy)
    if anatomy is not None and not isinstance(anatomy, Mapping):
        found = type(anatomy).__name__
        raise TaskError(f"task {task.name!r} gives a {found} as anatomy; it must be a dict that describes the network")


def _check_fits(task: str, spec: TensorSpec, array: Array) -> None:
    found = f"{array.dtype} {list(array.shape[1:])}"
    fits = len(array.shape) == len(spec.shape) and all(
        isinstance(want, str) or want == have for want, have in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise TaskError(
            f"task {task!r} gives {found} per example for {spec.name!r}, "
            f"but the model takes {spec.dtype} {list(spec.shape[1:])}"
        )
    if array.dtype != np.dtype(spec.dtype):
        raise TaskError(
            f"task {task!r} gives {array.dtype} for {spec.name!r}, but the model takes {spec.dtype}; "
            f"convert (and normalise) the data as in training, in the .npz or in a file.py:name task"
        )


def _describe_split(how: str, seed: int, splits: Mapping[str, tuple[Examples, Sequence[int]]]) -> str:
    sizes = ", ".join(f"{name} {len(rows)}" for name, (_, rows) in splits.items())
    return f"{how} {seed}: {sizes}"
