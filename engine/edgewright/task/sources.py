"""From what the user typed after `--task` to a Task: an .npz, a folder of images per class, or file.py:name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.arrays import read_npz
from edgewright.asking.userfile import call_user, code_digest, split_reference
from edgewright.errors import TaskError
from edgewright.task.examples import Examples
from edgewright.task.metrics import TOP1, top1, top1_each
from edgewright.task.task import Task, split_indices
from edgewright.types import Array, Arrays, Signature

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm")


def load_task(source: str, signature: Signature | None = None, seed: int = 0) -> Task:
    """The task that `source` names; see `Task.checked` for whether it fits a model.

    Only a folder of images needs the model's signature, to know the size of its images.
    Raises: TaskError, in one sentence, for anything that cannot be used.
    """
    reference = split_reference(source)
    if reference is not None:
        task = call_user(reference, kind="task", error=TaskError)
        if not isinstance(task, Task):
            raise TaskError(f"{source} gives {type(task).__name__}; it must give an edgewright.Task")
        return replace(task, code=code_digest(reference.path))
    if Path(source).is_dir():
        if signature is None:
            raise TaskError(f"the image folder {source} cannot give example inputs to a model that needs them to load")
        return _image_folder(Path(source), signature, seed)
    if source.endswith(".npz"):
        return _npz(Path(source), seed)
    raise TaskError(f"no task at {source!r}; allowed: an .npz file, a folder of images per class, file.py:name")


def _npz(path: Path, seed: int) -> Task:
    arrays = read_npz(path, TaskError)
    names = set(arrays)
    if {"x_train", "y_train", "x_test", "y_test"} <= names:
        inputs, labels = {"x": arrays["x_test"]}, arrays["y_test"]
        training = ({"x": arrays["x_train"]}, arrays["y_train"])
    elif "x" in names:
        inputs, labels, training = {"x": arrays["x"]}, arrays.get("y"), None
    else:
        labels = arrays.pop("y", None)
        inputs, training = arrays, None
    return Task.from_arrays(inputs, labels, name=path.stem, training=training, seed=seed)


@dataclass(frozen=True, eq=False)
class ImageExamples:
    """Images on disk, read when they are asked for, resized to what the model takes.

    RGB (or grey for one channel), scaled to 0..1 for float inputs and 0..255 for integers; the layout,
    NCHW or NHWC, is read off the signature.
    """

    files: tuple[Path, ...]
    labels: Array
    name: str
    shape: tuple[int, int, int]
    channels_first: bool
    dtype: str

    labelled = True

    @property
    def digest(self) -> str:
        """Covers names, sizes and times of the files; reading every image would take minutes."""
        sha = hashlib.sha256(f"{self.shape} {self.channels_first} {self.dtype}".encode())
        for path in self.files:
            stat = path.stat()
            sha.update(f"{path.parent.name}/{path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
        return sha.hexdigest()

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: Sequence[int]) -> tuple[Arrays, Any]:
        """The images at `indices`, stacked."""
        images = np.stack([self._read(self.files[i]) for i in indices])
        return {self.name: images}, self.labels_at(indices)

    def labels_at(self, indices: Sequence[int]) -> Any:
        """The classes of the images at `indices`."""
        return self.labels[np.asarray(indices, np.int64)]

    def _read(self, path: Path) -> Array:
        from PIL import Image, UnidentifiedImageError

        height, width, channels = self.shape
        try:
            with Image.open(path) as image:
                pixels = image.convert("L" if channels == 1 else "RGB").resize((width, height))
        except (OSError, UnidentifiedImageError) as error:
            raise TaskError(f"{path} cannot be read as an image: {error}") from error
        array = np.asarray(pixels).reshape(height, width, channels)
        if self.channels_first:
            array = array.transpose(2, 0, 1)
        if np.dtype(self.dtype).kind == "f":
            return (array / 255.0).astype(self.dtype)
        return array.astype(self.dtype)


def _image_folder(root: Path, signature: Signature, seed: int) -> Task:
    if {"train", "test"} <= {p.name for p in root.iterdir() if p.is_dir()}:
        classes = _classes(root / "train")
        train = _images(root / "train", classes, signature)
        test = _images(root / "test", classes, signature)
        parts = split_indices(len(train), {"calibration": 0.05, "selection": 0.15, "training": 0.80}, seed)
        splits: dict[str, tuple[Examples, Sequence[int]]] = {k: (train, rows) for k, rows in parts.items()}
        splits["test"] = (test, range(len(test)))
    else:
        images = _images(root, _classes(root), signature)
        parts = split_indices(len(images), {"calibration": 0.15, "selection": 0.25, "test": 0.60}, seed)
        splits = {k: (images, rows) for k, rows in parts.items()}
    sizes = ", ".join(f"{name} {len(rows)}" for name, (_, rows) in splits.items())
    return Task(
        root.name,
        splits,
        TOP1,
        top1,
        top1_each,
        preprocessing="resized to the input, RGB scaled to 0..1",
        seed=seed,
        notes=(f"split by seed {seed}: {sizes}",),
    )


def _classes(root: Path) -> list[str]:
    found = sorted(p.name for p in root.iterdir() if p.is_dir())
    if not found:
        raise TaskError(f"{root} has no folders; an image task has one folder of images per class")
    return found


def _images(root: Path, classes: Sequence[str], signature: Signature) -> ImageExamples:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        folder = root / name
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES) if folder.is_dir() else []
        files += found
        labels += [label] * len(found)
    if not files:
        raise TaskError(f"{root} has no images; allowed endings: {', '.join(IMAGES)}")
    name, shape, channels_first, dtype = _image_input(root, signature)
    return ImageExamples(tuple(files), np.array(labels), name, shape, channels_first, dtype)


def _image_input(root: Path, signature: Signature) -> tuple[str, tuple[int, int, int], bool, str]:
    spec = signature.fed[0]
    sizes = spec.shape[1:]
    if len(signature.fed) != 1 or len(sizes) != 3 or any(isinstance(d, str) for d in sizes):
        raise TaskError(
            f"the image folder {root} needs a model with one image input of known size, "
            f"but it takes {', '.join(s.describe() for s in signature.fed)}; use --shape or a file.py:name task"
        )
    a, b, c = (int(d) for d in sizes)
    if a in (1, 3):
        return spec.name, (b, c, a), True, spec.dtype
    if c in (1, 3):
        return spec.name, (a, b, c), False, spec.dtype
    raise TaskError(f"the model's input {spec.describe()} is not an image of 1 or 3 channels; use a file.py:name task")
