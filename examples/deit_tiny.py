"""DeiT-tiny at 224 x 224 (Touvron et al. 2021, arXiv:2012.12877, table 1), with seeded random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, DEPTH, HEADS, PATCH, SIZE = 192, 12, 3, 16, 224
TOKENS = (SIZE // PATCH) ** 2 + 1


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, T, width] to tokens of the same shape."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """Pre-norm transformer block with an MLP four times as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, T, width] to tokens of the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DeiT(nn.Module):
    """The whole network: 5,717,416 parameters for 1000 classes."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, TOKENS, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, 3, 224, 224] to logits [B, classes]."""
        patches = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(image.shape[0], -1, -1), patches], 1) + self.positions
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def seed_weights_(net: nn.Module, seed: int = 0) -> None:
    """Fill every matrix and token with seeded noise, so that blocks neither vanish nor explode."""
    gen = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5, generator=gen)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="linear", generator=gen)
            nn.init.zeros_(part.bias)
        elif isinstance(part, DeiT):
            nn.init.normal_(part.cls, std=0.5, generator=gen)
            nn.init.normal_(part.positions, std=0.5, generator=gen)


def model() -> nn.Module:
    """The network, ready for inference."""
    net = DeiT()
    seed_weights_(net)
    return net.eval()


def example_inputs() -> dict[str, Tensor]:
    """One image of seeded noise."""
    return {"image": torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))}
