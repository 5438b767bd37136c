"""The digits network and its data are what their page says, and fit together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgewright.task import load_task
from edgewright.types import Arrays, Signature, TensorSpec

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
SIGNATURE = Signature(
    (TensorSpec("image", "float32", ("batch", 1, 8, 8)),), (TensorSpec("logits", "float32", ("batch", 10)),)
)


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    with np.load(DIGITS / "digits.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(DIGITS / "digits.onnx", options, providers=["CPUExecutionProvider"])


def test_the_folder_stays_small() -> None:
    files = [path for path in DIGITS.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 500_000


@pytest.mark.parametrize(("part", "count"), [("train", 1257), ("test", 540)])
def test_images_are_sixteenths_with_a_label_each(arrays: Arrays, part: str, count: int) -> None:
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((count, 1, 8, 8), np.float32, (count,), np.int64)
    assert np.array_equal(x * 16, np.round(x * 16))
    assert (x.min(), x.max()) == (0.0, 1.0)


def test_every_class_gives_three_tenths_to_test(arrays: Arrays) -> None:
    train, test = np.bincount(arrays["y_train"], minlength=10), np.bincount(arrays["y_test"], minlength=10)
    assert len(train) == len(test) == 10
    np.testing.assert_allclose(test / (train + test), 0.3, atol=0.005)


def test_no_image_is_in_train_and_test(arrays: Arrays) -> None:
    train = {image.tobytes() for image in arrays["x_train"]}
    assert not train & {image.tobytes() for image in arrays["x_test"]}


def test_network_takes_images_and_gives_logits() -> None:
    model = onnx.load(DIGITS / "digits.onnx")
    onnx.checker.check_model(model, full_check=True)
    found = [
        (value.name, [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert found == [("image", ["batch", 1, 8, 8]), ("logits", ["batch", 10])]


def test_network_carries_no_path_of_the_machine_it_was_made_on() -> None:
    assert not re.search(rb"site-packages|stack_trace|/home/|/root/|\.py\b", (DIGITS / "digits.onnx").read_bytes())


def test_accuracy_is_what_the_page_says(arrays: Arrays, session: onnxruntime.InferenceSession) -> None:
    said = re.search(r"0 \(in this folder\)\*\* \| [\d.]+ % \| ([\d.]+) %", (DIGITS / "README.md").read_text())
    assert said is not None
    decided = session.run(None, {"image": arrays["x_test"]})[0].argmax(axis=1)
    accuracy = 100 * np.mean(decided == arrays["y_test"])
    assert accuracy >= 98
    assert f"{accuracy:.2f}" == said[1]


def test_a_batch_gives_what_its_images_give_alone(arrays: Arrays, session: onnxruntime.InferenceSession) -> None:
    images = arrays["x_test"][:5]
    alone = np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])
    np.testing.assert_allclose(session.run(None, {"image": images})[0], alone, rtol=1e-4, atol=1e-4)


def test_npz_is_a_task_for_the_network() -> None:
    task = load_task(str(DIGITS / "digits.npz"), SIGNATURE).checked(SIGNATURE)
    sizes = {split: task.size(split) for split in ("training", "calibration", "selection", "test")}
    assert sizes == {"training": 1005, "calibration": 63, "selection": 189, "test": 540}
    assert next(task.batches("selection", 4)).inputs["image"].shape == (4, 1, 8, 8)
