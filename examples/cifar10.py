"""CIFAR-10 and MNIST as tasks, one function per way a network was trained to see them.

    EDGEWRIGHT_DATA=~/data engine deploy resnet56.onnx --target cpu --task examples/cifar10.py:resnet

The folder holds `cifar10*.npz` (x_train, x_test uint8 [n, 32, 32, 3] in RGB; y_train, y_test) and, for
`mnist`, `mnist*.npz` (the same with [n, 28, 28]).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgewright import TOP1, Task, top1
from edgewright.errors import TaskError
from edgewright.task.metrics import top1_each
from edgewright.types import Array, Arrays

# Per channel, of ImageNet, in RGB: what the usual CIFAR ResNets were trained with.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def resnet() -> Task:
    """All images, normalised: [n, 3, 32, 32], RGB / 255, less the mean, over the deviation."""
    how = "RGB / 255, less ImageNet's mean, over its deviation, NCHW"
    return task("cifar10", normalised, how, augment=mirrored_and_shifted)


def test_images() -> Task:
    """The test images alone, normalised: the engine splits them into calibration, selection and test."""
    data = read("cifar10")
    return Task.from_arrays(
        {"image": normalised(data["x_test"])},
        data["y_test"],
        name="cifar10-test",
        metric=TOP1,
        score=top1,
        each=top1_each,
    )


def resnet8() -> Task:
    """All images as MLPerf Tiny's ResNet-8 takes them: [n, 3, 32, 32], raw 0..255."""
    return task("cifar10", raw, "RGB 0..255, NCHW", augment=mirrored_and_shifted)


def mnist() -> Task:
    """All of MNIST: [n, 1, 28, 28], raw 0..255, ink high."""
    return task("mnist", grey, "grey 0..255, ink high, NCHW")


def read(name: str) -> Arrays:
    """The arrays of the first `name*.npz` in the folder that EDGEWRIGHT_DATA names.

    Raises: TaskError when the variable is not set, or there is no such file.
    """
    folder = os.environ.get("EDGEWRIGHT_DATA")
    if not folder:
        raise TaskError(f"EDGEWRIGHT_DATA is not set; set it to the folder that holds {name}.npz")
    found = sorted(Path(folder).expanduser().glob(f"{name}*.npz"))
    if not found:
        raise TaskError(f"EDGEWRIGHT_DATA is {folder}, which holds no {name}*.npz; put one there, or name its folder")
    with np.load(found[0], allow_pickle=False) as archive:
        return {key: archive[key] for key in ("x_train", "y_train", "x_test", "y_test")}


def task(
    name: str, prepare: Callable[[Array], Array], preprocessing: str, *, augment: Callable[..., Any] | None = None
) -> Task:
    """Top-1 over `name*.npz`, with its training images."""
    data = read(name)
    return Task.from_arrays(
        {"image": prepare(data["x_test"])},
        data["y_test"],
        name=name,
        metric=TOP1,
        score=top1,
        each=top1_each,
        training=({"image": prepare(data["x_train"])}, data["y_train"]),
        preprocessing=preprocessing,
        augment=augment,
    )


def mirrored_and_shifted(inputs: Any, generator: Any) -> Any:
    """What training does to every batch: half of the images mirrored, each shifted by up to 4 pixels."""
    from edgewright.torchkit.data import flip_and_shift

    return flip_and_shift(4)(inputs, generator)


def normalised(images: Array) -> Array:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w], mean 0 and deviation 1 per ImageNet's channel."""
    return np.ascontiguousarray(((images / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2))


def raw(images: Array) -> Array:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w], values as they are."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)


def grey(images: Array) -> Array:
    """uint8 [n, h, w] to float32 [n, 1, h, w], values as they are."""
    return images[:, None].astype(np.float32)
