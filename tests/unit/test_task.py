"""Tasks: four splits that do not overlap, metrics, sources, and data that does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgewright import AGREEMENT, TOP1, Metric, Task, top1
from edgewright.errors import TaskError
from edgewright.task import agreement, load_task, noise_task, split_indices
from edgewright.types import Signature, TensorSpec

IMAGE = Signature((TensorSpec("image", "float32", (1, 3, 4, 5)),), (TensorSpec("logits", "float32", (1, 2)),))


def write_npz(path, count=40, **changes):
    arrays = {"x": np.zeros((count, 3, 4, 5), np.float32), "y": np.arange(count) % 2, **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return str(path)


@given(st.integers(10, 500), st.integers(0, 3))
def test_splits_cover_everything_once_and_depend_on_the_seed_alone(count, seed):
    shares = {"calibration": 0.15, "selection": 0.25, "test": 0.60}
    parts = split_indices(count, shares, seed)
    assert sorted(i for rows in parts.values() for i in rows) == list(range(count))
    assert parts == split_indices(count, shares, seed)


def test_too_few_examples_are_refused():
    with pytest.raises(TaskError, match="too few to split"):
        split_indices(2, {"calibration": 0.15, "selection": 0.25, "test": 0.60}, 0)


def test_an_npz_is_split_by_seed_and_says_so(tmp_path):
    task = load_task(write_npz(tmp_path / "d.npz")).checked(IMAGE)
    assert {s: task.size(s) for s in task.splits} == {"calibration": 6, "selection": 10, "test": 24}
    assert "split by seed 0" in task.notes[0]
    batch = next(iter(task.batches("selection", 4)))
    assert (list(batch.inputs), batch.inputs["image"].shape, len(batch.labels)) == (["image"], (4, 3, 4, 5), 4)


def test_a_test_set_of_its_own_stays_the_test_split(tmp_path):
    x, y = np.zeros((100, 3, 4, 5), np.float32), np.zeros(100, int)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:30] + 1, y_test=y[:30])
    task = load_task(str(tmp_path / "d.npz"))
    assert {s: task.size(s) for s in task.splits} == {"calibration": 5, "selection": 15, "training": 80, "test": 30}
    assert all((batch.inputs["x"] == 1).all() for batch in task.batches("test"))


def test_training_is_shuffled_by_epoch_and_the_rest_is_not(tmp_path):
    x, y = np.zeros((100, 3), np.float32), np.arange(100)
    task = Task.from_arrays({"x": x}, y, metric=TOP1, score=top1, training=({"x": x}, y))
    epochs = [[b.ids for b in task.batches("training", 8, epoch=e)] for e in (0, 1, 0)]
    assert epochs[0] != epochs[1]
    assert epochs[0] == epochs[2]
    assert [b.ids for b in task.batches("test", 100)] == [tuple(range(100))]


def test_methods_cannot_read_the_test_split():
    task = noise_task(IMAGE, 0).without("test")
    with pytest.raises(TaskError, match="read by the contract only"):
        next(task.batches("test"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x": np.zeros((40, 3, 9, 9), np.float32)}, r"gives float32 \[3, 9, 9\].*takes float32 \[3, 4, 5\]"),
        ({"x": np.zeros((40, 3, 4, 5), np.uint8)}, "gives uint8 for 'image'.*takes float32; convert"),
        ({"x": np.full((40, 3, 4, 5), np.nan, np.float32)}, r"is NaN or infinite at \[0, 0, 0, 0\]"),
        ({"y": np.zeros(39, int)}, "different length: x 40, labels 39"),
        ({"y": np.zeros(40)}, "labels are float64.*file.py:name"),
        ({"x": None, "y": None}, "has no inputs"),
    ],
)
def test_data_that_does_not_fit_is_refused_in_a_sentence(tmp_path, changes, sentence):
    with pytest.raises(TaskError, match=sentence):
        load_task(write_npz(tmp_path / "d.npz", **changes)).checked(IMAGE)


def test_files_that_are_no_data_are_refused(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not really")
    np.savez(tmp_path / "pickled.npz", x=np.array([{}, []], dtype=object))
    for name, sentence in (
        ("broken.npz", "cannot be read"),
        ("pickled.npz", "cannot be read"),
        ("no.npz", "no file at"),
    ):
        with pytest.raises(TaskError, match=sentence):
            load_task(str(tmp_path / name))
    with pytest.raises(TaskError, match=r"no task at 'what\.csv'; allowed"):
        load_task("what.csv")


def test_a_users_file_gives_a_task_with_any_metric(tmp_path):
    (tmp_path / "mytask.py").write_text(
        "import numpy as np\n"
        "from edgewright import Metric, Task\n"
        "def boxes():\n"
        "    return Task.from_arrays({'image': np.zeros((20, 3, 4, 5), np.float32)}, None,\n"
        "        metric=Metric('mean distance', 'px', 'lower', 10.0), score=lambda o, r: 1.5)\n"
        "def wrong():\n    return 3\n"
        "def fails():\n    raise KeyError('x')\n"
    )
    task = load_task(f"{tmp_path}/mytask.py:boxes").checked(IMAGE)
    assert (task.metric, task.labelled) == (Metric("mean distance", "px", "lower", 10.0), False)
    for name, sentence in (
        ("wrong", "must give an edgewright.Task"),
        ("fails", "failed: KeyError"),
        ("boxs", "did you mean 'boxes'"),
    ):
        with pytest.raises(TaskError, match=sentence):
            load_task(f"{tmp_path}/mytask.py:{name}")
    with pytest.raises(TaskError, match="no file at"):
        load_task(f"{tmp_path}/none.py:boxes")


def test_a_metric_with_a_direction_of_its_own_is_refused():
    with pytest.raises(TaskError, match="allowed: higher, lower"):
        Task.from_arrays({"x": np.zeros((20, 1))}, None, metric=Metric("m", direction="up"), score=lambda o, r: 0.0)


@pytest.mark.parametrize(
    ("labels", "metric"), [(np.arange(20), TOP1), (np.zeros((20, 1), int), TOP1), (None, AGREEMENT)]
)
def test_what_is_not_said_of_scoring_is_the_usual(labels, metric):
    task = Task.from_arrays({"x": np.zeros((20, 1))}, labels)
    right = np.eye(20)[np.arange(20) if labels is None else np.ravel(labels)]
    assert task.metric == metric
    assert task.judge({"y": right}, {"y": right} if labels is None else labels) == 100.0


@pytest.mark.parametrize(
    ("labels", "given", "sentence"),
    [
        (np.zeros(20), {}, r"labels are float64 \[20\]; without a metric .* give metric and score"),
        (np.zeros((20, 4), int), {}, r"labels are int64 \[20, 4\]"),
        (np.zeros(20, int), {"metric": TOP1}, "metric and score come together, or neither"),
        (np.zeros(20, int), {"each": lambda o, r: o}, "metric and score come together, or neither"),
    ],
)
def test_half_a_scoring_and_labels_that_are_no_classes_are_refused(labels, given, sentence):
    with pytest.raises(TaskError, match=sentence):
        Task.from_arrays({"x": np.zeros((20, 1))}, labels, **given)


def test_images_in_folders_are_read_as_the_model_takes_them(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("RGB", (20, 10), (255 * label, 0, 0)).save(tmp_path / name / f"{i}.png")
    task = load_task(str(tmp_path), IMAGE).checked(IMAGE)
    batch = next(iter(task.batches("test", 12)))
    assert batch.inputs["image"].shape == (12, 3, 4, 5)
    assert (batch.inputs["image"][:, 0].mean((1, 2)) == batch.labels).all()
    (tmp_path / "dog" / "0.png").write_bytes(b"no image")
    with pytest.raises(TaskError, match=r"0\.png cannot be read as an image"):
        list(load_task(str(tmp_path), IMAGE).batches("test", 20))


def test_a_folder_without_classes_and_a_model_without_images_are_refused(tmp_path):
    with pytest.raises(TaskError, match="one folder of images per class"):
        load_task(str(tmp_path), IMAGE)
    (tmp_path / "cat").mkdir()
    with pytest.raises(TaskError, match="has no images"):
        load_task(str(tmp_path), IMAGE)


def test_the_digest_changes_with_data_split_and_metric():
    x = {"x": np.arange(40.0).reshape(40, 1)}
    make = lambda **k: Task.from_arrays(x, None, **{"metric": TOP1, "score": top1, **k}).digest  # noqa: E731
    digests = {make(), make(seed=1), make(metric=Metric("other")), Task.from_arrays(
        {"x": x["x"] + 1}, None, metric=TOP1, score=top1).digest}  # fmt: skip
    assert len(digests) == 4
    assert make() == make()


def test_agreement_decides_by_the_largest_output():
    a = {"y": np.array([[1.0, 2.0], [3.0, 1.0]])}
    assert agreement(a, {"y": np.array([[0.0, 9.0], [0.0, 9.0]])}) == 50.0
    assert top1(a, [1, 0]) == 100.0


def test_an_edited_metric_is_another_task(tmp_path):
    text = (
        "import numpy as np\nfrom edgewright import Metric, Task\n"
        "def t():\n"
        "    x = {'x': np.zeros((20, 1))}\n"
        "    return Task.from_arrays(x, None, metric=Metric('m'), score=lambda o, r: 1.0)\n"
    )
    (tmp_path / "a.py").write_text(text)
    first = load_task(f"{tmp_path}/a.py:t").digest
    assert load_task(f"{tmp_path}/a.py:t").digest == first
    (tmp_path / "a.py").write_text(text.replace("1.0", "2.0"))
    assert load_task(f"{tmp_path}/a.py:t").digest != first


@pytest.mark.parametrize(
    ("score", "says"), [(lambda o, r: 1 / 0, "ZeroDivisionError"), (lambda o, r: np.nan, "gave nan")]
)
def test_a_metric_that_fails_is_told_as_the_users_own(score, says):
    task = Task.from_arrays({"x": np.zeros((20, 1))}, None, metric=Metric("mine"), score=score)
    with pytest.raises(TaskError, match=f"the metric 'mine' of task 'task'.*{says}"):
        task.judge({"y": np.zeros((20, 1))}, None)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("loss", "mse", r"gives a str as loss; it must be a function of \(outputs, labels\), or None"),
        ("augment", 0.5, r"gives a float as augment; it must be a function of \(inputs, generator\)"),
        ("loop", [], "gives a list as loop; it must be a function of"),
        ("anatomy", "vit", "gives a str as anatomy; it must be a dict that describes the network"),
    ],
)
def test_what_training_needs_is_checked_when_the_task_is_made(field, value, said):
    x, y = {"x": np.zeros((20, 3), np.float32)}, np.arange(20) % 2
    with pytest.raises(TaskError, match=said):
        Task.from_arrays(x, y, metric=TOP1, score=top1, **{field: value})


def test_an_edited_augmentation_is_another_task(tmp_path):
    source = """
import numpy as np
from edgewright import TOP1, Task, top1
def task():
    x, y = {"x": np.zeros((20, 3), np.float32)}, np.arange(20) % 2
    return Task.from_arrays(x, y, metric=TOP1, score=top1, training=(x, y), augment=lambda x, g: x, anatomy={"a": 1})
"""
    path = tmp_path / "mine.py"
    path.write_text(source)
    task = load_task(f"{path}:task")
    assert (task.augment((1,), None), task.anatomy, task.without("test").augment) == ((1,), {"a": 1}, task.augment)
    path.write_text(source.replace("lambda x, g: x", "lambda x, g: x[:]"))
    assert load_task(f"{path}:task").digest != task.digest
