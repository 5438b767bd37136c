"""Makes semantic tokens of image tokens, and image tokens of semantic ones (STViT: Chang et al. 2023, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgewright_plugins.stvit.layer import Looking
from edgewright_plugins.stvit.pools import Pool, Windows


class Generate(nn.Module):
    """A few tokens for each window, which start as means of regions and look at all tokens of their window.

    S0 = pool(X); S1 looks at [S0; X]; S2 looks at [S1; X], asked with S1 + G, where G is learned. With one layer
    that one is asked with G. Tokens of the prefix look along, and stand first.
    """

    def __init__(self, windows: Windows, count: int, layers: Sequence[Looking], *, prefix: int, width: int) -> None:
        super().__init__()
        self.windows, self.prefix, self.layers = windows, prefix, nn.ModuleList(layers)
        self.pool = Pool(windows.window, count)
        self.guide = nn.Parameter(torch.randn(prefix + count, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, prefix + n, c], or [b, h, w, c] without prefix, to [b, prefix + windows * count, c]."""
        seen = self.windows.cut(x.flatten(1, -2))
        fixed, tokens = seen[:, : self.prefix], seen[:, self.prefix :]
        found = torch.cat([fixed, self.pool(tokens)], 1)
        for layer in self.layers:
            guide = self.guide if layer is self.layers[-1] else None
            found = layer(found, torch.cat([found, tokens], 1), guide)
        return self.windows.joined(found)


class Recover(nn.Module):
    """Image tokens again: each changes as the semantic token in its place did, then looks at all semantic tokens."""

    def __init__(self, windows: Windows, count: int, layer: Looking, *, prefix: int) -> None:
        super().__init__()
        self.windows, self.prefix, self.layer = windows, prefix, layer
        self.pool = Pool(windows.window, count)
        self.owners = nn.Buffer(owners(windows, self.pool), persistent=False)

    def forward(self, semantic: Tensor, x: Tensor) -> Tensor:
        """Semantic tokens [b, prefix + s, c], and what they were made of, to tokens of the form of `x`."""
        tokens = x.flatten(1, -2)[:, self.prefix :]
        pooled = self.windows.joined(self.pool(self.windows.cut(tokens)))
        changed = (semantic[:, self.prefix :] - pooled)[:, self.owners]
        return torch.cat([semantic[:, : self.prefix], self.layer(tokens + changed, semantic)], 1).reshape(x.shape)


def owners(windows: Windows, pool: Pool) -> Tensor:
    """Which semantic token [n] stands in the place of each token."""
    count = pool.owners.max() + 1
    places = torch.arange(windows.count)[:, None] * count + pool.owners
    back = windows.cut(torch.arange(places.numel()).reshape(1, -1, 1).float()).long().flatten()
    return torch.empty_like(back).scatter_(0, back, places.flatten())
