"""The tasks under examples/: their judgement is fair, and they say what is missing."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from edgewright.asking.userfile import Reference, load_user
from edgewright.errors import TaskError
from edgewright.task import load_task
from edgewright.types import Array, Arrays, Signature, TensorSpec

EXAMPLES = Path(__file__).parents[2] / "examples"
FACES: ModuleType = load_user(Reference(EXAMPLES / "faces.py", "faces"), kind="task", error=TaskError)
DETECTOR = Signature((TensorSpec("input", "float32", (1, 3, 240, 320)),), ())

LEFT, RIGHT = (0.1, 0.1, 0.3, 0.3), (0.6, 0.6, 0.8, 0.8)
corners = hnp.arrays(np.float32, (4, 2, 2), elements=st.floats(0, 1, width=32))


def detected(*boxes: tuple[float, ...], score: float = 0.9) -> Arrays:
    """The detector's outputs for one picture in which it is `score` sure of each box."""
    scores = np.full((1, len(boxes), 2), (1 - score, score), np.float32)
    return {"scores": scores, "boxes": np.array(boxes, np.float32).reshape(1, -1, 4)}


def boxes_of(points: Array) -> Array:
    """Two corners each, in any order, as left, top, right, bottom."""
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (detected(LEFT, RIGHT), 1.0),
        (detected(RIGHT, LEFT), 1.0),
        (detected(LEFT), 0.5),
        (detected(LEFT, RIGHT, (0.1, 0.6, 0.3, 0.8)), 2 / 3),
        (detected(LEFT, (0.6, 0.7, 0.8, 0.9)), (1 + 1 / 3) / 2),
        (detected(LEFT, RIGHT, score=0.6), 0.0),
        (detected(LEFT, LEFT, RIGHT), 1.0),
    ],
    ids=["same", "other order", "one missing", "one extra", "one moved by half", "unsure", "one face twice"],
)
def test_faces_agree(found: Arrays, expected: float) -> None:
    assert FACES.agreement(found, detected(LEFT, RIGHT)) == pytest.approx(expected, abs=1e-6)


def test_faces_that_neither_sees_agree() -> None:
    assert FACES.agreement(detected(LEFT, score=0.1), detected(RIGHT, score=0.2)) == 1.0


@given(corners, corners)
def test_agreement_lies_between_0_and_1_and_does_not_ask_who_is_first(a: Array, b: Array) -> None:
    one, two = detected(*boxes_of(a)), detected(*boxes_of(b))
    assert 0 <= FACES.agreement(one, two) <= 1 + 1e-6
    assert FACES.agreement(one, two) == pytest.approx(FACES.agreement(two, one), abs=1e-6)


@given(corners)
def test_kept_boxes_do_not_overlap(points: Array) -> None:
    boxes = boxes_of(points)
    scores = np.stack([np.zeros(4), np.linspace(0.75, 0.95, 4)], axis=1).astype(np.float32)
    kept = FACES.kept(scores, boxes)
    overlaps = FACES.ious(kept, kept) - 2 * np.eye(len(kept))
    assert overlaps.max() <= FACES.SAME
    assert np.array_equal(kept[0], boxes[3])


def test_faces_of_a_folder_are_split_by_photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shade in range(12):
        Image.new("RGB", (400, 300), (20 * shade,) * 3).save(tmp_path / f"{shade}.png")
    monkeypatch.setenv("EDGEWRIGHT_DATA", str(tmp_path))
    task = load_task(f"{EXAMPLES / 'faces.py'}:faces", DETECTOR).checked(DETECTOR)
    shades = {
        split: {float(batch.inputs["input"].max()) for batch in task.batches(split)}
        for split in ("calibration", "selection", "test")
    }
    assert {split: task.size(split) for split in shades} == {"calibration": 45, "selection": 75, "test": 180}
    assert all(not a & b for a in shades.values() for b in shades.values() if a is not b)


def test_faces_need_ten_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DATA", str(tmp_path))
    with pytest.raises(TaskError, match=r"holds 0 \.png or \.jpg files; give at least 10"):
        load_task(f"{EXAMPLES / 'faces.py'}:faces", DETECTOR)


def test_cifar10_is_normalised_per_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    np.savez(tmp_path / "cifar10.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    monkeypatch.setenv("EDGEWRIGHT_DATA", str(tmp_path))
    signature = Signature((TensorSpec("input", "float32", ("N", 3, 32, 32)),), ())
    task = load_task(f"{EXAMPLES / 'cifar10.py'}:resnet", signature).checked(signature)
    batch = next(task.batches("test", 40))
    green = (pixels[7, 3, 5, 1] / 255 - 0.456) / 0.224
    assert batch.inputs["input"][7, 1, 3, 5] == pytest.approx(green, rel=1e-5)
    assert task.score({"logits": np.eye(10)[labels]}, batch.labels) == 100
    assert task.size("training") == 32


@pytest.mark.parametrize("name", ["resnet", "resnet8", "test_images", "mnist"])
def test_cifar10_says_what_to_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEWRIGHT_DATA", raising=False)
    with pytest.raises(TaskError, match="EDGEWRIGHT_DATA is not set; set it to the folder that holds"):
        load_task(f"{EXAMPLES / 'cifar10.py'}:{name}", DETECTOR)


def test_the_slow_network_has_small_layers_and_seeded_weights() -> None:
    torch = pytest.importorskip("torch")
    slow = load_user(Reference(EXAMPLES / "slow_int8.py", "model"), kind="model", error=TaskError)
    model, inputs = slow.model(), slow.example_inputs()
    assert model(*inputs.values()).shape == (1, slow.CLASSES)
    assert max(weight.numel() for weight in model.parameters()) <= 32 * 32
    again = slow.model()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
