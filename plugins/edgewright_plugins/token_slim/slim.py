"""Slimming tokens, and recovering them to learn from (SiT: Zong et al. 2022, arXiv:2111.12624, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod

import torch
from torch import Tensor, nn

SHARE = 0.94
"""Of a token's weight at the start that lies on those it stands for."""


class Slim(nn.Module):
    """The token slimming module: `keep` convex combinations of the tokens, by what is in them.

    A = softmax over tokens of s * W2 GELU(W1 LN(X)) + P, and X' = A^T X. P is not in the paper: the weight that a
    token has for its place, which starts as the mean over `groups` of neighbours. So the network begins near to one
    with pooled tokens, and not with tokens that are all alike. It is a constant in the graph, and costs one addition.
    """

    def __init__(self, width: int, groups: Sequence[Sequence[int]], *, prefix: int) -> None:
        """`groups` lists the tokens that each new one starts as the mean of; the first `prefix` tokens pass."""
        super().__init__()
        self.prefix = prefix
        self.norm, self.down = nn.LayerNorm(width), nn.Linear(width, width // 2)
        self.up = nn.Linear(width // 2, len(groups), bias=False)
        self.scale = nn.Parameter(torch.ones(()))
        self.place = nn.Parameter(_places(groups))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, prefix + n, c] to [b, prefix + keep, c]."""
        tokens = x[:, self.prefix :]
        scores = self.scale * self.up(nn.functional.gelu(self.down(self.norm(tokens)))) + self.place
        slimmed = torch.softmax(scores.transpose(1, 2), dim=-1) @ tokens
        return torch.cat([x[:, : self.prefix], slimmed], 1) if self.prefix else slimmed


def _places(groups: Sequence[Sequence[int]]) -> Tensor:
    """Weights [n, keep] under which a softmax over n gives each group `SHARE` of its column."""
    tokens = sum(map(len, groups))
    places = torch.zeros(tokens, len(groups))
    for column, members in enumerate(groups):
        rest = max(tokens - len(members), 1)
        places[list(members), column] = log(SHARE / (1 - SHARE) * rest / len(members))
    return places


def neighbours(grid: Sequence[int], keep: int) -> tuple[list[list[int]], tuple[int, ...]]:
    """Groups of neighbouring tokens of a grid, `keep` in all, and the grid that they make.

    The longest side is halved as long as that leads to `keep`; otherwise runs of tokens are groups.
    """
    sides = list(grid)
    while prod(sides) > keep:
        longest = max(range(len(sides)), key=lambda axis: (sides[axis] % 2 == 0, sides[axis], axis))
        sides[longest] = -(-sides[longest] // 2)
    if prod(sides) != keep or len(grid) != 2:
        count = prod(grid)
        return [list(range(count * i // keep, count * (i + 1) // keep)) for i in range(keep)], (keep,)
    groups: list[list[int]] = [[] for _ in range(keep)]
    for token in range(prod(grid)):
        row, column = divmod(token, grid[1])
        new = (row * sides[0] // grid[0]) * sides[1] + column * sides[1] // grid[1]
        groups[new].append(token)
    return groups, tuple(sides)


class Recover(nn.Module):
    """The reverse module, for training alone: what all tokens would be, from the slimmed ones.

    X^ = M(LN(X')^T)^T with an MLP M over the tokens, four times as wide as there are in the end, then
    X^ + MLP(LN(X^)). The prefix passes.
    """

    def __init__(self, width: int, slimmed: int, tokens: int, *, prefix: int) -> None:
        super().__init__()
        self.prefix, wide = prefix, 4 * tokens
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(nn.Linear(slimmed, wide), nn.GELU(), nn.Linear(wide, tokens))
        self.within = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, prefix + slimmed, c] to [b, prefix + tokens, c]."""
        full = self.across(self.norm(x[:, self.prefix :]).transpose(1, 2)).transpose(1, 2)
        full = full + self.within(self.norm2(full))
        return torch.cat([x[:, : self.prefix], full], 1) if self.prefix else full
