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
    others have room for, of which the latest `recent` tokens take some, whatever is decided of them.
    """

    layers: tuple[Layer, ...]
    context: int
    after: int
    rows: int
    recent: int

    def room(self, layer: int) -> int:
        """How many rows the cache of an attention has: the tokens it has room for, and one that nobody reads."""
        return self.context if layer < self.after or not self.skips else self.rows + 1

    @property
    def skips(self) -> bool:
        """Whether there is less room than text."""
        return self.rows < self.context


def states_of(plan: Plan, batch: int) -> dict[str, Array]:
    """What is stored before the first token, by name: nothing."""
    counts = {"position": (1,), "stored": (batch,), "kept": (batch, plan.recent)}
    found: dict[str, Array] = {name: np.zeros(shape, np.int64) for name, shape in counts.items()}
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
            self.seen = visible(self.net.keeping(call.key, call.value), plan.rows, plan.recent)
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


def visible(keep: Tensor, rows: int, recent: int) -> Tensor:
    """Which tokens (last axis) each one sees, 1 or 0 [b, 1, t, t], as it would in a cache of so many rows.

    A token sees itself and the `recent - 1` before it; of those further back it sees the ones that were kept, as long
    as fewer than `rows - recent` others were kept after them. The gradient of `keep` goes through it.
    """
    count = keep.shape[1]
    kept = functional.pad(torch.cumsum(keep.detach(), 1), (recent, 0))
    before, gone = functional.pad(kept, (1, 0))[:, recent : recent + count], kept[:, :count]
    held = (gone[:, :, None] - before[:, None, :] <= rows - recent).to(keep.dtype)
    far = torch.ones(count, count, dtype=keep.dtype, device=keep.device).tril(-recent)
    near = torch.ones_like(far).tril() - far
    return (near + far * held * keep[:, None, :])[:, None]


class Steps(nn.Module):
    """The network token by token: takes a token and what was stored, gives the answer and what is stored then."""

    def __init__(self, net: Skipping) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor, position: Tensor, stored: Tensor, kept: Tensor, *caches: Tensor) -> Any:
        """One step: the answers, and the states after it.

        Args:
            tokens: int64 [b, 1].
            position: int64 [1], how many tokens were read.
            stored: int64 [b], how many of them were stored for good by the attentions that skip.
            kept: int64 [b, recent], 1 for the latest tokens that will be.
            caches: keys and values of each attention in turn, [b, heads, rows, size].
        """
        step = Step(self.net, position, stored, kept, caches)
        with step:
            returned = outputs_of(self.net.backbone(tokens))
        return (*returned, position + 1, *step.after())


class Step(Attending):
    """Attentions of one token over what is stored.

    A cache that stores all is a ring. One that skips is two, and a row that is never read: the token takes the place
    of the oldest of the latest ones, and that one goes on to the ring of what is kept, or to the row that is never
    read. So nothing else moves, shapes are fixed, one ScatterND writes both, and a step takes as long however full
    the rings are.
    """

    def __init__(self, net: Skipping, position: Tensor, stored: Tensor, kept: Tensor, caches: Sequence[Tensor]) -> None:
        super().__init__()
        self.net, self.plan, self.position = net, net.plan, position
        self.stored, self.kept, self.caches = stored, kept, list(caches)
        self.latest = position % net.plan.recent
        self.leaves = kept.index_select(1, self.latest).squeeze(1)
        self.places: dict[tuple[bool, int], Place] = {}

    def after(self) -> tuple[Tensor, ...]:
        """What is stored for good, what will be, and the caches, once the network ran."""
        return self.stored + self.leaves, self.kept, *self.caches

    def counted(self, numbers: Tensor) -> Tensor:
        """Beyond the context the last place is taken again: a table of places has no more."""
        if numbers.numel() != 1:
            return numbers
        return numbers + self.position.clamp_max(self.plan.context - 1).to(numbers.dtype)

    def attend(self, call: Call) -> Tensor:
        """Attention over the cache, the token among it."""
        skips = self.plan.skips and call.number >= self.plan.after
        if skips and call.number == self.plan.after:
            keep = self.net.keeping(call.key, call.value).to(self.kept.dtype)
            self.kept = self.kept.index_copy(1, self.latest, keep)
        named = skips, call.key.shape[1]
        if named not in self.places:
            self.places[named] = (self._two_rings if skips else self._one_ring)(call.key)
        at, place = 2 * call.number, self.places[named]
        for offset, new in enumerate((call.key, call.value)):
            self.caches[at + offset] = place.put(new, self.caches[at + offset])
        return weighed(call, self.caches[at], self.caches[at + 1], place.bias)

    def _one_ring(self, key: Tensor) -> Place:
        row = (self.position % self.plan.context).expand(key.shape[0])
        filled = torch.arange(self.plan.context, device=key.device) <= self.position
        return Place(_entries(key, row), None, _hiding(filled[None], key))

    def _two_rings(self, key: Tensor) -> Place:
        plan, numbers = self.plan, torch.arange(self.plan.rows + 1, device=key.device)
        ring = plan.recent + self.stored % (plan.rows - plan.recent)
        goes = torch.where(self.leaves > 0, ring, torch.full_like(ring, plan.rows))
        latest = (numbers < plan.recent) & (numbers <= self.position)
        filled = (numbers >= plan.recent) & (numbers < plan.rows)
        filled = filled & (numbers - plan.recent < (self.stored + self.leaves)[:, None])
        where = _entries(key, goes, self.latest.expand(key.shape[0]))
        return Place(where, self.latest, _hiding(latest | filled, key))


@dataclass(frozen=True, eq=False)
class Place:
    """The entries [batch, head, row] that are written, each [b, h, n], and what hides the rows that hold nothing.

    Where there is a `moved` row, what it holds is written to the first of two.
    """

    where: tuple[Tensor, Tensor, Tensor]
    moved: Tensor | None
    bias: Tensor

    def put(self, new: Tensor, cache: Tensor) -> Tensor:
        """The cache [b, h, rows, d] with a token's [b, h, 1, d] in its place."""
        values = new if self.moved is None else torch.cat([cache.index_select(2, self.moved), new], 2)
        return cache.index_put(self.where, values)


def _entries(key: Tensor, *rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entries [b, h, n] of all heads, for each of n `rows` [b]."""
    batch, heads = key.shape[:2]
    size = batch, heads, len(rows)
    numbers = (torch.arange(count, device=key.device) for count in (batch, heads))
    batches, each = (number.reshape(shape) for number, shape in zip(numbers, ((-1, 1, 1), (1, -1, 1)), strict=True))
    return batches.expand(size), each.expand(size), torch.stack(rows, 1)[:, None].expand(size)


def _hiding(filled: Tensor, like: Tensor) -> Tensor:
    """What is added to scores [b, 1, 1, rows]: nothing where a row is filled, else minus infinity."""
    bias = torch.zeros(filled.shape, dtype=like.dtype, device=like.device).masked_fill(~filled, float("-inf"))
    return bias[:, None, None, :]
