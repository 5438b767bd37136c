"""Trains the digits network and writes `digits.onnx` and `digits.npz` beside this file.

    pip install "edgewright[torch]" scikit-learn
    python train.py                    # what is in this folder
    python train.py --seed 1 --out /tmp

The network trains on the split that the engine gives to training methods, so that the examples which
choose (selection), calibrate and judge (test) are new to it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

from edgewright import TOP1, Task, top1
from edgewright.task.metrics import top1_each
from edgewright.types import Arrays

EPOCHS = 20
BATCH = 64


def network() -> nn.Module:
    """Four 3x3 convolutions at full size and a linear layer: 84,138 parameters, 5.3 M multiply-adds per image."""
    return nn.Sequential(
        *convolution(1, 32),
        *convolution(32, 64),
        *convolution(64, 64),
        *convolution(64, 48),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """3x3 convolution, batch normalisation, ReLU; the size stays."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def digits() -> Arrays:
    """UCI's handwritten digits: x float32 [n, 1, 8, 8] in 0..1, y int64; 30 % of each class for test."""
    data = load_digits()
    x = (data.images / 16).astype(np.float32)[:, None]
    x_train, x_test, y_train, y_test = train_test_split(
        x, data.target.astype(np.int64), test_size=0.3, random_state=0, stratify=data.target
    )
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def task(arrays: Arrays) -> Task:
    """The task that the engine makes of `digits.npz`."""
    return Task.from_arrays(
        {"image": arrays["x_test"]},
        arrays["y_test"],
        metric=TOP1,
        score=top1,
        each=top1_each,
        training=({"image": arrays["x_train"]}, arrays["y_train"]),
    )


def train(model: nn.Module, data: Task) -> None:
    """Fits the model in place."""
    steps = EPOCHS * -(-data.size("training") // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    model.train()
    for epoch in range(EPOCHS):
        for batch in data.batches("training", BATCH, epoch=epoch):
            images, labels = torch.from_numpy(batch.inputs["image"]), torch.from_numpy(batch.labels)
            loss = F.cross_entropy(model(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: Task, split: str) -> float:
    """Top-1 on a split, in %."""
    batch = next(data.batches(split, data.size(split)))
    logits = model(torch.from_numpy(batch.inputs["image"])).numpy()
    return data.score({"logits": logits}, batch.labels)


def export(model: nn.Module, path: Path) -> None:
    """Writes ONNX with a free batch axis, less the exporter's notes about where in Python a node came from."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    proto.graph.name = "digits"
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        part.ClearField("metadata_props")
    for tensor in proto.graph.initializer:
        tensor.ClearField("metadata_props")
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def main() -> None:
    """Trains, writes both files, prints the accuracy on every split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    settings = parser.parse_args()
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)  # more would add up in another order and give other weights
    arrays = digits()
    data, model = task(arrays), network()
    train(model, data)
    np.savez_compressed(settings.out / "digits.npz", **arrays)
    export(model, settings.out / "digits.onnx")
    for split in ("training", "selection", "test"):
        print(f"{split}: {accuracy(model, data, split):.2f} % of {data.size(split)}")


if __name__ == "__main__":
    main()
