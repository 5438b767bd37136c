"""What a training run makes small: which outputs and labels fit, and what the user is told when they do not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import TaskError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from edgewright.torchkit.data import Batch  # noqa: E402
from edgewright.torchkit.losses import cross_entropy, distilled, logits_of, outputs_of, supervised  # noqa: E402


class Returning(nn.Module):
    """Returns what `shape` makes of its input."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.scale = shape, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.shape(x * self.scale)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def value(loss):
    return loss.detach().item()


def test_outputs_come_in_order_from_whatever_holds_them():
    a, b, c = noise(2), noise(3), noise(4)
    assert outputs_of(a) == [a]
    assert [id(t) for t in outputs_of({"x": a, "none": None, "more": (b, [c])})] == [id(a), id(b), id(c)]
    with pytest.raises(TaskError, match="the module returns float; it must return tensors, or tuples or dicts"):
        outputs_of((a, 1.0))


def test_a_transformers_output_trains_like_a_tensor():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    module = Returning(lambda x: outputs.ImageClassifierOutput(logits=x, hidden_states=None))
    batch = Batch((noise(6, 3),), torch.arange(6) % 3)
    assert value(supervised()(module, batch)) == value(functional.cross_entropy(noise(6, 3), batch.labels))
    distilled(module)(module, batch).backward()
    assert module.scale.grad is not None


@pytest.mark.parametrize(
    ("outputs", "labels", "axis"),
    [((6, 3), (6,), 1), ((2, 4, 3), (2, 4), 2), ((2, 3, 4, 5), (2, 4, 5), 1), ((2, 3, 4), (2, 4), 1)],
    ids=["classes", "tokens", "pixels", "classes before steps"],
)
def test_cross_entropy_finds_the_axis_of_the_classes(outputs, labels, axis):
    logits, wanted = noise(*outputs), torch.randint(0, 3, labels, generator=torch.Generator().manual_seed(0))
    expected = functional.cross_entropy(logits.movedim(axis, 1), wanted)
    assert cross_entropy()(logits, wanted) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.zeros(6), r"output of shape \[6, 3\] and labels float32 \[6\]; give the task a loss"),
        (torch.zeros(6, 1, dtype=torch.int64), r"labels int64 \[6, 1\]"),
        (torch.zeros(5, dtype=torch.int64), r"labels int64 \[5\]"),
        (["a"] * 6, "labels of type list"),
        (torch.tensor([0, 1, 2, 3, 0, 1]), "a training label is 3, but the output has 3 classes"),
    ],
    ids=["numbers", "a column", "too few", "words", "a class too many"],
)
def test_labels_without_a_built_in_loss_get_one_sentence(labels, said):
    with pytest.raises(TaskError, match=said):
        supervised()(Returning(lambda x: x), Batch((noise(6, 3),), labels))


def test_the_tasks_own_loss_is_blamed_when_it_fails():
    def loss(returned, labels):
        return returned["boxes"] - labels

    batch = Batch((noise(6, 3),), noise(6, 4))
    with pytest.raises(TaskError, match=r"the task's loss failed on labels float32 \[6, 4\]: \w+Error"):
        supervised(loss)(Returning(lambda x: x), batch)


def test_no_labels_need_a_teacher():
    module, batch = Returning(lambda x: x), Batch((noise(6, 3),), None)
    with pytest.raises(TaskError, match="have no labels; give labels, or train with distillation"):
        supervised()(module, batch)
    teacher = Returning(lambda x: 2 * x)
    assert value(distilled(teacher)(module, batch)) == pytest.approx(0.25)
    assert value(distilled(module)(module, batch)) == 0


def test_the_teacher_is_as_it_was_and_stays_so():
    module = Returning(lambda x: x)
    objective = distilled(module, weight=1.0)
    with torch.no_grad():
        module.scale.fill_(3)
    loss = objective(module, Batch((noise(6, 3),), torch.arange(6) % 3))
    loss.backward()
    assert loss > 0
    assert module.scale.requires_grad
    assert float(module.scale.grad) > 0


def test_the_two_parts_are_weighed():
    module, teacher = Returning(lambda x: x), Returning(lambda x: x + torch.tensor([1.0, 0, 0]))
    batch = Batch((noise(6, 3),), torch.arange(6) % 3)
    parts = [value(distilled(teacher, weight=w)(module, batch)) for w in (0, 0.25, 1)]
    assert parts[0] == pytest.approx(value(supervised()(module, batch)))
    assert parts[1] == pytest.approx(0.75 * parts[0] + 0.25 * parts[2])


def test_classes_are_compared_as_shares_and_numbers_as_numbers():
    module, teacher = Returning(lambda x: x), Returning(lambda x: x + 1)
    x = noise(6, 3)
    objective = distilled(teacher, weight=1)
    assert value(objective(module, Batch((x,), torch.arange(6) % 3))) == pytest.approx(0, abs=1e-6)
    assert value(objective(module, Batch((x,), noise(6, 3)))) > 0.1


def test_outputs_of_another_shape_than_the_teachers_get_one_sentence():
    module, teacher = Returning(lambda x: (x, x)), Returning(lambda x: x)
    said = r"have the shapes \[\[6, 3\], \[6, 3\]\], but the original's have \[\[6, 3\]\]"
    with pytest.raises(TaskError, match=said):
        distilled(teacher)(module, Batch((noise(6, 3),), None))


@given(st.integers(2, 8), st.integers(0, 100))
@settings(max_examples=20)
def test_a_softmax_at_the_end_changes_neither_loss_nor_distance(classes, seed):
    x = noise(5, classes, seed=seed)
    batch = Batch((x,), torch.arange(5) % classes)
    plain, soft = Returning(lambda x: x), Returning(lambda x: torch.softmax(x, 1))
    teachers = Returning(lambda x: x.flip(1)), Returning(lambda x: torch.softmax(x.flip(1), 1))
    losses = [value(distilled(t)(m, batch)) for m, t in zip((plain, soft), teachers, strict=True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3, abs=1e-5)
    assert torch.equal(logits_of(x), x)
