"""Networks and a task for tests of methods that train: the digits classifier, and a ViT of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgewright import TOP1, Task, top1
from edgewright_plugins.lift.check import lift_checked

FOLDER = Path(__file__).parents[1] / "examples" / "digits"


class Logits(nn.Module):
    """A classifier of transformers as a function of images alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, h, w] to [n, classes]."""
        return self.net(x).logits


def vit(**settings: Any) -> Logits:
    """A ViT of five tokens for images of 8 x 8, with random weights; skips the test without transformers."""
    transformers: Any = pytest.importorskip("transformers")
    usual = {
        "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 96, "image_size": 8,
        "patch_size": 4, "num_labels": 5,
    }  # fmt: skip
    torch.manual_seed(0)
    return Logits(transformers.ViTForImageClassification(transformers.ViTConfig(**{**usual, **settings}))).eval()


def digits() -> tuple[Task, Callable[[], nn.Module], Callable[[nn.Module], float]]:
    """The task, what makes the trained classifier as a torch module, and what finds a module's top-1 (test split)."""
    with np.load(FOLDER / "digits.npz") as data:
        train, test = (({"image": data[f"x_{part}"]}, data[f"y_{part}"]) for part in ("train", "test"))
    proto = onnx.load(FOLDER / "digits.onnx")
    images = torch.from_numpy(test[0]["image"])

    def make() -> nn.Module:
        return lift_checked(proto, {"image": train[0]["image"][:1]})[0]

    def accuracy(module: nn.Module) -> float:
        with torch.no_grad():
            return top1({"logits": module.eval()(images).numpy()}, test[1])

    return Task.from_arrays(*test, metric=TOP1, score=top1, training=train), make, accuracy


def first_digits() -> tuple[Tensor]:
    """128 images to calibrate on."""
    with np.load(FOLDER / "digits.npz") as data:
        return (torch.from_numpy(data["x_train"][:128]),)
