"""What a latent of a few tokens does beside a convolutional network: look at the map, think, and write back to it.

The parts of Dynamic Perceiver (Han et al. 2023, arXiv:2306.11248), written for few and large operators: a runtime
spends more on launching the many small ones than on what they compute. The latent attends to the map and to itself at
once and with one head, where the paper attends to each in turn and with up to eight; pooling and the convolution before
it are one; scores are scaled by the weights they start with; and layers next to a norm or a sum have no biases.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MOST_SIDE = 7
"""A latent looks at no more than 7 by 7 places of a map."""
LEAST_SIDE = 4
AROUND = 3
"""How far beyond its window a place looks: what a 7x7 convolution before the pooling would."""
WRITING = 8
"""What the channels of a map are divided by when a latent writes to it, and the fewest that it writes with."""


class Places(nn.Module):
    """A map as a few tokens for the latent to look at: pooled behind a depthwise convolution, a bias for each place.

    The paper adds a depthwise 7x7 convolution to the map and pools; both are linear, and one convolution does both.
    """

    def __init__(self, channels: int, size: Sequence[int], width: int) -> None:
        """`channels` and `size` are the map's, `width` is the latent's."""
        super().__init__()
        (tall, down, rows), (wide, across, columns) = (window(each) for each in size)
        kernel = (tall + 2 * AROUND, wide + 2 * AROUND)
        self.pool = nn.Conv2d(channels, channels, kernel, (down, across), AROUND, groups=channels, bias=False)
        with torch.no_grad():  # the mean of each window to start with
            self.pool.weight *= 0.1
            self.pool.weight[:, :, AROUND : AROUND + tall, AROUND : AROUND + wide] += 1 / (tall * wide)
        self.widen = nn.Linear(channels, width, bias=False)
        self.bias = nn.Parameter(torch.randn(1, rows * columns, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] to at most 49 tokens [b, n, width]."""
        return self.widen(self.pool(x).flatten(2).transpose(1, 2)) + self.bias


def window(size: int) -> tuple[int, int, int]:
    """Kernel, stride and count of the windows, at most 7, that cover `size` pixels; without overlap where it can be."""
    apart = [count for count in range(MOST_SIDE, LEAST_SIDE - 1, -1) if size % count == 0]
    count = apart[0] if apart else min(MOST_SIDE, size)
    stride = size // count
    return size - (count - 1) * stride, stride, count


def scaled(layer: nn.Linear, rows: int, channels: int) -> nn.Linear:
    """The layer with 1 / sqrt(channels) in its first rows, so that scores need not be scaled when they are computed."""
    with torch.no_grad():
        layer.weight[:rows] *= channels**-0.5
    return layer


class Round(nn.Module):
    """The latent attends to itself and to the places together; then an MLP. Each is behind its norm, and added."""

    def __init__(self, width: int) -> None:
        """`width` is the latent's."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = scaled(nn.Linear(width, 3 * width, bias=False), width, width)
        self.output = nn.Linear(width, width, bias=False)
        up, down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.mlp = nn.Sequential(up, nn.GELU(), down)

    def forward(self, z: Tensor, places: Tensor) -> Tensor:
        """The latent [b, l, width] after this round; `places` [b, n, width]."""
        query, key, value = self.qkv(self.norm1(torch.cat([z, places], 1))).chunk(3, 2)
        shares = torch.softmax(query[:, : z.shape[1]] @ key.transpose(1, 2), 2)
        z = z + self.output(shares @ value)
        return z + self.mlp(self.norm2(z))


class Mix(nn.Module):
    """Half as many tokens, each a mixture of all, at the width of the next stage."""

    def __init__(self, tokens: int, width: int, wider: int) -> None:
        """From `tokens` of `width` channels to half of them of `wider`."""
        super().__init__()
        fewer = max(1, tokens // 2)
        self.tokens = nn.Parameter(torch.randn(fewer, tokens) * tokens**-0.5)
        self.norm, self.widen = nn.LayerNorm(width), nn.Linear(width, wider, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """[b, l, width] to [b, l / 2, wider]."""
        return self.widen(self.norm(self.tokens @ z))


class Write(nn.Module):
    """Every pixel attends to the latent; what it finds is added to the map, nothing at first."""

    def __init__(self, channels: int, size: Sequence[int], width: int) -> None:
        """`channels` and `size` are the map's, `width` is the latent's."""
        super().__init__()
        self.size, narrow = tuple(size), max(WRITING, channels // WRITING)
        self.query = nn.Sequential(nn.Conv2d(channels, narrow, 1, bias=False), nn.BatchNorm2d(narrow))
        self.key_value = scaled(nn.Linear(width, 2 * narrow, bias=False), narrow, narrow)
        self.output = nn.Conv2d(narrow, channels, 1, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """The map [b, c, h, w], written to."""
        key, value = self.key_value(z).chunk(2, 2)
        shares = torch.softmax(self.query(x).flatten(2).transpose(1, 2) @ key.transpose(1, 2), 2)
        found = value.transpose(1, 2) @ shares.transpose(1, 2)
        return x + self.output(found.unflatten(2, self.size))
