"""Semantic tokens on CIFAR-10, on the ViT of `networks.py`, against controls with as many tokens; goes on after a kill.

    python benchmarks/stvit.py train --data DIR --work DIR --seeds 1
    python benchmarks/stvit.py page --data DIR --work DIR

16 tokens go on after block 2 of 6. `stvit` is the method; `pooled` goes on with the means that semantic tokens start
from, through the same blocks, and no attention generates anything; `unguided` has learned vectors in the place of
these means. All learn from labels and from the whole network. `page` measures each in turns with the whole network, and
writes `docs/results/stvit.md` of what has been trained so far. The test split is read once per training that ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from networks import trained
from token_slim import LEARNING
from torch import Tensor, nn
from train_reference import accuracy, cifar10
from trained_pages import TITLES, page_command, results, seeds_row, speeds, written
from training_runs import Case, limited, train_command

from edgewright.bench import Bench
from edgewright.deploying.steps import lowered
from edgewright.task import Task
from edgewright.torchkit.data import TaskData
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import distilled
from edgewright.types import Model, Plan
from edgewright_plugins.stvit import Params
from edgewright_plugins.stvit.generate import Generate
from edgewright_plugins.stvit.net import semantic
from edgewright_plugins.stvit.pools import Pool
from edgewright_plugins.stvit.shape import semantic_shape
from edgewright_plugins.token_slim.net import SlimNet
from edgewright_plugins.tokens.decide import with_module
from edgewright_plugins.tokens.learning import groups, settings
from edgewright_plugins.tokens.schedule import Schedule

PAGE = Path(__file__).parents[1] / "docs" / "results" / "stvit.md"
NETWORK = "vit"
SCHEDULE = Schedule((2,), (16,))
WAYS = ("stvit", "pooled", "unguided")


class Queries(nn.Module):
    """Learned vectors, the same for every image, in the place of means."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(count, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, n, c] to [b, count, c]."""
        return self.vectors.expand(x.shape[0], -1, -1)


def build(case: Case) -> nn.Module:
    """The network of a case, before it trains."""
    network = trained(NETWORK)
    shape = semantic_shape(network, [torch.zeros(1, 3, 32, 32)], {}, NETWORK)
    torch.manual_seed(case.seed)
    if case.way == "pooled":
        return SlimNet(network, shape, [shape.ends[SCHEDULE.at[0] - 1]], [Pool(shape.places, SCHEDULE.keep[0])])
    net = semantic(network, shape, SCHEDULE)
    if case.way == "unguided":
        (generate,) = (module for module in net.modules() if isinstance(module, Generate))
        generate.pool = Queries(SCHEDULE.keep[0], shape.width)
    return net


def run_case(case: Case, task: Task, params: Params, work: Path) -> None:
    """Train one case and read its accuracy; a case that is done is left alone."""
    folder = work / case.name
    kept = folder / "result.json"
    if kept.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    net = build(case)
    result: dict[str, Any] = {**asdict(case), "before": round(accuracy(net.eval(), task, "selection"), 2)}
    print(case.name, "before training", result["before"], flush=True)
    data = TaskData(replace(task, seed=case.seed), ("image",), params.batch, augment=task.augment)
    objective = distilled(trained(NETWORK), None, weight=params.distill)
    fitted = fit(net, data, replace(settings(params), seed=case.seed), objective, folder=folder, groups=groups)
    torch.save(net.state_dict(), folder / "net.pt")
    result |= {"epochs": params.epochs, "examples": task.size("training"), "seconds": round(fitted.seconds)}
    result |= {split: round(accuracy(net, task, split), 2) for split in ("selection", "test")}
    kept.write_text(json.dumps(result))
    print(result, flush=True)


def train(options: argparse.Namespace) -> None:
    """Every case that is not done, the method first."""
    task = limited(cifar10(options.data), options.limit)
    for seed in range(options.seeds):
        for way in options.ways:
            run_case(Case(way, seed), task, Params(epochs=options.epochs, **LEARNING), options.work)


# ------------------------------------------------------------------ the page


def forms(bench: Bench) -> dict[str, tuple[Model, Plan]]:
    """The whole network, and each way to have 16 tokens."""
    models = {"whole": bench.reference}
    for way in WAYS:
        models[way] = lowered(with_module(bench.original, build(Case(way, 0)).eval(), f"stvit {way}"), bench)
    return {name: (model, bench.plan(model)) for name, model in models.items()}


def write_page(options: argparse.Namespace) -> None:
    """The page, of what has been trained so far."""
    task = cifar10(options.data)
    whole = {split: accuracy(trained(NETWORK), task, split) for split in ("selection", "test")}
    told, where = speeds(options, f"{Path(__file__).parent / 'networks.py'}:{NETWORK}", forms)
    found = results(options.work, PAGE)
    lines = [
        "# Semantic tokens on CIFAR-10",
        "",
        "Written by `benchmarks/stvit.py page`. ViT (`benchmarks/networks.py`: 64 tokens, 6 blocks), 16 tokens after "
        f"block 2, on CIFAR-10, learning rate {LEARNING['rate']}, {LEARNING['distill']} of the loss from the whole "
        f"network's answers; {task.size('test')} images to test; top-1 in %. The whole network: selection "
        f"{whole['selection']:.2f}, test {whole['test']:.2f}. Speed: {where}, batch 1, interleaved, 95 % interval; it "
        "does not depend on weights.",
        "",
        f"| way {TITLES}",
        "|---" * 8 + "|",
        *(seeds_row(way, [each for each in found if each["way"] == way], whole["test"], told[way]) for way in WAYS),
        "",
        "`stvit` is the method; `pooled` goes on with the means that semantic tokens start from, and nothing generates "
        "tokens; `unguided` has learned vectors in the place of these means. All learn from labels and from the whole "
        "network. Accuracies are means over seeds.",
    ]
    written(PAGE, lines)


# ------------------------------------------------------------------ command line


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line says; `run` is the function that does it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = train_command(commands, train, epochs=10, ways=WAYS)
    page = page_command(commands, write_page)
    for command in (training, page):
        command.add_argument("--data", required=True)
        command.add_argument("--work", type=Path, required=True)
    return parser.parse_args(given)


if __name__ == "__main__":
    chosen = arguments(sys.argv[1:])
    chosen.run(chosen)
