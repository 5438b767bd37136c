"""What a latent of a few tokens does beside a convolutional network: look at the map, think, and write back to it.

The parts of Dynamic Perceiver (Han et al. 2023, arXiv:2306.11248), written for few and large operators: on one CPU
thread each of the many small ones costs 3 us, whatever it computes. So attention has one head, with its output
projection inside the values and the pixels as they are for queries; pooling and the convolution before it are one;
scores are scaled by the weights they start with; and layers next to a norm or a sum have no biases. The latent does
not attend to itself: its tokens meet when they are halved, and trained with more attention it answered no better.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MOST_SIDE = 8
"""A latent looks at no more than 8 by 8 places of a map."""
LEAST_SIDE = 4
AROUND = 3
"""How far beyond its window a place looks: what a 7x7 convolution before the pooling would."""


class Places(nn.Module):
    """A map as a few tokens for the latent to look at: pooled behind a depthwise convolution, and normalised.

    The paper adds a depthwise 7x7 convolution to the map and pools; both are linear, and one convolution does both.
    """

    def __init__(self, channels: int, size: Sequence[int]) -> None:
        """`channels` and `size` are the map's."""
        super().__init__()
        (tall, down, rows), (wide, across, columns) = (window(each) for each in size)
        self.count = rows * columns
        kernel = (tall + 2 * AROUND, wide + 2 * AROUND)
        self.pool = nn.Conv2d(channels, channels, kernel, (down, across), AROUND, groups=channels, bias=False)
        with torch.no_grad():  # the mean of each window to start with
            self.pool.weight *= 0.1
            self.pool.weight[:, :, AROUND : AROUND + tall, AROUND : AROUND + wide] += 1 / (tall * wide)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[b, c, h, w] to `count` tokens [b, n, c], 64 at most."""
        return self.norm(self.pool(x)).flatten(2).transpose(1, 2)


def window(size: int) -> tuple[int, int, int]:
    """Kernel, stride and count of the windows, at most 8, that cover `size` pixels; without overlap where it can be."""
    apart = [count for count in range(MOST_SIDE, LEAST_SIDE - 1, -1) if size % count == 0]
    count = apart[0] if apart else min(MOST_SIDE, size)
    stride = size // count
    return size - (count - 1) * stride, stride, count


def scaled(layer: nn.Linear, rows: int, channels: int) -> nn.Linear:
    """The layer with 1 / sqrt(channels) in its first rows, so that scores need not be scaled when they are computed."""
    with torch.no_grad():
        layer.weight[:rows] *= channels**-0.5
    return layer


class Look(nn.Module):
    """The latent attends to the places of a map; then an MLP. Each is behind its norm, and added."""

    def __init__(self, channels: int, size: Sequence[int], width: int) -> None:
        """`channels` and `size` are the map's, `width` is the latent's."""
        super().__init__()
        self.places = Places(channels, size)
        self.key_value = scaled(nn.Linear(channels, 2 * width, bias=False), width, width)
        self.bias = nn.Parameter(torch.randn(1, self.places.count, 2 * width) * 0.02)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        up, down = nn.Linear(width, 2 * width, bias=False), nn.Linear(2 * width, width, bias=False)
        self.mlp = nn.Sequential(up, nn.GELU(), down)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """The latent [b or 1, l, width] after a look at the map [b, c, h, w]: [b, l, width]."""
        key, value = (self.key_value(self.places(x)) + self.bias).chunk(2, 2)
        z = z + torch.softmax(self.query(self.norm1(z)) @ key.transpose(1, 2), 2) @ value
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
    """What every pixel finds when it attends to the latent: nothing at first."""

    def __init__(self, channels: int, width: int) -> None:
        """`channels` are the map's, `width` is the latent's."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.key_value = scaled(nn.Linear(width, 2 * channels, bias=False), channels, channels)
        with torch.no_grad():
            self.key_value.weight[channels:] = 0

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Of a map [b, c, h, w] and the latent [b, l, width]: shares [b, h * w, l] and values [b, l, c]."""
        key, value = self.key_value(self.norm(z)).chunk(2, 2)
        return torch.softmax(x.flatten(2).transpose(1, 2) @ key.transpose(1, 2), 2), value

    def added(self, x: Tensor, z: Tensor) -> Tensor:
        """The map with what its pixels find."""
        shares, value = self(x, z)
        return x + (value.transpose(1, 2) @ shares.transpose(1, 2)).unflatten(2, x.shape[2:])

    def mean(self, x: Tensor, z: Tensor) -> Tensor:
        """The mean pixel [b, c] of `added`, without making the map."""
        shares, value = self(x, z)
        return x.flatten(2).mean(2) + (shares.mean(1, keepdim=True) @ value).squeeze(1)
