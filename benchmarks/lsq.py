"""What LSQ at 4 bits costs the ResNet-20 of `networks.py`, over seeds; goes on after a kill.

    EDGEWRIGHT_DATA=DIR python benchmarks/lsq.py --work DIR --seeds 3 --epochs 6

Writes `docs/results/lsq.md`. The test split is read once per seed, when all training is done.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from networks import trained
from torch import nn
from train_reference import accuracy, cifar10
from training_runs import RESULTS, agreement, inputs, kept, machine, options, original, spread, table

from edgewright.task import Task
from edgewright.torchkit.data import TaskData
from edgewright.torchkit.fakequant_prepare import calibrate, layers_of, observe, prepare, reestimate, usual_grids
from edgewright.torchkit.fakequant_settle import settle
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import distilled
from edgewright_plugins.lsq import Params
from edgewright_plugins.lsq.job import settings
from edgewright_plugins.rounded_training import REESTIMATE

PAGE = RESULTS / "lsq.md"
ALLOWED = {"loss": 1.5, "agreement": 99.5}


def start(task: Task, params: Params) -> nn.Module:
    """The network with rounding layers, as `lsq` has it before it trains."""
    module = trained("resnet20").to(memory_format=torch.channels_last)
    seen = inputs(task, "calibration", 64, 4)
    grids = usual_grids(layers_of(module, seen), params.bits, params.activations, edges=params.edges)
    prepare(module, grids)
    calibrate(module, seen)
    return module


def run_seed(seed: int, task: Task, params: Params, folder: Path) -> dict[str, Any]:
    """Train with one seed and measure."""
    module = start(task, params)
    before = accuracy(module, task, "selection")
    data = TaskData(replace(task, seed=seed), ("image",), params.batch, augment=task.augment)
    training = replace(settings(params), seed=seed)
    objective = distilled(trained("resnet20"), weight=params.distill)
    fitted = fit(module, data, training, objective, folder=folder)
    reestimate(module, inputs(task, "training", params.batch, REESTIMATE))
    observe(module, inputs(task, "calibration", 64, 4))
    plain = settle(
        copy.deepcopy(module).to(memory_format=torch.contiguous_format), inputs(task, "calibration", 1, 1)[0]
    )
    return {
        "seed": seed,
        "selection before training": round(before, 2),
        "selection": round(accuracy(plain, task, "selection"), 2),
        "test": round(accuracy(plain, task, "test"), 2),
        "agreement": round(agreement(plain, task), 2),
        "seconds": round(fitted.seconds),
    }


def write_page(results: list[dict[str, Any]], float_net: dict[str, float], params: Params, task: Task) -> None:
    """The page of results."""
    losses = [float_net["test"] - each["test"] for each in results]
    held = max(losses) <= ALLOWED["loss"] and min(each["agreement"] for each in results) >= ALLOWED["agreement"]
    lines = [
        "# LSQ at 4 bits",
        "",
        "Written by `benchmarks/lsq.py`. ResNet-20 (`benchmarks/networks.py`) on CIFAR-10, "
        f"{task.size('training')} images to train on, {task.size('test')} to test; top-1 in %.",
        f"Weights of {params.bits} bits per channel, inputs of {params.activations} bits, the first and the last layer "
        f"{params.edges}; {params.epochs} epochs from the float weights, {params.distill:g} of the loss from the float "
        f"network's outputs. Float: selection {float_net['selection']:.2f}, test {float_net['test']:.2f}.",
        "",
        *table(results),
        "",
        f"Loss on test: {spread(losses)} "
        f"(allowed {ALLOWED['loss']}). `agreement`: test images of 100 in which the exported graph of integers, run by "
        f"onnxruntime, names the class that the settled module does (at least {ALLOWED['agreement']}). "
        f"**{'Held' if held else 'Not held'}.**",
        "",
        machine(),
    ]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run every seed and write the page."""
    asked = options(__doc__, seeds=3, epochs=6)
    task, params = cifar10(asked.data), Params(epochs=asked.epochs)
    folder = f"w{params.bits}a{params.activations}-{params.epochs}"
    results = [
        kept(place := asked.work / f"{folder}-{seed}", partial(run_seed, seed, task, params, place))
        for seed in range(asked.seeds)
    ]
    write_page(results, original(trained("resnet20"), task), params, task)


if __name__ == "__main__":
    main()
