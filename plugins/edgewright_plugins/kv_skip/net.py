"""A decoder whose later attentions store some tokens alone: over whole texts to learn, and token by token to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.torchkit.losses import outputs_of
from edgewright.types import Array
from edgewright_plugins.kv_skip.attention import Attending, Call, shared, weighed

HIDDEN = 64
"""Of the predictor."""

Rule = Callable[[Tensor], Tensor]
"""What to store, 1 or 0 [b, t], from the predictor's logits [b, t]."""


@dataclass(frozen=True)
class Layer:
    """What one attention stores per token: so many heads of keys, and of values, of such sizes."""

    heads: int
    key: int
    value: int


@dataclass(frozen=True)
class Plan:
    """The attentions in the order in which they are called, and how much each stores.

    `context` is the length of a text, `after` the number of attentions that store all of it, and `rows` what the
    others have room for; the token that is read takes one of them.
    """

    layers: tuple[Layer, ...]
    context: int
    after: int
    rows: int

    def room(self, layer: int) -> int:
        """How many tokens an attention has room for."""
        return self.context if layer < self.after else self.rows

    @property
    def skips(self) -> bool:
        """Whether there is less room than text."""
        return self.rows < self.context


def states_of(plan: Plan, batch: int) -> dict[str, Array]:
    """What is stored before the first token, by name: nothing."""
    found: dict[str, Array] = {"position": np.zeros(1, np.int64), "stored": np.zeros(batch, np.int64)}
    for number, layer in enumerate(plan.layers):
        for name, size in (("keys", layer.key), ("values", layer.value)):
            found[f"{name}_{number}"] = np.zeros((batch, layer.heads, plan.room(number), size), np.float32)
    return found


class Predictor(nn.Module):
    """Tells of a token, from its keys and values in the first attention that stores some alone, whether to store it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        seen = layer.heads * (layer.key + layer.value)
        self.norm, self.down, self.up = nn.LayerNorm(seen), nn.Linear(seen, HIDDEN), nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.up.bias)

    def forward(self, keys: Tensor, values: Tensor) -> Tensor:
        """Keys and values [b, h, t, d] to logits [b, t], which are positive for what is to be stored."""
        seen = torch.cat([part.transpose(1, 2).flatten(2) for part in (keys, values)], 2)
        return self.up(functional.gelu(self.down(self.norm(seen)))).squeeze(2)


class Skipping(nn.Module):
    """The backbone, run over whole texts; its later attentions see what would have been stored.

    `rule` replaces what decides. `noted` are the logits and decisions of the last run.
    """

    def __init__(self, backbone: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.backbone, self.plan = backbone, plan
        self.predictor = Predictor(plan.layers[plan.after]) if plan.skips else None
        self.rule: Rule = stored
        self.noted: tuple[Tensor, Tensor] | None = None

    def forward(self, tokens: Tensor) -> Any:
        """What the backbone returns."""
        with _Over(self):
            return self.backbone(tokens)

    def keeping(self, keys: Tensor, values: Tensor) -> Tensor:
        """Which tokens are stored, 1 or 0 [b, t]."""
        if self.predictor is None:
            return keys.new_ones(keys.shape[0], keys.shape[2])
        logits = self.predictor(keys, values)
        keep = self.rule(logits)
        self.noted = logits, keep
        return keep

    def new(self) -> Sequence[nn.Parameter]:
        """The weights that no training has seen."""
        return [*self.predictor.parameters()] if self.predictor else []


def stored(logits: Tensor) -> Tensor:
    """What the predictor says."""
    return (logits > 0).to(logits.dtype)


class _Over(Attending):
    """Attentions over whole texts."""

    def __init__(self, net: Skipping) -> None:
        super().__init__()
        self.net = net
        self.seen: Tensor | None = None

    def attend(self, call: Call) -> Tensor:
        plan = self.net.plan
        keys, values = (shared(each, call.groups) for each in (call.key, call.value))
        if call.number < plan.after or not plan.skips:
            return functional.scaled_dot_product_attention(call.query, keys, values, is_causal=True, scale=call.scale)
        if self.seen is None:
            self.seen = visible(self.net.keeping(call.key, call.value), plan.rows)
        scores = (call.query * call.scale) @ keys.transpose(-1, -2)
        return (_learning if self.net.training else _exact)(scores, self.seen) @ values


def _exact(scores: Tensor, seen: Tensor) -> Tensor:
    return torch.softmax(scores.masked_fill(seen == 0, float("-inf")), dim=-1)


def _learning(scores: Tensor, seen: Tensor) -> Tensor:
    """The same, through which hidden keys learn what they would have been worth (DynamicViT, equation 11)."""
    earlier = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    highest = scores.detach().masked_fill(~earlier, float("-inf")).amax(-1, keepdim=True)
    weights = (scores - highest).clamp(-FAR, 0).exp() * seen
    return weights / weights.sum(-1, keepdim=True)


FAR = 40.0
"""How much lower than the highest a score may be; what is lower still counts as that."""


def visible(keep: Tensor, rows: int) -> Tensor:
    """Which tokens (last axis) each one sees, 1 or 0 [b, 1, t, t], as it would in a cache of so many rows.

    A token sees itself, and those before it that were stored and not yet overwritten by `rows - 1` others. The
    gradient of `keep` goes through it.
    """
    count = keep.shape[1]
    before = torch.cumsum(keep.detach(), 1) - keep.detach()
    held = (before[:, :, None] - before[:, None, :] <= rows - 1).to(keep.dtype)
    earlier = torch.ones(count, count, dtype=keep.dtype, device=keep.device).tril(-1)
    itself = torch.eye(count, dtype=keep.dtype, device=keep.device)
    return (itself + earlier * held * keep[:, None, :])[:, None]


class Steps(nn.Module):
    """The network token by token: takes a token and what was stored, gives the answer and what is stored then.

    A cache is a ring of rows. The token that is read always takes the next one, so that it sees itself; whether it
    stays there is told by the count alone: the next token takes the row of one that is not kept. So nothing moves,
    shapes are fixed, and a step takes as long however full the ring is.
    """

    def __init__(self, net: Skipping) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor, position: Tensor, count: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """One step.

        Args:
            tokens: int64 [b, 1].
            position: int64 [1], how many tokens were read.
            count: int64 [b], how many the later attentions stored.
            caches: keys and values of each attention in turn, [b, heads, rows, size].
        """
        step = _Step(self.net, position, count, caches)
        with step:
            returned = outputs_of(self.net.backbone(tokens))
        return (*returned, position + 1, step.count, *step.caches)


class _Step(Attending):
    """Attentions of one token over what is stored."""

    def __init__(self, net: Skipping, position: Tensor, count: Tensor, caches: Sequence[Tensor]) -> None:
        super().__init__()
        self.net, self.position, self.count, self.caches = net, position, count, list(caches)
        self.stored = count
        self.places: dict[tuple[int, int], Place] = {}

    def counted(self, numbers: Tensor) -> Tensor:
        """Beyond the context the last place is taken again: a table of places has no more."""
        if numbers.numel() != 1:
            return numbers
        return numbers + self.position.clamp_max(self.net.plan.context - 1).to(numbers.dtype)

    def attend(self, call: Call) -> Tensor:
        plan, at = self.net.plan, 2 * call.number
        if call.number == plan.after and plan.skips:
            keep = self.net.keeping(call.key, call.value)
            self.count = self.count + keep[:, 0].to(self.count.dtype)
        place = self._place(plan.room(call.number), call.key)
        for offset, new in enumerate((call.key, call.value)):
            self.caches[at + offset] = place.put(new, self.caches[at + offset])
        return weighed(call, self.caches[at], self.caches[at + 1], place.bias)

    def _place(self, rows: int, key: Tensor) -> Place:
        """Where the token goes among so many rows."""
        batch, heads = key.shape[:2]
        if (rows, heads) not in self.places:
            full = rows == self.net.plan.context
            count = self.position.expand(batch) if full else self.stored
            axes = torch.arange(batch * heads, device=key.device)
            where = (axes // heads, axes % heads, (count % rows).repeat_interleave(heads))
            empty = torch.arange(rows, device=key.device) > count[:, None]
            bias = torch.zeros(empty.shape, dtype=key.dtype, device=key.device).masked_fill(empty, float("-inf"))
            self.places[rows, heads] = Place(where, bias[:, None, None, :])
        return self.places[rows, heads]


@dataclass(frozen=True, eq=False)
class Place:
    """The entry [batch, head, row] that a token takes for each head, and what hides the rows that hold nothing."""

    where: tuple[Tensor, Tensor, Tensor]
    bias: Tensor

    def put(self, new: Tensor, cache: Tensor) -> Tensor:
        """The cache [b, h, rows, d] with a token's [b, h, 1, d] in its place: one ScatterND, and no other copy."""
        return cache.index_put(self.where, new.flatten(0, 2))
