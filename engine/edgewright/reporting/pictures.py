"""Examples of a task as small PNG files, for reports that show which ones a model found easy and hard."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from edgewright.bundle import Bundle
from edgewright.errors import TaskError
from edgewright.realinputs import open_task
from edgewright.task import Task
from edgewright.types import Array, Exits

MOST = 8
"""So many of each kind are shown."""


def pictures_of(bundle: Bundle, exits: Exits, source: str) -> Mapping[int, bytes]:
    """The examples that left first and last, as PNG by id; nothing where the model's input is no image.

    Raises: TaskError when `source` is not the task that the bundle was judged by.
    """
    task = judged_task(bundle, source)
    if len(bundle.signature.fed) != 1 or exits.split not in task.splits:
        return {}
    ids = [*exits.early[:MOST], *exits.late[:MOST]]
    arrays, _ = task.splits[exits.split][0].take(ids)
    images = {id_: image_of(example) for id_, example in zip(ids, arrays[bundle.signature.fed[0].name])}
    return {id_: png(image) for id_, image in images.items() if image is not None}


def judged_task(bundle: Bundle, source: str) -> Task:
    """The task at `source`, known to be the bundle's own. Raises: TaskError."""
    task = open_task(bundle, source)
    if task.digest != bundle.extra.get("task", {}).get("digest"):
        name = bundle.extra.get("task", {}).get("name", "none")
        raise TaskError(
            f"--task {source} is not the data that {bundle.path} was judged by ({name}), or was changed since; "
            "its ids would show other examples: give the same task, or leave --task out"
        )
    return task


def image_of(example: Array) -> Array | None:
    """The pixels, uint8 [h, w] or [h, w, 3], scaled from the example's own range; None when it is no image.

    An image is [c, h, w] or [h, w, c] with 1 or 3 channels.
    """
    if example.ndim != 3 or not {example.shape[0], example.shape[-1]} & {1, 3}:
        return None
    pixels = example.transpose(1, 2, 0) if example.shape[0] in (1, 3) else example
    values = np.nan_to_num(pixels.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.squeeze(np.round(255 * scaled).astype(np.uint8), axis=-1 if pixels.shape[-1] == 1 else ())


def png(image: Array, side: int = 96) -> bytes:
    """A PNG of at most `side` pixels a side."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
