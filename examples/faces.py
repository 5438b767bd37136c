"""A face detector without labels: a candidate is judged by how well its boxes agree with the original's.

    pip install scikit-image
    engine deploy version-slim-320.onnx --target cpu --task examples/faces.py:faces
    EDGEWRIGHT_DATA=~/photographs engine deploy version-slim-320.onnx --target cpu --task examples/faces.py:faces

For UltraFace: input [1, 3, 240, 320], outputs `scores` [1, 4420, 2] (no face, face) and `boxes` [1, 4420, 4]
(left, top, right, bottom, as shares of the picture). The pictures are crops of the photographs in the folder, at
least ten, or else scenes: photographs of scikit-image, with faces of its Labeled Faces in the Wild subset
pasted in. No photograph or pasted face is in two splits; the four photographs behind the scenes are in all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edgewright import Metric, Task
from edgewright.errors import TaskError
from edgewright.task import split_indices
from edgewright.types import Array, Arrays

WIDTH, HEIGHT = 320, 240
SURE, SAME = 0.7, 0.3
"""A box is a face above this score, and the same face as a better one above this overlap."""

SHARES = {"calibration": 0.15, "selection": 0.25, "test": 0.60}
PICTURES = 300
METRIC = Metric("mean IoU of kept boxes", unit="", direction="higher", full_scale=1.0)


@dataclass(frozen=True, eq=False)
class Pictures:
    """uint8 [n, height, width, 3], made into what the detector takes when it is asked for."""

    pixels: Array
    labelled = False

    @property
    def digest(self) -> str:
        """The sha-256 of the pixels."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: Sequence[int]) -> tuple[Arrays, None]:
        """float32 [n, 3, height, width], from -1 to 1; there are no labels."""
        rows = self.pixels[np.asarray(indices, np.int64)]
        return {"input": np.ascontiguousarray((rows.transpose(0, 3, 1, 2) - np.float32(127)) / np.float32(128))}, None

    def labels_at(self, indices: Sequence[int]) -> None:
        """There are none."""


def faces() -> Task:
    """The task. Raises: TaskError when there is neither a folder of photographs nor scikit-image."""
    folder = os.environ.get("EDGEWRIGHT_DATA")
    photographs, portraits = (read_photographs(Path(folder).expanduser()), []) if folder else sample_images()
    apart = portraits or photographs
    splits: dict[str, tuple[Pictures, range]] = {}
    for order, (split, rows) in enumerate(split_indices(len(apart), SHARES, seed=0).items()):
        rng = np.random.default_rng(order)
        own, count = [apart[row] for row in rows], round(PICTURES * SHARES[split])
        drawn = [scene(photographs, own, rng) if portraits else crop(own, rng) for _ in range(count)]
        splits[split] = (Pictures(np.stack([np.asarray(picture) for picture in drawn])), range(count))
    return Task("faces", splits, METRIC, agreement, preprocessing="RGB, less 127, over 128, NCHW")


def read_photographs(folder: Path) -> list[Image.Image]:
    """Every .png and .jpg in the folder."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if len(found) < 10:
        raise TaskError(f"EDGEWRIGHT_DATA is {folder}, which holds {len(found)} .png or .jpg files; give at least 10")
    return [Image.open(path).convert("RGB") for path in found]


def sample_images() -> tuple[list[Image.Image], list[Image.Image]]:
    """Photographs (NASA's astronaut is one) and 100 portraits of 25 x 25, from scikit-image's own files."""
    try:
        from skimage import data
    except ImportError:
        raise TaskError(
            "no photographs with faces; set EDGEWRIGHT_DATA to a folder of them, or pip install scikit-image"
        ) from None
    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    portraits = np.round(255 * data.lfw_subset()[:100]).astype(np.uint8)
    return [Image.fromarray(photo) for photo in photographs], [Image.fromarray(p) for p in portraits]


def crop(photographs: Sequence[Image.Image], rng: np.random.Generator) -> Image.Image:
    """A piece of 60 to 100 % of one of the photographs, mirrored or not, at the detector's size."""
    photo = photographs[int(rng.integers(len(photographs)))]
    unit = min(photo.width / WIDTH, photo.height / HEIGHT) * rng.uniform(0.6, 1.0)
    left, top = rng.uniform(0, photo.width - unit * WIDTH), rng.uniform(0, photo.height - unit * HEIGHT)
    piece = photo.resize((WIDTH, HEIGHT), box=(left, top, left + unit * WIDTH, top + unit * HEIGHT))
    return piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else piece


def scene(
    photographs: Sequence[Image.Image], portraits: Sequence[Image.Image], rng: np.random.Generator
) -> Image.Image:
    """A crop with up to three portraits of 24 to 96 pixels in it, side by side."""
    picture = crop(photographs, rng)
    places = rng.permutation(3)[: rng.integers(4)]
    for place in places:
        size = int(rng.integers(24, 97))
        portrait = portraits[int(rng.integers(len(portraits)))].resize((size, size), Image.Resampling.BICUBIC)
        left = int(place * WIDTH / 3 + rng.uniform(0, WIDTH / 3 - size))
        picture.paste(portrait.convert("RGB"), (left, int(rng.uniform(0, HEIGHT - size))))
    return picture


def agreement(outputs: Arrays, reference: Arrays) -> float:
    """The mean IoU over all faces that either detector keeps, in 0..1.

    A face is a pair of boxes, one of each detector, matched best overlap first; a box that finds no
    partner, missing or extra, is a face with IoU 0. So 1.0 means the same boxes, and neither detecting
    less nor detecting more can raise it. Two detectors that keep nothing agree.
    """
    overlap, count = 0.0, 0
    for image in range(len(outputs["scores"])):
        ours = kept(outputs["scores"][image], outputs["boxes"][image])
        theirs = kept(reference["scores"][image], reference["boxes"][image])
        matched = pairs(ious(ours, theirs))
        overlap += sum(matched)
        count += len(ours) + len(theirs) - len(matched)
    return overlap / count if count else 1.0


def kept(scores: Array, boxes: Array) -> Array:
    """The boxes [k, 4] of one picture that are sure, less those that overlap a better one."""
    sure = np.flatnonzero(scores[:, 1] > SURE)
    candidates = boxes[sure[np.argsort(-scores[sure, 1], kind="stable")]]
    chosen: list[int] = []
    overlaps = ious(candidates, candidates)
    for index in range(len(candidates)):
        if not chosen or overlaps[index, chosen].max() <= SAME:
            chosen.append(index)
    return candidates[chosen]


def ious(a: Array, b: Array) -> Array:
    """The intersection over union of every box of a [n, 4] with every one of b [m, 4]: [n, m]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    return shared / np.maximum(area_a[:, None] + area_b[None, :] - shared, 1e-12)


def pairs(overlaps: Array) -> list[float]:
    """The overlaps of the pairs, each row and column used once, best first; pairs that do not touch are none."""
    left = overlaps.copy()
    matched: list[float] = []
    while left.size and left.max() > 0:
        row, column = np.unravel_index(np.argmax(left), left.shape)
        matched.append(float(left[row, column]))
        left[row, :] = left[:, column] = 0
    return matched
