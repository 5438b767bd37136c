"""A small decoder with a table of places, and a task for which few of its tokens matter."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Layer(nn.Module):
    """Causal attention of two heads, and an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, t, c] to the same."""
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, 2))
        x = x + self.proj(functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    """Tokens int64 [b, t] to logits [b, t, classes]."""

    def __init__(
        self, *, tokens: int = 8, classes: int = 4, width: int = 32, depth: int = 3, context: int = 24
    ) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(context, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Answers for each token."""
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def decoder(**settings: int) -> Decoder:
    """One with random weights, the same each time."""
    torch.manual_seed(0)
    return Decoder(**settings).eval()


def votes(count: int, context: int, seed: int) -> tuple[Tensor, Tensor]:
    """Texts, and for each token the leader of the votes so far: a quarter of the tokens, 0 to 3, are votes."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, (count, context), generator=generator)
    tokens = tokens + 4 * (torch.rand(tokens.shape, generator=generator) < 0.75)
    tally = functional.one_hot(tokens, 8)[..., :4].cumsum(1)
    return tokens, tally.argmax(-1)
