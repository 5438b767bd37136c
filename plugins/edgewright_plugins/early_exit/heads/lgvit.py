"""The heads of LGViT (Xu et al. 2023, arXiv:2308.00255): local perception at shallow exits, global at deep ones.

Departures: batch norms stand before the activation, where they fold into the convolution; both kinds add what they find
to the mean of all tokens, so that neither knows less than a linear head; keys and queries are normed first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from edgewright.torchkit.anatomy import TokenGrid
from edgewright_plugins.early_exit.heads.tokens import Pooled, patch_map, picked
from edgewright_plugins.early_exit.side import State

MOST_HEADS = 8


def kinds(exits: int) -> tuple[str, ...]:
    """What stands at each of `exits` exits, shallow ones first.

    The first half is local (a depthwise 3x3 convolution inside, then none), the rest global (every second token of a
    row, then every third).
    """
    local = (exits + 1) // 2
    return (*_halves(local, "local3", "local1"), *_halves(exits - local, "global2", "global3"))


def _halves(count: int, first: str, second: str) -> list[str]:
    return [first] * ((count + 1) // 2) + [second] * (count // 2)


def takes(grid: TokenGrid) -> bool:
    """Whether these heads can stand where a block gives `grid`: it must be a map of two sizes."""
    return grid.grid is not None and len(grid.grid) == 2


def head(kind: str, grid: TokenGrid, classes: int, reads: Sequence[int] = ()) -> nn.Module:
    """A new head of one of the `kinds`."""
    return HEADS[kind](grid, classes, reads)


class LocalHead(nn.Module):
    """Local perception: 1x1 convolution, depthwise 3x3 convolution or none, 1x1 convolution, added to the tokens."""

    kind, stride = "local", 1

    def __init__(self, grid: TokenGrid, classes: int, reads: Sequence[int] = (), *, depthwise: bool = True) -> None:
        """`grid` is what the block gives, `reads` are the positions that the network's own head reads."""
        super().__init__()
        width = grid.width
        self.grid = grid
        around = (*_normed(width, 3), nn.GELU()) if depthwise else ()
        self.look = nn.Sequential(*_normed(width, 1), nn.GELU(), *around)
        self.join = nn.Sequential(*_normed(width, 1))
        self.answer = Pooled(grid, classes, reads)
        self.features: Tensor | None = None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Logits [b, classes]; `x` and the state pass as they are.

        Only training needs the update of every token. A mean and a 1x1 convolution may change places, and behind the
        mean the convolution costs next to nothing.
        """
        image = patch_map(x, self.grid)
        seen = self.look(image)
        if not self.training:
            return x, state, self.answer(x, self.join(seen.mean((2, 3), keepdim=True)).flatten(1))
        update = self.join(seen)
        self.features = (image + update).flatten(2).transpose(1, 2)
        return x, state, self.answer(x, update.mean((2, 3)))


def _normed(width: int, size: int) -> tuple[nn.Module, nn.Module]:
    """A convolution, depthwise where it is larger than a pixel, and its batch norm."""
    groups = width if size > 1 else 1
    return nn.Conv2d(width, width, size, padding=size // 2, groups=groups, bias=False), nn.BatchNorm2d(width)


class GlobalHead(nn.Module):
    """Global aggregation: attention among every `stride`-th token of every `stride`-th row, added to the tokens."""

    kind = "global"

    def __init__(self, grid: TokenGrid, classes: int, reads: Sequence[int] = (), *, stride: int = 2) -> None:
        """`grid` is what the block gives, `reads` are the positions that the network's own head reads."""
        super().__init__()
        self.grid, self.stride, self.heads = grid, stride, math.gcd(MOST_HEADS, grid.width)
        self.norm = nn.LayerNorm(grid.width)
        self.qkv, self.output = nn.Linear(grid.width, 3 * grid.width), nn.Linear(grid.width, grid.width)
        with torch.no_grad():  # the usual 1 / sqrt(d) of scores, which so costs nothing later
            self.qkv.weight[: grid.width] *= (grid.width // self.heads) ** -0.5
        self.answer = Pooled(grid, classes, reads)
        self.features: Tensor | None = None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Logits [b, classes]; `x` and the state pass as they are.

        Outside of training the mean over queries is taken of the probabilities, not of what they gather.
        """
        tokens = picked(x, self.grid, self.stride)
        parts = self.qkv(self.norm(tokens)).unflatten(2, (3 * self.heads, -1)).transpose(1, 2)
        query, key, value = parts.chunk(3, 1)
        shares = torch.softmax(query @ key.transpose(2, 3), 3)
        if not self.training:
            return x, state, self.answer(x, self.output((shares.mean(2, keepdim=True) @ value).flatten(1)))
        update = self.output((shares @ value).transpose(1, 2).flatten(2))
        self.features = tokens + update
        return x, state, self.answer(x, update.mean(1))


HEADS: dict[str, Callable[[TokenGrid, int, Sequence[int]], nn.Module]] = {
    "local3": lambda grid, classes, reads: LocalHead(grid, classes, reads, depthwise=True),
    "local1": lambda grid, classes, reads: LocalHead(grid, classes, reads, depthwise=False),
    "global2": lambda grid, classes, reads: GlobalHead(grid, classes, reads, stride=2),
    "global3": lambda grid, classes, reads: GlobalHead(grid, classes, reads, stride=3),
}
