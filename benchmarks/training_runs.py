"""What the benchmarks of trained methods share: runs over seeds that go on after a kill, and their tables."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from train_reference import accuracy

from edgewright import onnxkit
from edgewright.task import Task
from edgewright.torchkit.data import TaskData
from edgewright_plugins.lower.export import lower_module

RESULTS = Path(__file__).parents[1] / "docs" / "results"


@dataclass(frozen=True)
class Case:
    """One training: what comes of the network, with which seed."""

    way: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.way}-{self.seed}"


def options(doc: str | None, **defaults: int) -> argparse.Namespace:
    """The command line: the folder of the runs, the data, and numbers with their defaults."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", default=os.environ.get("EDGEWRIGHT_DATA", ""))
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def train_command(
    commands: Any, run: Callable[[argparse.Namespace], None], *, epochs: int, ways: Sequence[str]
) -> argparse.ArgumentParser:
    """The command `train` of a benchmark that has several: what every one of them can be told."""
    training = commands.add_parser("train", help="train what is not trained yet")
    training.set_defaults(run=run)
    training.add_argument("--seeds", type=int, default=3)
    training.add_argument("--epochs", type=int, default=epochs)
    training.add_argument("--limit", type=int, help="examples to train on")
    training.add_argument("--ways", nargs="+", choices=ways, default=list(ways))
    return training


def limited(task: Task, limit: int | None) -> Task:
    """The task with at most `limit` examples to train on."""
    examples, indices = task.splits["training"]
    return task if limit is None else replace(task, splits={**task.splits, "training": (examples, indices[:limit])})


def inputs(task: Task, split: str, size: int, batches: int) -> list[tuple[torch.Tensor, ...]]:
    """The first batches of a split."""
    return [each.inputs for each in itertools.islice(TaskData(task, ("image",), size, split).epoch(0), batches)]


def agreement(module: nn.Module, task: Task, images: int | None = None) -> float:
    """In how many of 100 test images (all, or the first) the exported graph names the class that the module does."""
    count = images or task.size("test")
    singles = inputs(task, "test", 1, count)
    graph = onnxkit.pack(lower_module(module, {"image": singles[0][0].numpy()}, ["logits"]))
    exported = [out[0].argmax() for out in onnxkit.run(graph, ({"image": image.numpy()} for (image,) in singles))]
    with torch.no_grad():
        rounded = torch.cat([module(image).argmax(1) for (image,) in inputs(task, "test", 250, -(-count // 250))])
    return 100 * float(np.mean(np.array(exported) == rounded[:count].numpy()))


def kept(folder: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` finds; what was found before is read back."""
    file = folder / "result.json"
    if not file.exists():
        found = measure()
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
        print(found, flush=True)
    return json.loads(file.read_text())


def original(network: nn.Module, task: Task) -> dict[str, float]:
    """Top-1 of the float network."""
    return {split: accuracy(network, task, split) for split in ("selection", "test")}


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    """The results as rows of Markdown."""
    titles = list(dict.fromkeys(title for each in results for title in each))
    rows = [[str(each.get(title, "")) for title in titles] for each in results]
    return ["| " + " | ".join(row) + " |" for row in (titles, ["---"] * len(titles), *rows)]


def spread(losses: Sequence[float]) -> str:
    """Mean, number, standard deviation and largest of some losses, in words."""
    deviation = f", standard deviation {np.std(losses, ddof=1):.2f}" if len(losses) > 1 else ""
    return f"{np.mean(losses):.2f} points (n = {len(losses)}{deviation}), largest {max(losses):.2f}"


def machine() -> str:
    """What the runs were made with."""
    return (
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; `seconds` are of "
        "training, on a machine that had other work as well."
    )
