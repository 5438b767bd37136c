"""Trains the networks of this folder on the digits: `PYTHONPATH=tests python tests/trained/train.py`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from networks_to_train import train_on_digits
from trained.deit import Net
from vit import ViT


def main() -> None:
    """Write the weights of both."""
    torch.manual_seed(0)
    for name, net, rate in (("vit", ViT(channels=1, patch=2, width=32, depth=3), 5e-3), ("deit", Net(), 4e-3)):
        train_on_digits(net, epochs=10, batch=32, rate=rate)
        save_file(net.state_dict(), Path(__file__).with_name(f"{name}.safetensors"))


if __name__ == "__main__":
    main()
