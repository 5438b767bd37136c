"""What LSQ at 4 bits costs the ResNet-20 of `networks.py`, over seeds; goes on after a kill.

    EDGEWRIGHT_DATA=DIR python benchmarks/lsq.py --work DIR --seeds 3 --epochs 6

Writes `docs/results/lsq.md`. The test split is read once per seed, when all training is done.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import trained
from torch import nn
from train_reference import accuracy, cifar10

from edgewright import onnxkit
from edgewright.task import Task
from edgewright.torchkit.data import TaskData
from edgewright.torchkit.fakequant_prepare import calibrate, layers_of, observe, prepare, reestimate, usual_grids
from edgewright.torchkit.fakequant_settle import settle
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import distilled
from edgewright_plugins.lower.export import lower_module
from edgewright_plugins.lsq import Params
from edgewright_plugins.lsq.job import REESTIMATE, settings

PAGE = Path(__file__).parents[1] / "docs" / "results" / "lsq.md"
ALLOWED = {"loss": 1.5, "agreement": 99.5}


def inputs(task: Task, split: str, size: int, batches: int) -> list[tuple[torch.Tensor, ...]]:
    """The first batches of a split."""
    return [each.inputs for each in itertools.islice(TaskData(task, ("image",), size, split).epoch(0), batches)]


def start(task: Task, params: Params) -> nn.Module:
    """The network with rounding layers, as `lsq` has it before it trains."""
    module = trained("resnet20").to(memory_format=torch.channels_last)
    seen = inputs(task, "calibration", 64, 4)
    grids = usual_grids(layers_of(module, seen), params.bits, params.activations, edges=params.edges)
    prepare(module, grids)
    calibrate(module, seen)
    return module


def agreement(module: nn.Module, task: Task) -> float:
    """In how many of 100 test images the exported graph names the class that the module does."""
    images = inputs(task, "test", 1, task.size("test"))
    graph = onnxkit.pack(lower_module(module, {"image": images[0][0].numpy()}, ["logits"]))
    exported = [out[0].argmax() for out in onnxkit.run(graph, ({"image": image.numpy()} for (image,) in images))]
    with torch.no_grad():
        rounded = torch.cat([module(image).argmax(1) for (image,) in inputs(task, "test", 250, task.size("test"))])
    return 100 * float(np.mean(np.array(exported) == rounded.numpy()))


def run_seed(seed: int, task: Task, params: Params, work: Path) -> dict[str, Any]:
    """Train with one seed and measure; what was measured before is read back."""
    folder = work / f"w{params.bits}a{params.activations}-{params.epochs}-{seed}"
    kept = folder / "result.json"
    if kept.exists():
        return json.loads(kept.read_text())
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
    result = {
        "seed": seed,
        "selection before training": round(before, 2),
        "selection": round(accuracy(plain, task, "selection"), 2),
        "test": round(accuracy(plain, task, "test"), 2),
        "agreement": round(agreement(plain, task), 2),
        "seconds": round(fitted.seconds),
    }
    kept.write_text(json.dumps(result))
    print(result, flush=True)
    return result


def write_page(results: list[dict[str, Any]], original: dict[str, float], params: Params, task: Task) -> None:
    """The page of results."""
    losses = [original["test"] - each["test"] for each in results]
    titles = list(results[0])
    rows = [[str(each[title]) for title in titles] for each in results]
    table = ["| " + " | ".join(row) + " |" for row in (titles, ["---"] * len(titles), *rows)]
    held = max(losses) <= ALLOWED["loss"] and min(each["agreement"] for each in results) >= ALLOWED["agreement"]
    spread = f", standard deviation {np.std(losses, ddof=1):.2f}" if len(losses) > 1 else ""
    lines = [
        "# LSQ at 4 bits",
        "",
        "Written by `benchmarks/lsq.py`. ResNet-20 (`benchmarks/networks.py`) on CIFAR-10, "
        f"{task.size('training')} images to train on, {task.size('test')} to test; top-1 in %.",
        f"Weights of {params.bits} bits per channel, inputs of {params.activations} bits, the first and the last layer "
        f"{params.edges}; {params.epochs} epochs from the float weights, {params.distill:g} of the loss from the float "
        f"network's outputs. Float: selection {original['selection']:.2f}, test {original['test']:.2f}.",
        "",
        *table,
        "",
        f"Loss on test: mean {np.mean(losses):.2f} points{spread}, largest {max(losses):.2f} "
        f"(allowed {ALLOWED['loss']}). `agreement`: test images of 100 in which the exported graph of integers, run by "
        f"onnxruntime, names the class that the settled module does (at least {ALLOWED['agreement']}). "
        f"**{'Held' if held else 'Not held'}.**",
        "",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; `seconds` are of "
        "training, on a machine that had other work as well.",
    ]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run every seed and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--data", default=os.environ.get("EDGEWRIGHT_DATA", ""))
    options = parser.parse_args()
    task, params = cifar10(options.data), Params(epochs=options.epochs)
    results = [run_seed(seed, task, params, options.work) for seed in range(options.seeds)]
    network = trained("resnet20")
    original = {split: accuracy(network, task, split) for split in ("selection", "test")}
    write_page(results, original, params, task)


if __name__ == "__main__":
    main()
