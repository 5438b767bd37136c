"""Attention of the pairs of tokens that a predictor expects to matter (Sparsifiner: Wei et al. 2023, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright_plugins.attending import HeadedAttention
from edgewright_plugins.sparsifiner.cut import Cut

FIRST = 1e4
"""Added to what is predicted for blocks that all see, so that they are always among the first."""

Rule = Callable[[Tensor], Tensor]
"""Connectivity [b, heads, tiles, blocks] -> the one that decides in its place."""


class SparseAttention(HeadedAttention):
    """softmax(q k' / sqrt(d)) v over the keys in the `cut.kept` blocks that each tile of queries connects to most.

    Connectivity is (mean q of a tile) W_q ((mean k of a block) W_k)' + b, with W_q, W_k [d, rank] of each head and
    b [tiles, blocks]: of low rank in channels as in the paper, whose learned basis of few tokens is here the fixed one
    of means over blocks, so that what is left out can be skipped. It is softmax-free, as only its order counts.
    """

    always: Tensor
    first: Tensor
    row: Tensor
    column: Tensor

    def __init__(self, heads: int, width: int, cut: Cut, rank: int) -> None:
        super().__init__(heads)
        self.cut = cut
        start = torch.eye(width, rank).expand(heads, -1, -1)
        self.query, self.key = nn.Parameter(start * width**-0.5), nn.Parameter(start.clone())
        self.bias = nn.Parameter(torch.zeros(heads, cut.tiles, cut.blocks))
        always = torch.zeros(1, heads, cut.tiles, cut.blocks)
        always[:, :, : cut.dense], always[..., : cut.seen] = 1, 1
        first = torch.zeros(cut.blocks)
        first[: cut.seen] = FIRST
        tokens = torch.arange(cut.tokens)
        for name, value in (
            ("always", always), ("first", first), ("row", tokens // cut.tile), ("column", tokens // cut.block)
        ):  # fmt: skip
            self.register_buffer(name, value, persistent=False)
        self.dense = False
        self.rule: Rule | None = None
        self.missed: Tensor | None = None
        self.noted: list[tuple[Tensor, ...]] | None = None

    def extra_repr(self) -> str:
        """How much of it is computed."""
        return f"{self.cut.kept} of {self.cut.blocks} blocks of {self.cut.block} keys"

    def predictor(self) -> list[nn.Parameter]:
        """The weights that no training has seen."""
        return [self.query, self.key, self.bias]

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries, keys and values, each [b, tokens, heads * width], to what is attended to, in their shape."""
        q, k, v = (self.split(part) for part in (query, key, value))
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        if self.dense and self.noted is None:
            return self.joined(torch.softmax(scores, dim=-1) @ v)
        # Only what the predictor itself is told teaches it: a mask has no gradient.
        tiles, blocks = self.pooled(query.detach(), self.cut.tile), self.pooled(key.detach(), self.cut.block)
        found = self.connectivity(tiles, blocks)
        if self.noted is not None:
            return self.joined(self._noting(scores, (tiles, blocks, found)) @ v)
        if self.training and torch.is_grad_enabled() and self.rule is None:
            self.missed = divergence(found, self.mass(torch.softmax(scores.detach(), dim=-1)))
        return self.joined(self.sparse(scores, found) @ v)

    def pooled(self, part: Tensor, size: int) -> Tensor:
        """Means over `size` tokens of [b, tokens, heads * width], by head: [b, heads, groups, width]."""
        over = -part.shape[1] % size
        groups = functional.pad(part, (0, 0, 0, over)) if over else part
        means = groups.unflatten(1, (-1, size)).mean(2)
        if over:
            scale = torch.ones(means.shape[1], 1, dtype=part.dtype, device=part.device)
            scale[-1] = size / (size - over)
            means = means * scale
        return self.split(means)

    def connectivity(self, tiles: Tensor, blocks: Tensor) -> Tensor:
        """How much tiles connect to blocks, [b, heads, tiles, blocks], of the means of queries and of keys."""
        return (tiles @ self.query) @ (blocks @ self.key).transpose(2, 3) + self.bias

    def mask(self, found: Tensor) -> Tensor:
        """1 where a tile sees a block, 0 elsewhere."""
        if self.rule is not None:
            found = self.rule(found)
        top = (found + self.first).topk(self.cut.kept, dim=-1, sorted=False).indices
        return self.always.expand(found.shape[0], -1, -1, -1).to(found.dtype).scatter(-1, top, 1.0)

    def sparse(self, scores: Tensor, found: Tensor) -> Tensor:
        """The shares of the keys that are seen."""
        sees = (self.mask(found) > 0).index_select(2, self.row).index_select(3, self.column)
        return torch.softmax(torch.where(sees, scores, float("-inf")), dim=-1)

    def mass(self, shares: Tensor) -> Tensor:
        """The attention of a tile's mean query to each block, of shares [b, heads, tokens, tokens]."""
        cut = self.cut
        below, beside = -cut.tokens % cut.tile, -cut.tokens % cut.block
        blocks = functional.pad(shares, (0, beside, 0, below)).unflatten(3, (-1, cut.block)).sum(4)
        tiles = blocks.unflatten(2, (-1, cut.tile)).sum(3)
        return tiles / tiles.sum(3, keepdim=True)

    def _noting(self, scores: Tensor, seen: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The shares, once it is noted what the predictor sees, what dense attention gives, and what is computed."""
        whole, mask, (tiles, blocks, found) = torch.softmax(scores, dim=-1), self.mask(seen[2]), seen
        assert self.noted is not None
        self.noted.append((tiles, blocks, self.mass(whole), mask))
        return whole if self.dense else self.sparse(scores, found)


def divergence(found: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted || softmax(found)), the mean over tiles; `wanted` sums to 1 over blocks."""
    return functional.kl_div(
        functional.log_softmax(found, dim=-1).flatten(0, -2), wanted.flatten(0, -2), reduction="batchmean"
    )


def sparse_attentions(module: nn.Module) -> Iterator[SparseAttention]:
    """Every sparse attention of a network, in the order in which it holds them."""
    return (each for each in module.modules() if isinstance(each, SparseAttention))


def dense_(module: nn.Module, dense: bool) -> Any:
    """Let every attention compute all, or only what it keeps; in place."""
    for each in sparse_attentions(module):
        each.dense = dense
    return module
