"""A DeiT of transformers for the digits: `engine deploy tests/trained/deit.py:model`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import DeiTConfig, DeiTForImageClassification


class Net(nn.Module):
    """16 tokens of width 32, 3 blocks."""

    def __init__(self) -> None:
        super().__init__()
        config = DeiTConfig(
            image_size=8, patch_size=2, num_channels=1, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
            intermediate_size=64, num_labels=10, initializer_range=0.15,
        )  # fmt: skip
        self.net = DeiTForImageClassification(config)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 1, 8, 8] to logits."""
        return self.net(x).logits


def model() -> nn.Module:
    """With the weights that `train.py` left."""
    net = Net()
    net.load_state_dict(load_file(Path(__file__).with_name("deit.safetensors")))
    return net.eval()


def example_inputs() -> Tensor:
    """One image."""
    return torch.zeros(1, 1, 8, 8)
