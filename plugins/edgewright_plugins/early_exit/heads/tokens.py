"""Reads the tokens of a block whatever their layout, and answers from their mean: what all heads share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgewright.torchkit.anatomy import TokenGrid


def patch_tokens(x: Tensor, grid: TokenGrid) -> Tensor:
    """The tokens [b, n, c] that stand for parts of the input; `x` is what a block gave, in its own layout."""
    if grid.layout == "map":
        return x.flatten(2).transpose(1, 2)
    if grid.layout == "map_last":
        return x.flatten(1, -2)
    if x.ndim == 2:
        return x.unsqueeze(1)
    return (x.transpose(0, 1) if grid.layout == "tokens_first" else x)[:, grid.prefix :]


def patch_map(x: Tensor, grid: TokenGrid) -> Tensor:
    """The same as a map [b, c, h, w]; the grid must have two sizes."""
    if grid.layout == "map":
        return x
    return patch_tokens(x, grid).transpose(1, 2).unflatten(2, grid.grid or ())


def picked(x: Tensor, grid: TokenGrid, stride: int) -> Tensor:
    """Every `stride`-th token of every `stride`-th row, from the first on: [b, n, c]."""
    tokens = patch_tokens(x, grid).unflatten(1, grid.grid or ())
    return tokens[:, ::stride, ::stride].flatten(1, 2)


def fits(x: Tensor, grid: TokenGrid) -> bool:
    """Whether `x` is what a block with this grid gives."""
    sizes = grid.grid or ()
    forms = {
        "map": (x.shape[0], grid.width, *sizes),
        "map_last": (x.shape[0], *sizes, grid.width),
        "tokens_first": (grid.count, x.shape[1], grid.width),
        "tokens": (x.shape[0], grid.count, grid.width),
    }
    return tuple(x.shape) == forms[grid.layout]


def prefix_token(x: Tensor, grid: TokenGrid, number: int) -> Tensor:
    """One of the tokens [b, c] that stand for no part of the input."""
    return x[number] if grid.layout == "tokens_first" else x[:, number]


class Pooled(nn.Module):
    """A linear answer to the mean of the tokens, to which an update and class tokens may be added.

    Networks that read several of their first tokens (class and distillation token, say) get a linear layer for each,
    as LGViT has it; their sum is one layer on the joined tokens. A layer norm comes first: what leaves a block has
    the scale of that block.
    """

    def __init__(self, grid: TokenGrid, classes: int, reads: Sequence[int] = ()) -> None:
        """`reads` are the positions that the network's own head reads; those of the patches say nothing here."""
        super().__init__()
        self.grid, self.reads = grid, tuple(each for each in reads if each < grid.prefix)
        width = grid.width * max(1, len(self.reads))
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor, update: Tensor | None = None) -> Tensor:
        """Logits [b, classes]; `x` in the layout of its block, `update` [b, c]."""
        mean = x.flatten(2).mean(2) if self.grid.layout == "map" else patch_tokens(x, self.grid).mean(1)
        mean = mean if update is None else mean + update
        read = [mean + prefix_token(x, self.grid, number) for number in self.reads] or [mean]
        return self.linear(self.norm(read[0] if len(read) == 1 else torch.cat(read, 1)))
