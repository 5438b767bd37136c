"""DeiT-tiny of `examples/deit_tiny.py` with layers of their own for queries, keys and values, as signs need them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import deit_tiny


class Apart(nn.Module):
    """The example's attention, from the same weights."""

    def __init__(self, fused: Any) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(deit_tiny.WIDTH, deit_tiny.WIDTH) for _ in range(3))
        for part, weight, bias in zip(
            (self.query, self.key, self.value), fused.qkv.weight.chunk(3), fused.qkv.bias.chunk(3), strict=True
        ):
            part.load_state_dict({"weight": weight, "bias": bias})
        self.proj = fused.proj

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, T, width] to tokens of the same shape."""
        q, k, v = (
            part(x).unflatten(-1, (deit_tiny.HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def apart() -> nn.Module:
    """The network, ready for inference."""
    net = deit_tiny.DeiT()
    deit_tiny.seed_weights_(net)
    for block in net.blocks:
        block.attn = Apart(block.attn)
    return net.eval()


def example_inputs() -> dict[str, Tensor]:
    """One image of seeded noise."""
    return deit_tiny.example_inputs()
