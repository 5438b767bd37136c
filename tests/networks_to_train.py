"""Networks and a task for tests of methods that train: the digits classifier, and a ViT of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgewright import TOP1, Task, top1
from edgewright_plugins.lift.check import lift_checked
from vit import ViT

FOLDER = Path(__file__).parents[1] / "examples" / "digits"
TRAINED = Path(__file__).with_name("trained")


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


def program(text: str, folder: Path) -> nn.Module:
    """`text` as net.py in `folder`, and a new `Net` of it."""
    (folder / "net.py").write_text(text)
    scope: dict[str, Any] = {"__name__": "net"}
    exec(compile(text, "net.py", "exec"), scope)
    return scope["Net"]()


def train_on_digits(net: nn.Module, *, epochs: int, batch: int, rate: float) -> None:
    """A short training."""
    with np.load(FOLDER / "digits.npz") as data:
        x, y = torch.from_numpy(data["x_train"]), torch.from_numpy(data["y_train"])
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()


def digits_vit() -> nn.Module:
    """The `ViT` of tests/vit.py (16 tokens, width 32, 3 blocks) that tests/trained/train.py trained on the digits."""
    net = ViT(channels=1, patch=2, width=32, depth=3)
    net.load_state_dict(load_file(TRAINED / "vit.safetensors"))
    return net.eval()
