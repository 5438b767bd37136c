"""A small vision transformer whose attention is written out, and its place on a bench."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgewright.testing import Rig
from edgewright.types import TorchGraph

try:
    import torch
    from torch import Tensor, nn
except ImportError:  # tests that need it skip
    torch = None

if torch is not None:

    class Attention(nn.Module):
        """Softmax attention of two heads."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            """Tokens [b, n, c] to tokens."""
            q, k, v = (part(x).unflatten(2, (2, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
            weights = torch.softmax(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5, dim=-1)
            return self.proj((weights @ v).transpose(1, 2).flatten(2))

    class Block(nn.Module):
        """Pre-norm attention and MLP."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm1, self.attn, self.norm2 = nn.LayerNorm(width), Attention(width), nn.LayerNorm(width)
            self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

        def forward(self, x: Tensor) -> Tensor:
            """Tokens [b, n, c] to tokens."""
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class ViT(nn.Module):
        """Patches of an image, with or without a class token; `whole` answers for each token."""

        def __init__(
            self, channels: int = 3, *, patch: int = 1, width: int = 16, depth: int = 4, classes: int = 10,
            cls: bool = False, whole: bool = False,
        ) -> None:  # fmt: skip
            super().__init__()
            self.stem, self.whole = nn.Conv2d(channels, width, 3, patch, 1), whole
            self.cls = nn.Parameter(torch.randn(1, 1, width)) if cls else None
            self.position = nn.Parameter(torch.randn(1, (8 // patch) ** 2, width) * 0.3)
            self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

        def forward(self, x: Tensor) -> Tensor:
            """Images [b, channels, 8, 8] to logits."""
            x = self.stem(x).flatten(2).transpose(1, 2) + self.position
            if self.cls is not None:
                x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
            for block in self.blocks:
                x = block(x)
            x = self.norm(x)
            return self.head(x if self.whole else x[:, 0] if self.cls is not None else x.mean(1))


def rig_with(rig: Rig, module: Any, digest: str = "vit") -> Rig:
    """A rig whose only sample is this module, with the task of the sample `torch` (images of 8 x 8)."""
    bench = rig.benches["torch"]
    model = bench.original.with_graph(TorchGraph(module.eval(), digest))
    return replace(rig, benches={"vit": replace(bench, original=model, reference=model)})
