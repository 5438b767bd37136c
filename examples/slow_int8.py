"""A network that int8 makes slower: many small layers between which the numbers must be floats.

    engine deploy examples/slow_int8.py:model --target cpu --apply quantize --max-drop off

A residual multi-layer perceptron as used on tables of sensor readings. Its matrices are 32 wide, so there is
next to nothing to save in them, while normalisation, GELU and sum around each want floats: every matrix
is paid for with a conversion to int8 and one back. The engine finds that, ships the original, and exits with 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEATURES, WIDTH, DEPTH, CLASSES = 16, 32, 24, 4


class Block(nn.Module):
    """Normalise, mix, bend, mix, add."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.rise, self.fall = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width] to the same."""
        return x + self.fall(nn.functional.gelu(self.rise(self.norm(x))))


def model() -> nn.Module:
    """The network, with seeded random weights."""
    torch.manual_seed(0)
    blocks = [Block() for _ in range(DEPTH)]
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), *blocks, nn.Linear(WIDTH, CLASSES)).eval()


def example_inputs() -> dict[str, Tensor]:
    """One row of a table."""
    return {"input": torch.randn(1, FEATURES, generator=torch.Generator().manual_seed(0))}
