"""What a network with exits makes small: at first all of it together, then its heads alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.errors import TaskError
from edgewright.torchkit.data import Batch
from edgewright.torchkit.losses import Loss, Objective, cross_entropy, divergence, judged, logits_of, outputs_of
from edgewright.torchkit.training import Groups, decayed_and_not
from edgewright_plugins.early_exit.heads.tokens import fits, picked
from edgewright_plugins.early_exit.net import MultiExit, Seen

TEMPERATURE = 2.0
SLOWER = 0.5
"""The backbone's share of the learning rate: it is trained already, the heads are new."""


def groups(decay: float) -> Groups:
    """Parameter groups of a `MultiExit`: heads at the full rate, the backbone at half of it."""

    def listed(module: nn.Module) -> Sequence[dict[str, Any]]:
        net = _net(module)
        slow = [{**group, "lr": SLOWER} for group in decayed_and_not(net.backbone, decay)]
        return [*slow, *decayed_and_not(net.sides, decay)]

    return listed


def joint(
    teacher: nn.Module | None = None, loss: Loss | None = None, *, final: float = 2.0, distill: float = 0.4
) -> Objective:
    """Everything at once: each exit learns from the labels and from the final answer, which must not get worse.

    LGViT (arXiv:2308.00255, section 3.4, stage 1) takes turns between minibatches of the final loss and of all losses.
    One weighted sum has the same aim, needs no weight of its own for each block, and does not pull the optimiser's
    averages to and fro between two losses.

    Args:
        teacher: the original; the final answer is compared with it. None leaves that out.
        loss: the task's; cross entropy without.
        final: the weight of the final answer's loss; each exit weighs 1.
        distill: an exit's share of T^2 KL to the final answer (stopped), the rest is its loss on the labels.

    The objective raises: TaskError where there are neither labels nor a teacher.
    """
    loss = loss or cross_entropy()
    teacher = None if teacher is None else copy.deepcopy(teacher).eval()

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        seen = _seen(module, batch)
        *exits, last = seen.logits
        wanted = logits_of(last.detach().float())
        parts = [_taught(logits, wanted, batch.labels, loss, distill) for logits in exits]
        parts += [final * term for term in _final(last, teacher, batch, loss)]
        return torch.stack(parts).sum() / (len(exits) + final)

    return objective


def _final(last: Tensor, teacher: nn.Module | None, batch: Batch, loss: Loss) -> list[Tensor]:
    """The final answer's loss on the labels, and half of that is its distance to the original's where there is one."""
    if teacher is None:
        if batch.labels is None:
            raise TaskError("the training examples have no labels; give labels, or the original to learn from")
        return [judged(loss, last, batch.labels)]
    with torch.no_grad():
        wanted = outputs_of(teacher.to(last.device)(*batch.inputs))[0]
    distance = divergence(logits_of(last.float()), logits_of(wanted.float()), TEMPERATURE)
    return [distance] if batch.labels is None else [0.5 * judged(loss, last, batch.labels), 0.5 * distance]


def _taught(logits: Tensor, wanted: Tensor, labels: Any, loss: Loss, distill: float) -> Tensor:
    """One exit: `1 - distill` of its loss on the labels, `distill` of its distance to `wanted`; all of it without."""
    distance = divergence(logits.float(), wanted, TEMPERATURE)
    return distance if labels is None else (1 - distill) * judged(loss, logits, labels) + distill * distance


def heads_only(loss: Loss | None = None, *, distill: float = 0.3, features: float = 0.01) -> Objective:
    """The heads of a network whose backbone is frozen (LGViT, section 3.4, stage 2): labels, answers, and features.

    Heads that keep no features, as linear ones, learn from labels and answers alone.

    Args:
        loss: the task's; cross entropy without.
        distill: the share of T^2 KL to the final answer.
        features: the weight of `heterogeneous` and of `homogeneous`, each.
    """
    loss = loss or cross_entropy()

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        net, seen = _net(module), _seen(module, batch)
        *exits, last = seen.logits
        wanted = logits_of(last.detach().float())
        parts = [_taught(logits, wanted, batch.labels, loss, distill) for logits in exits]
        compared = [features * term for term in (*heterogeneous(net, seen), *homogeneous(net, seen))]
        return torch.stack([*parts, *compared]).sum() / len(exits)

    return objective


def heterogeneous(net: MultiExit, seen: Seen) -> list[Tensor]:
    """KL of softmaxes over channels, from the last block's tokens to those of the first and last head of each kind.

    It is summed over an image's tokens. Where a head picks tokens, so is the last block's map. Tokens are standardised
    first, since the channels of large values would be all that a softmax sees. Heads at another width or resolution
    than the last block's are left out.
    """
    chosen = {number for family in _families(net, seen) for number in (family[0], family[-1])}
    terms: list[Tensor] = []
    for number in sorted(chosen):
        head: Any = net.sides[number]
        found = cast("Tensor", seen.features[number])
        if fits(seen.hidden, head.grid):
            wanted = picked(seen.hidden.detach(), head.grid, head.stride)
            terms.append(found.shape[1] * divergence(standard(found), standard(wanted), 1.0))
    return terms


def homogeneous(net: MultiExit, seen: Seen) -> list[Tensor]:
    """The last head of a kind teaches the others: local ones token by token, global ones by their Gram matrices."""
    terms: list[Tensor] = []
    for family in _families(net, seen):
        kind: Any = net.sides[family[0]]
        tokens = [standard(cast("Tensor", seen.features[number])) for number in family]
        forms = [gram(each) for each in tokens] if kind.kind == "global" else tokens
        wanted = forms[-1].detach()
        terms += [functional.mse_loss(each, wanted) for each in forms[:-1] if each.shape == wanted.shape]
    return terms


def _families(net: MultiExit, seen: Seen) -> list[list[int]]:
    """The numbers of the sides with features, by kind."""
    found: dict[str, list[int]] = {}
    for number, (head, features) in enumerate(zip(cast("Any", net.sides), seen.features, strict=True)):
        if features is not None:
            found.setdefault(head.kind, []).append(number)
    return list(found.values())


def standard(tokens: Tensor) -> Tensor:
    """Each token at mean 0 and deviation 1 over its channels."""
    return functional.layer_norm(tokens.float(), tokens.shape[-1:])


def gram(tokens: Tensor) -> Tensor:
    """F^T F / n of tokens [b, n, c]: [b, c, c]; of the same size whatever the number of tokens."""
    return tokens.transpose(1, 2) @ tokens / tokens.shape[1]


def perceiver(loss: Loss | None = None, *, distill: float = 0.5) -> Objective:
    """Dynamic Perceiver's (arXiv:2306.11248, section 3.4, and the authors' settings).

    The answer and the network's own head weigh 1, the exits 0.5, and `distill` weighs KL (T = 1) of each of these to
    the answer, stopped. Without labels the network's own head teaches the answer.
    """
    loss = loss or cross_entropy()

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        seen = _seen(module, batch)
        *exits, last = seen.logits
        own, wanted = logits_of(seen.own.float()), last.detach().float()
        parts = [distill * divergence(each.float(), wanted, 1.0) for each in (*exits, own)]
        if batch.labels is None:
            return torch.stack([*parts[:-1], divergence(last.float(), own.detach(), 1.0)]).sum()
        parts += [0.5 * judged(loss, each, batch.labels) for each in exits]
        parts += [judged(loss, each, batch.labels) for each in (last, seen.own)]
        return torch.stack(parts).sum()

    return objective


def _net(module: nn.Module) -> MultiExit:
    if not isinstance(module, MultiExit):
        raise TypeError(f"this objective trains a MultiExit, not {type(module).__name__}")
    return module


def _seen(module: nn.Module, batch: Batch) -> Seen:
    return cast("Seen", module(*batch.inputs))
