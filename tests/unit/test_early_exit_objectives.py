"""What networks with exits make small: the terms, whom they teach, and what they leave alone."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from edgewright.errors import TaskError  # noqa: E402
from edgewright.torchkit.anatomy import TokenGrid  # noqa: E402
from edgewright.torchkit.data import Batch  # noqa: E402
from edgewright.torchkit.fit import fit  # noqa: E402
from edgewright.torchkit.training import Training  # noqa: E402
from edgewright_plugins.early_exit import objectives  # noqa: E402
from edgewright_plugins.early_exit.heads import lgvit  # noqa: E402
from edgewright_plugins.early_exit.heads.linear import LinearHead  # noqa: E402
from edgewright_plugins.early_exit.net import MultiExit  # noqa: E402
from edgewright_plugins.early_exit.side import Cut  # noqa: E402

GRID = TokenGrid(12, 8, "tokens", 0, (3, 4))
CLASSES = 3
T = objectives.TEMPERATURE


class Layered(nn.Module):
    """Tokens [b, 12, 8] through layers; the mean is the answer."""

    def __init__(self, depth: int = 4, *, probabilities: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))
        self.head, self.probabilities = nn.Linear(8, CLASSES), probabilities

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        logits = self.head(x.mean(1))
        return logits.softmax(1) if self.probabilities else logits


def net_of(kinds: tuple[str, ...] = ("local3", "local1", "global2", "global3"), **how: Any) -> MultiExit:
    torch.manual_seed(0)
    heads = [LinearHead(GRID, CLASSES) if kind == "linear" else lgvit.head(kind, GRID, CLASSES) for kind in kinds]
    backbone = Layered(max(len(kinds), 1), **how)
    cuts = [Cut(f"blocks.{number}") for number in range(len(kinds))]
    return MultiExit(backbone, cuts, heads, last=f"blocks.{len(backbone.blocks) - 1}")


def batch_of(rows: int = 6, *, labels: bool = True) -> Batch:
    torch.manual_seed(1)
    return Batch((torch.randn(rows, 12, 8),), torch.arange(rows) % CLASSES if labels else None)


def taught(net: nn.Module) -> set[str]:
    """The parts of a net that got a gradient."""
    return {name.split(".")[0] for name, each in net.named_parameters() if each.grad is not None and each.grad.any()}


def kl(found: Tensor, wanted: Tensor, at: float) -> Tensor:
    """T^2 KL(wanted || found), by the book."""
    p, q = (wanted / at).softmax(1), (found / at).softmax(1)
    return at**2 * (p * (p / q).log()).sum(1).mean()


# ------------------------------------------------------------------ joint


def test_joint_is_the_weighted_sum_it_says() -> None:
    net, batch = net_of().eval(), batch_of()
    teacher = Layered()
    seen, wanted = net(*batch.inputs), teacher(*batch.inputs)
    *exits, last = seen.logits
    final = 0.5 * functional.cross_entropy(last, batch.labels) + 0.5 * kl(last, wanted, T)
    each = [0.6 * functional.cross_entropy(z, batch.labels) + 0.4 * kl(z, last, T) for z in exits]
    expected = (2 * final + sum(each)) / (len(exits) + 2)
    torch.testing.assert_close(objectives.joint(teacher)(net, batch), expected)


def test_joint_trains_everything() -> None:
    net = net_of().train()
    objectives.joint()(net, batch_of()).backward()
    assert taught(net) == {"backbone", "sides"}
    assert all(each.grad is not None for each in net.parameters())


def test_exits_do_not_pull_the_answer_they_learn_from() -> None:
    """Exits that learn from the final answer alone leave its layer to the labels."""
    net, batch = net_of().train(), batch_of()
    objectives.joint(distill=1.0, final=1.0)(net, batch).backward()
    found = net.backbone.head.weight.grad.clone()
    net.zero_grad()
    (functional.cross_entropy(net(*batch.inputs).logits[-1], batch.labels) / 5).backward()
    torch.testing.assert_close(found, net.backbone.head.weight.grad)


def test_joint_without_labels_learns_from_the_original() -> None:
    net, batch = net_of().train(), batch_of(labels=False)
    objectives.joint(Layered())(net, batch).backward()
    assert taught(net) == {"backbone", "sides"}
    with pytest.raises(TaskError, match="no labels"):
        objectives.joint()(net, batch)


def test_joint_without_exits_is_the_plain_loss() -> None:
    net, batch = net_of(()), batch_of()
    torch.testing.assert_close(
        objectives.joint()(net, batch), functional.cross_entropy(net.backbone(*batch.inputs), batch.labels)
    )


def test_the_task_has_its_own_loss() -> None:
    net, batch = net_of(("linear",)), batch_of()
    found = objectives.joint(loss=lambda returned, _: returned.sum() * 0 + 7.0, distill=0.0)(net, batch)
    assert float(found.detach()) == pytest.approx(7.0)


def test_probabilities_are_taken_for_what_they_are() -> None:
    batch = batch_of()
    plain, soft = net_of(("linear", "linear")), net_of(("linear", "linear"), probabilities=True)
    soft.load_state_dict(plain.state_dict())
    for make, final in ((objectives.joint, False), (objectives.heads_only, False), (objectives.perceiver, True)):
        plain.final = soft.final = final
        torch.testing.assert_close(make()(plain, batch), make()(soft, batch))


def test_only_nets_with_exits_are_grouped() -> None:
    with pytest.raises(TypeError, match="MultiExit, not Linear"):
        objectives.groups(0.1)(nn.Linear(2, 2))


# ------------------------------------------------------------------ heads alone


def test_heads_only_leaves_a_frozen_backbone_as_it_is() -> None:
    net = net_of()
    net.freeze()
    objectives.heads_only()(net.train(), batch_of()).backward()
    assert taught(net) == {"sides"}


def test_heads_only_is_the_weighted_sum_it_says() -> None:
    net, batch = net_of().train(), batch_of()
    net.freeze()
    found = objectives.heads_only(features=0.25)(net, batch)
    seen = net(*batch.inputs)
    *exits, last = seen.logits
    each = [0.7 * functional.cross_entropy(z, batch.labels) + 0.3 * kl(z, last, T) for z in exits]
    compared = [*objectives.heterogeneous(net, seen), *objectives.homogeneous(net, seen)]
    assert len(compared) == 4 + 2
    torch.testing.assert_close(found, (sum(each) + 0.25 * sum(compared)) / 4)


def test_linear_heads_have_no_features_to_compare() -> None:
    net, batch = net_of(("linear", "linear")), batch_of()
    seen = net.train()(*batch.inputs)
    assert objectives.heterogeneous(net, seen) == objectives.homogeneous(net, seen) == []
    assert torch.isfinite(objectives.heads_only()(net, batch))


def test_features_are_compared_with_the_last_block_where_they_have_its_form() -> None:
    net = net_of(("local3", "local1", "local1", "global2")).train()
    seen = net(*batch_of().inputs)
    assert len(objectives.heterogeneous(net, seen)) == 3  # the first and the last local head, the only global one
    other = objectives.Seen(seen.logits, seen.own, seen.hidden[:, :6], seen.features, seen.at)
    assert objectives.heterogeneous(net, other) == []


def test_heterogeneous_is_least_for_the_features_of_the_last_block() -> None:
    net = net_of(("local3",)).train()
    seen = net(*batch_of().inputs)
    alike = objectives.Seen(seen.logits, seen.own, seen.hidden, (seen.hidden,), seen.at)
    same, other = (float(objectives.heterogeneous(net, each)[0].detach()) for each in (alike, seen))
    assert same == pytest.approx(0, abs=1e-5)
    assert other > 0.01


def test_gram_matrices_do_not_grow_with_the_number_of_tokens() -> None:
    tokens = torch.randn(2, 9, 5)
    torch.testing.assert_close(objectives.gram(tokens), objectives.gram(tokens.repeat(1, 4, 1)))
    assert objectives.gram(tokens).shape == (2, 5, 5)


def test_the_last_head_of_a_kind_is_the_teacher() -> None:
    net = net_of().train()
    seen = net(*batch_of().inputs)
    torch.stack(objectives.homogeneous(net, seen)).sum().backward()
    taught_heads = {
        name.split(".")[1] for name, each in net.sides.named_parameters(prefix="s") if each.grad is not None
    }
    assert taught_heads == {"0", "2"}


# ------------------------------------------------------------------ Dynamic Perceiver


def test_perceiver_is_the_weighted_sum_it_says() -> None:
    torch.manual_seed(0)
    net, batch = net_of(("linear", "linear", "linear")), batch_of()
    net.final = True
    seen = net(*batch.inputs)
    first, second, last = seen.logits
    ce = [functional.cross_entropy(z, batch.labels) for z in (first, second, last, seen.own)]
    expected = 0.5 * (ce[0] + ce[1]) + ce[2] + ce[3] + 0.5 * sum(kl(z, last, 1.0) for z in (first, second, seen.own))
    torch.testing.assert_close(objectives.perceiver()(net, batch), expected)


def test_perceiver_without_labels_learns_from_the_own_head() -> None:
    net = net_of(("linear", "linear"))
    net.final = True
    objectives.perceiver()(net, batch_of(labels=False)).backward()
    assert net.backbone.head.weight.grad is None
    assert taught(net) == {"backbone", "sides"}


# ------------------------------------------------------------------ in the trainer


class Rows:
    """The same few examples, again and again."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def epoch(self, number: int) -> Any:
        return iter([self.batch] * self.steps)


def test_the_backbone_trains_at_half_the_rate() -> None:
    net = net_of(("local3",))
    groups = objectives.groups(0.1)(net)
    sizes = {(group.get("lr", 1.0), group["weight_decay"]): sum(p.numel() for p in group["params"]) for group in groups}
    assert set(sizes) == {(0.5, 0.1), (0.5, 0.0), (1.0, 0.1), (1.0, 0.0)}
    assert sum(sizes.values()) == sum(p.numel() for p in net.parameters())
    net.freeze()
    assert {group.get("lr", 1.0) for group in objectives.groups(0.1)(net)} == {1.0}


def test_heads_trained_after_the_net_leave_its_answer() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(48, 12, 8), torch.arange(48) % CLASSES
    x[torch.arange(48), :, labels] += 1.0
    net, data = net_of(("local3", "global2")), Rows(Batch((x,), labels), 25)
    training = Training(epochs=1, rate=3e-2, precision="fp32")
    fit(net, data, training, objectives.joint(), groups=objectives.groups(0.05))
    with torch.no_grad():
        before = net(x)
    net.freeze()
    fit(net, data, training, objectives.heads_only(), groups=objectives.groups(0.05))
    with torch.no_grad():
        after = net(x)
    assert torch.equal(before.own, after.own)
    assert not torch.equal(before.logits[0], after.logits[0])
    right = [float((logits.argmax(1) == labels).float().mean()) for logits in after.logits]
    assert min(right) > 0.9
