"""What shifts in the MLPs, and attention by signs, cost the ViT of `networks.py`, over seeds; goes on after a kill.

    EDGEWRIGHT_DATA=DIR python benchmarks/shiftadd.py --work DIR --seeds 3 --steps 125

Writes the table of `docs/results/shiftadd.md`; with `--train 0` of the runs that there are. The test split is read once
per seed and way, when its training is done.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from networks import trained
from torch import nn
from train_reference import accuracy, cifar10
from training_runs import RESULTS, agreement, inputs, kept, machine, options, original, spread, table

from edgewright.task import Task
from edgewright.torchkit.data import Batch, TaskData
from edgewright.torchkit.fakequant_prepare import calibrate, layers_of, observe, usual_grids
from edgewright.torchkit.fakequant_settle import settle
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import distilled
from edgewright_plugins.lower.export import lower_module
from edgewright_plugins.shiftadd import Params
from edgewright_plugins.shiftadd.attention import attend, binarisable
from edgewright_plugins.shiftadd.job import chosen, groups, settings, shifting
from edgewright_plugins.shiftadd.layers import ShiftLayer
from edgewright_plugins.shiftadd.mixture import balanced, implied_share, mixtures

PAGE = RESULTS / "shiftadd.md"
BEGIN, END = "<!-- benchmarks/shiftadd.py writes from here -->", "<!-- to here -->"
NETWORK = "vit"
ONCE = Params(epochs=1)
WAYS = {
    "attention by signs": replace(ONCE, layers="none", attention="hamming", others="float"),
    "all MLPs shift": replace(ONCE, layers="mlp", rate=1e-4),
    "mixture": replace(ONCE, layers="mlp", rate=1e-4, experts="mixture", latencies=(1.0, 0.73)),
}
"""The latencies of the mixture are the geometric mean of docs/results/shift-kernels.md."""
ALLOWED = {"attention by signs": 1.0, "all MLPs shift": 3.0}
RECOVERED = 0.5
"""Of what all MLPs lose by shifting, what a mixture shall get back."""
AWAY = 0.05
"""How far the share of tokens that shift may be from what latencies imply."""
EXPORTED = 100
"""Test images that the exported graph answers."""


def start(task: Task, params: Params) -> nn.Module:
    """The network as `shiftadd` has it before it trains."""
    module, seen = trained(NETWORK), inputs(task, "calibration", 64, 4)
    layers = layers_of(module, seen)
    first = (seen[0][0][:1],)
    paths = chosen(module, [layer.path for layer in layers], params.layers, first, {})
    found = [] if params.attention == "softmax" else binarisable(module, first, {})
    grids = {path: pair for path, pair in usual_grids(layers, 8, 8).items() if path in paths or params.others == "int8"}
    mixed = params.experts == "mixture"
    attend(shifting(module, grids, paths, params.train, mixed), found, params.attention)
    calibrate(module, seen)
    return module


@dataclass(frozen=True)
class Some:
    """The first batches of each epoch."""

    data: TaskData
    batches: int

    def __len__(self) -> int:
        return min(self.batches, len(self.data))

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        return itertools.islice(self.data.epoch(number), len(self))


def run_seed(way: str, seed: int, steps: int, task: Task, folder: Path) -> dict[str, Any]:
    """Train one way with one seed and measure."""
    params = WAYS[way]
    module = start(task, params)
    data = Some(TaskData(replace(task, seed=seed), ("image",), params.batch, augment=task.augment), steps)
    training = replace(settings(params), seed=seed)
    objective = distilled(trained(NETWORK), weight=params.distill)
    if params.experts == "mixture":
        objective = balanced(objective, params.latencies, params.balance)
    fitted = fit(module, data, training, objective, folder=folder, groups=groups)
    observe(module, inputs(task, "calibration", 64, 4))
    plain = settle(copy.deepcopy(module), inputs(task, "calibration", 1, 1)[0])
    return {
        "way": way,
        "seed": seed,
        "test": round(accuracy(plain, task, "test"), 2),
        "agreement": round(agreement(plain, task, EXPORTED), 2),
        "share of FP32's bytes": round(share(plain, task), 4) if params.layers != "none" else "",
        "tokens that shift": [round(each.share, 3) for each in mixtures(module)] or "",
        "seconds": round(fitted.seconds),
    }


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


def write_page(results: list[dict[str, Any]], float_net: dict[str, float], steps: int, task: Task) -> None:
    """The table of results, in the place of the old one."""
    lines = [
        BEGIN,
        f"ViT (`benchmarks/networks.py`) on CIFAR-10, {steps} steps of {Params().batch} of the "
        f"{task.size('training')} training images from the float weights, {Params().distill:g} of the loss from the "
        f"float network's outputs; {task.size('test')} images to test; top-1 in %. Float: selection "
        f"{float_net['selection']:.2f}, test {float_net['test']:.2f}.",
        "",
        *table(results),
        "",
        *(_verdict(way, [each for each in results if each["way"] == way], float_net["test"]) for way in ALLOWED),
        _recovery(results, float_net["test"]),
        _routing([each["tokens that shift"] for each in results if each["way"] == "mixture"]),
        "",
        f"`agreement`: of the first {EXPORTED} test images, those in 100 in which the exported graph, run by "
        "onnxruntime, names the class that the settled module does. `share`: bytes in the file for the shifted "
        "weights with their scales and tables.",
        "",
        machine(),
        END,
    ]
    page = PAGE.read_text()
    PAGE.write_text(page[: page.index(BEGIN)] + "\n".join(lines) + page[page.index(END) + len(END) :])


def _verdict(way: str, results: list[dict[str, Any]], test: float) -> str:
    if not results:
        return f"- {way}: not run."
    losses = [test - each["test"] for each in results]
    held = "Held" if max(losses) <= ALLOWED[way] else "Not held"
    return f"- {way}: loss on test {spread(losses)} (allowed {ALLOWED[way]:g}). **{held}.**"


def _recovery(results: list[dict[str, Any]], test: float) -> str:
    lost = {way: {each["seed"]: test - each["test"] for each in results if each["way"] == way} for way in WAYS}
    shares = [1 - loss / lost["all MLPs shift"][seed] for seed, loss in lost["mixture"].items()]
    if not shares:
        return "- mixture: not run."
    held = "Held" if min(shares) >= RECOVERED else "Not held"
    told = ", ".join(f"{100 * share:.0f} %" for share in shares)
    return (
        f"- mixture: {told} of what all MLPs lose is got back (n = {len(shares)}; asked: {100 * RECOVERED:.0f} % of "
        f"each). **{held}.**"
    )


def _routing(shares: list[list[float]]) -> str:
    """How far the mixtures of each seed are from the share that the latencies imply."""
    if not shares:
        return "- tokens that shift: not run."
    implied = implied_share(WAYS["mixture"].latencies)
    means = ", ".join(f"{100 * np.mean(each):.1f}" for each in shares)
    away = max(abs(share - implied) for each in shares for share in each)
    return (
        f"- tokens that shift: {means} % in the mean of a seed's mixtures, where latencies imply {100 * implied:.1f} "
        f"%; the mixture that is furthest off is {100 * away:.1f} points away (allowed {100 * AWAY:.0f}). "
        f"**{'Held' if away <= AWAY else 'Not held'}.**"
    )


def main() -> None:
    """Run every way and seed that was asked for, and write the page."""
    asked = options(__doc__, seeds=3, steps=125, train=1)
    task = cifar10(asked.data)
    results: list[dict[str, Any]] = []
    for seed, way in itertools.product(range(asked.seeds), WAYS):
        folder = asked.work / f"{way}-{asked.steps}-{seed}"
        if asked.train or (folder / "result.json").exists():
            results.append(kept(folder, partial(run_seed, way, seed, asked.steps, task, folder)))
    write_page(sorted(results, key=lambda each: each["way"]), original(trained(NETWORK), task), asked.steps, task)


if __name__ == "__main__":
    main()
