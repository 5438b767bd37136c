"""What shifts in the MLPs cost the ViT of `networks.py`, over seeds; goes on after a kill.

    EDGEWRIGHT_DATA=DIR python benchmarks/shiftadd.py --work DIR --seeds 3 --epochs 6

Writes `docs/results/shiftadd.md`. The test split is read once per seed and way to learn, when its training is done.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from networks import trained
from torch import nn
from train_reference import accuracy, cifar10
from training_runs import agreement, inputs

from edgewright.task import Task
from edgewright.torchkit.data import TaskData
from edgewright.torchkit.fakequant_prepare import calibrate, layers_of, observe, usual_grids
from edgewright.torchkit.fakequant_settle import settle
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import distilled
from edgewright_plugins.lower.export import lower_module
from edgewright_plugins.shiftadd import Params
from edgewright_plugins.shiftadd.job import chosen, groups, settings, shifting
from edgewright_plugins.shiftadd.layers import ShiftLayer

PAGE = Path(__file__).parents[1] / "docs" / "results" / "shiftadd.md"
NETWORK = "vit"
WAYS = ("weights", "powers")
ALLOWED = 3.0


def start(task: Task, learns: str) -> nn.Module:
    """The network with shifts in its MLPs and int8 elsewhere, as `shiftadd` has it before it trains."""
    module, seen = trained(NETWORK), inputs(task, "calibration", 64, 4)
    layers = layers_of(module, seen)
    paths = chosen(module, [layer.path for layer in layers], "mlp", seen[0], {})
    shifting(module, usual_grids(layers, 8, 8), paths, learns)
    calibrate(module, seen)
    return module


def run_seed(seed: int, learns: str, task: Task, params: Params, work: Path) -> dict[str, Any]:
    """Train one way with one seed and measure; what was measured before is read back."""
    folder = work / f"{learns}-{params.epochs}-{seed}"
    kept = folder / "result.json"
    if kept.exists():
        return json.loads(kept.read_text())
    module = start(task, learns)
    before = accuracy(module.eval(), task, "selection")
    data = TaskData(replace(task, seed=seed), ("image",), params.batch, augment=task.augment)
    training = replace(settings(replace(params, train=learns)), seed=seed)
    objective = distilled(trained(NETWORK), weight=params.distill)
    fitted = fit(module, data, training, objective, folder=folder, groups=groups)
    observe(module, inputs(task, "calibration", 64, 4))
    plain = settle(copy.deepcopy(module), inputs(task, "calibration", 1, 1)[0])
    result = {
        "learns": learns,
        "seed": seed,
        "selection before training": round(before, 2),
        "selection": round(accuracy(plain, task, "selection"), 2),
        "test": round(accuracy(plain, task, "test"), 2),
        "agreement": round(agreement(plain, task), 2),
        "share of FP32's bytes": round(share(plain, task), 4),
        "seconds": round(fitted.seconds),
    }
    kept.write_text(json.dumps(result))
    print(result, flush=True)
    return result


def share(module: nn.Module, task: Task) -> float:
    """The bytes that the file has for the shifted layers' weights, scales included, over those of float32."""
    image = inputs(task, "calibration", 1, 1)[0][0]
    graph = lower_module(module, {"image": image.numpy()}, ["logits"]).graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    reads = {node.output[0]: node for node in graph.node if node.op_type == "Gather" and node.input[0] in held}
    weights = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in reads]
    packed = [node.input[0] + end for node in weights for end in ("_shifts", "_table")]
    stored = [held[name] for name in (*packed, *(name for node in weights for name in node.input[1:]))]
    floats = 4 * sum(each.weight.numel() for each in module.modules() if isinstance(each, ShiftLayer))
    return sum(_bytes(tensor) for tensor in stored) / floats


def _bytes(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data) or onnx.numpy_helper.to_array(tensor).nbytes


def write_page(results: list[dict[str, Any]], original: dict[str, float], params: Params, task: Task) -> None:
    """The page of results."""
    titles = list(results[0])
    rows = [[str(each[title]) for title in titles] for each in results]
    table = ["| " + " | ".join(row) + " |" for row in (titles, ["---"] * len(titles), *rows)]
    lines = [
        "# Shifts in the place of products",
        "",
        "Written by `benchmarks/shiftadd.py`. ViT (`benchmarks/networks.py`) on CIFAR-10, "
        f"{task.size('training')} images to train on, {task.size('test')} to test; top-1 in %.",
        "The layers of MLPs have weights of a sign and a power of two in 4 bits, with a power of two per channel; the "
        f"others 8 bits, and so have the inputs of all. {params.epochs} epochs from the float weights, "
        f"{params.distill:g} of the loss from the float network's outputs. Float: selection "
        f"{original['selection']:.2f}, test {original['test']:.2f}.",
        "",
        *table,
        "",
        *(_verdict(way, [each for each in results if each["learns"] == way], original["test"]) for way in WAYS),
        "",
        "`learns`: float weights that are rounded (DeepShift-Q), or powers and signs (DeepShift-PS). `agreement`: test "
        "images of 100 in which the exported graph of integers, run by onnxruntime, names the class that the settled "
        "module does. `share`: bytes in the file for the shifted weights with their scales and tables.",
        "",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; `seconds` are of "
        "training, on a machine that had other work as well.",
    ]
    PAGE.write_text("\n".join(lines) + "\n")


def _verdict(way: str, results: list[dict[str, Any]], test: float) -> str:
    losses = [test - each["test"] for each in results]
    spread = f", standard deviation {np.std(losses, ddof=1):.2f}" if len(losses) > 1 else ""
    held = "Held" if max(losses) <= ALLOWED else "Not held"
    return (
        f"- {way}: loss on test {np.mean(losses):.2f} points (n = {len(losses)}{spread}), largest {max(losses):.2f} "
        f"(allowed {ALLOWED:g}). **{held}.**"
    )


def main() -> None:
    """Run every seed and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--data", default=os.environ.get("EDGEWRIGHT_DATA", ""))
    options = parser.parse_args()
    task, params = cifar10(options.data), Params(epochs=options.epochs)
    results = [run_seed(seed, way, task, params, options.work) for seed in range(options.seeds) for way in WAYS]
    network = trained(NETWORK)
    original = {split: accuracy(network, task, split) for split in ("selection", "test")}
    write_page(sorted(results, key=lambda each: each["learns"], reverse=True), original, params, task)


if __name__ == "__main__":
    main()
