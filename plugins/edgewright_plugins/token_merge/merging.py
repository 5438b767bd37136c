"""Joins the tokens that are most alike, two and two (ToMe: Bolya et al. 2023, arXiv:2210.09461, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright_plugins.early_exit.net import Change, changed
from edgewright_plugins.early_exit.side import Cut
from edgewright_plugins.token_merge.proportional import Flow, Proportional
from edgewright_plugins.tokens.schedule import Schedule
from edgewright_plugins.tokens.shape import Shape


@dataclass(frozen=True)
class Step:
    """After the block that the module at `end` ends, `keep` tokens stay.

    Alike are tokens with alike keys: what the layer `key` gave in that block, or the tokens themselves where it is
    empty (one layer gives queries, keys and values, in an order that cannot be told).
    """

    end: str
    keep: int
    key: str = ""


class MergedNet(nn.Module):
    """A network whose tokens become fewer after some of its blocks. Its own code decides how blocks are called.

    An attention weighs a token by how many it stands for (eq. 1 of the paper), where its softmax is one that torch's
    functions compute. Where the head reads all tokens, each gets its own place back after the last block, so that a
    mean counts each as often as it should.
    """

    def __init__(self, backbone: nn.Module, shape: Shape, steps: Sequence[Step]) -> None:
        super().__init__()
        self.backbone, self.shape, self.steps = backbone, shape, tuple(steps)
        self.restore = shape.pooling != "token"

    def forward(self, *inputs: Tensor) -> Any:
        """What the network returns."""
        return self.told(*inputs)[0]

    def told(self, *inputs: Tensor) -> tuple[Any, int]:
        """What the network returns, and how many attentions weighed tokens by what they stand for."""
        flow = Flow()
        changes: list[tuple[Cut, Change]] = []
        for step in self.steps:
            if step.key:
                changes.append((Cut(step.key), self._seeing(flow)))
            changes.append((Cut(step.end), self._merging(flow, step.keep)))
        changes.append((Cut(self.shape.ends[-1]), self._ending(flow)))
        with changed(self.backbone, changes), Proportional(flow, self.shape.prefix):
            returned = self.backbone(*inputs)
        return returned, flow.told

    def _seeing(self, flow: Flow) -> Change:
        def see(keys: Tensor) -> Tensor:
            flow.keys = keys
            return keys

        return see

    def _merging(self, flow: Flow, keep: int) -> Change:
        def merge(x: Tensor) -> Tensor:
            fixed, tokens = x[:, : self.shape.prefix], x[:, self.shape.prefix :]
            like, flow.keys = tokens if flow.keys is None else flow.keys[:, self.shape.prefix :], None
            if self.restore and flow.origin is None:
                flow.origin = torch.arange(tokens.shape[1], device=x.device).expand(tokens.shape[:2])
            while tokens.shape[1] > keep:
                fewer = min(tokens.shape[1] - keep, tokens.shape[1] // 2)
                tokens, like = joined(flow, tokens, like, fewer)
            return torch.cat([fixed, tokens], 1)

        return merge

    def _ending(self, flow: Flow) -> Change:
        def end(x: Tensor) -> Tensor:
            flow.size = None
            if flow.origin is None:
                return x
            return torch.cat([x[:, : self.shape.prefix], rows(x[:, self.shape.prefix :], flow.origin)], 1)

        return end


def merged(backbone: nn.Module, shape: Shape, schedule: Schedule) -> MergedNet:
    """The backbone, whose tokens are joined by a schedule."""
    steps: list[Step] = []
    modules = {path for path, _ in backbone.named_modules()}
    for number, keep in zip(schedule.at, schedule.keep, strict=True):
        block = shape.blocks[number - 1]
        attention = block.attention
        apart = attention is not None and attention.key not in (attention.query, attention.value)
        key = attention.key if attention and apart and attention.key in modules else ""
        steps.append(Step(block.end, keep, key))
    return MergedNet(backbone, shape, steps)


def rows(tensor: Tensor, index: Tensor) -> Tensor:
    """Of each example in `tensor` [b, n, ...] the entries at `index` [b, m]."""
    return tensor[torch.arange(tensor.shape[0], device=tensor.device)[:, None], index]


def joined(flow: Flow, tokens: Tensor, like: Tensor, fewer: int) -> tuple[Tensor, Tensor]:
    """Join `fewer` tokens [b, n, c] with those they are most alike; what stands for both is their weighted mean.

    Every second token may be joined, with one of those between: a matching of two sets needs no loop (section 3).

    Returns: the tokens that are left, and their `like`.
    """
    size = tokens.new_ones(tokens.shape[:2]) if flow.size is None else flow.size
    unit = functional.normalize(like, dim=-1)
    best, mate = (unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)).max(2)
    order = best.argsort(1, descending=True)
    gone, kept = order[:, :fewer], order[:, fewer:]
    others = torch.arange(tokens.shape[1] // 2, device=tokens.device)
    weights = (rows(mate, gone)[:, :, None] == others).to(tokens) * rows(size[:, ::2], gone)[:, :, None]
    sizes = size[:, 1::2] + weights.sum(1)

    def means(values: Tensor) -> Tensor:
        added = weights.transpose(1, 2) @ rows(values[:, ::2], gone)
        mean = (values[:, 1::2] * size[:, 1::2, None] + added) / sizes[:, :, None]
        return torch.cat([rows(values[:, ::2], kept), mean], 1)

    if flow.origin is not None:
        flow.origin = rows(_places(order, mate, fewer, tokens.shape[1]), flow.origin)
    flow.size = torch.cat([rows(size[:, ::2], kept), sizes], 1)
    return means(tokens), means(like)


def _places(order: Tensor, mate: Tensor, fewer: int, tokens: int) -> Tensor:
    """Where each token [b, n] is after a joining: those that were kept come first, in `order`, then their mates."""
    rank, kept = order.argsort(1), order.shape[1] - fewer
    moved = torch.where(rank < fewer, kept + mate, rank - fewer)
    stayed = torch.arange(kept, kept + order.shape[1], device=order.device).expand_as(moved)
    # Of an odd number the last has no other behind it.
    return torch.stack([moved, stayed], 2).flatten(1)[:, :tokens]
