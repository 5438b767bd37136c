"""Learned sparse attention on CIFAR-10, on the ViT of `networks.py`, against random masks; goes on after a kill.

    python benchmarks/sparsifiner.py train --data DIR --work DIR --seeds 1
    python benchmarks/sparsifiner.py page --data DIR --work DIR

Each of 6 blocks computes half of its attention: tiles of 16 queries see 4 of 8 blocks of 8 keys. `sparsifiner` is the
method; `pairs` is it with the paper's cut, in which each query chooses its keys one by one; `random` has masks drawn
once, of the density and cut of `sparsifiner`. All learn as long, from labels and from the whole network. The test split
is read once per training that ended. `sparse_attention.py` measures time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from networks import trained
from torch import nn
from train_reference import accuracy, cifar10
from trained_pages import results
from training_runs import Case, inputs, limited, train_command

from edgewright.task import Task
from edgewright.torchkit.data import TaskData
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import distilled
from edgewright_plugins.sparsifiner import Params
from edgewright_plugins.sparsifiner.attention import sparse_attentions
from edgewright_plugins.sparsifiner.job import planned, sparse
from edgewright_plugins.sparsifiner.learn import connecting, groups, kept, settings, start, teacher_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "sparsifiner.md"
NETWORK = "vit"
WAYS = {"sparsifiner": Params(), "pairs": Params(tile=1, block=1), "random": Params()}


def network_of(case: Case, task: Task) -> nn.Module:
    """The network of a case, its predictors fitted, before it trains."""
    network, params, batches = trained(NETWORK), WAYS[case.way], inputs(task, "calibration", 64, 4)
    sparse(network, planned(network, tuple(each[:1] for each in batches[0]), {}, params), params.rank)
    if case.way == "random":
        draw_masks(network, case.seed)
    else:
        start(network.eval(), batches)
    return network


def draw_masks(module: nn.Module, seed: int) -> None:
    """Masks as they are drawn once in the place of those that predictors find; in place."""
    generator = torch.Generator().manual_seed(seed)
    for each in sparse_attentions(module):
        drawn = torch.rand(each.bias.shape, generator=generator)
        each.rule = lambda found, drawn=drawn: drawn.expand_as(found)


def run_case(case: Case, task: Task, epochs: int, work: Path) -> None:
    """Train one case and read its accuracy; a case that is done is left alone."""
    folder = work / case.name
    file = folder / "result.json"
    if file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(case.seed)
    net, params = network_of(case, task), replace(WAYS[case.way], epochs=epochs)
    result: dict[str, Any] = {**asdict(case), "before": round(accuracy(net.eval(), task, "selection"), 2)}
    print(case.name, "before training", result["before"], flush=True)
    objective = connecting(distilled(teacher_of(net), None, weight=params.distill))
    data = TaskData(replace(task, seed=case.seed), ("image",), params.batch, augment=task.augment)
    fitted = fit(net, data, replace(settings(params), seed=case.seed), objective, folder=folder, groups=groups)
    torch.save(net.state_dict(), folder / "net.pt")
    share, mass = kept(net, inputs(task, "calibration", 250, 4))
    result |= {"epochs": params.epochs, "examples": task.size("training"), "seconds": round(fitted.seconds)}
    result |= {"pairs": round(100 * share, 1), "attention": round(100 * mass, 1)}
    result |= {split: round(accuracy(net, task, split), 2) for split in ("selection", "test")}
    file.write_text(json.dumps(result))
    print(result, flush=True)


def train(options: argparse.Namespace) -> None:
    """Every case that is not done, the method first."""
    task = limited(cifar10(options.data), options.limit)
    for seed in range(options.seeds):
        for way in options.ways:
            run_case(Case(way, seed), task, options.epochs, options.work)


# ------------------------------------------------------------------ the page


def untrained(task: Task, work: Path) -> dict[str, Any]:
    """What the network gives on the test split before it trains: with predictors fitted, and with drawn masks."""
    file = work / "before.json"
    if not file.exists():
        nets = {way: network_of(Case(way, 0), task).eval() for way in WAYS}
        batches = inputs(task, "calibration", 250, 4)
        found = {
            way: {"test": round(accuracy(net, task, "test"), 2), "attention": round(100 * kept(net, batches)[1], 1)}
            for way, net in nets.items()
        }
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def write_page(options: argparse.Namespace) -> None:
    """The page, of what has been trained so far."""
    task = cifar10(options.data)
    whole, before = accuracy(trained(NETWORK), task, "test"), untrained(task, options.work)
    lines = [
        "# Learned sparse attention on CIFAR-10",
        "",
        "Written by `benchmarks/sparsifiner.py page`. "
        "ViT (`benchmarks/networks.py`: 64 tokens, 6 blocks of 3 heads) on CIFAR-10, "
        f"{task.size('test')} images to test; top-1 in %. The whole network: {whole:.2f}. Half of all pairs of "
        "tokens are computed: each tile of 16 queries sees 4 of 8 blocks of 8 keys. `dense attention kept` is what of "
        "the attention that the network would give falls on the pairs that are computed.",
        "",
        "| masks | trained | dense attention kept, % | test | loss |",
        "|---|---|---|---|---|",
        *(_accuracy(way, "not", before[way], whole) for way in WAYS),
        *(_accuracy(each["way"], _training(each), each, whole) for each in results(options.work, PAGE)),
        "",
        "`sparsifiner` is the method: before training its predictors are fitted to 256 calibration images. `pairs` is "
        "it with the paper's cut (`tile=1,block=1`): each query sees 32 keys of its own, and no kernel here skips the "
        "others. `random` has masks like those of `sparsifiner`, drawn once. All learn as long. The bar is a loss of "
        "0.5 after 20 epochs.",
    ]
    PAGE.write_text("\n".join(lines) + "\n")


def _training(result: Mapping[str, Any]) -> str:
    return f"{result['epochs']} epochs of {result['examples']} images, seed {result['seed']}"


def _accuracy(way: str, how: str, found: Mapping[str, Any], whole: float) -> str:
    return f"| {way} | {how} | {found['attention']} | {found['test']:.2f} | {whole - found['test']:.2f} |"


# ------------------------------------------------------------------ command line


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line says; `run` is the function that does it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = train_command(commands, train, epochs=10, ways=tuple(WAYS))
    page = commands.add_parser("page", help="write the page of what is trained")
    page.set_defaults(run=write_page)
    for command in (training, page):
        command.add_argument("--data", required=True)
        command.add_argument("--work", type=Path, required=True)
    return parser.parse_args(given)


if __name__ == "__main__":
    chosen = arguments(sys.argv[1:])
    chosen.run(chosen)
