"""Slimmed tokens on CIFAR-10, on the ViT of `networks.py`, against controls with as many tokens; goes on after a kill.

    python benchmarks/token_slim.py train --data DIR --work DIR --seeds 1 --epochs 2
    python benchmarks/token_slim.py page --data DIR --work DIR

`slim` is the method; `no-recalibration` learns from answers and labels alone; `drop` keeps tokens at places drawn by
the seed, and learns as the method does; `merge` joins tokens and learns nothing. Seeds and schedules in turn, the
method and its strongest control first. `page` measures each schedule in turns with the whole network, and writes
`docs/results/token-slim.md` of what has been trained so far. The test split is read once per training that ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from networks import trained
from torch import Tensor, nn
from train_reference import accuracy, cifar10
from trained_pages import TITLES, page_command, results, seeds_row, speeds, written
from training_runs import limited, train_command

from edgewright.bench import Bench
from edgewright.deploying.steps import lowered
from edgewright.task import Task
from edgewright.torchkit.data import TaskData
from edgewright.torchkit.fit import fit
from edgewright.types import Model, Plan
from edgewright_plugins.token_merge.merging import merged
from edgewright_plugins.token_slim import Params
from edgewright_plugins.token_slim.learn import recalibrated
from edgewright_plugins.token_slim.net import SlimNet, slimmed
from edgewright_plugins.tokens.decide import with_module
from edgewright_plugins.tokens.learning import groups, settings
from edgewright_plugins.tokens.schedule import Schedule
from edgewright_plugins.tokens.shape import Shape, shape_of

PAGE = Path(__file__).parents[1] / "docs" / "results" / "token-slim.md"
NETWORK = "vit"
SCHEDULES = {
    "64-32": Schedule((2,), (32,)), "64-40-24": Schedule((2, 4), (40, 24)), "64-32-16": Schedule((2, 4), (32, 16)),
    "64-16": Schedule((2,), (16,)),
}  # fmt: skip
LEARNING: dict[str, Any] = {"rate": 2e-3, "distill": 0.9}
"""In the place of the method's careful defaults: with them 71.5 % of the selection split were right after 3 epochs from
64 to 32 and 16 tokens, with these 72.4 % (one seed; of four settings tried the best)."""
WAYS = ("merge", "slim", "drop", "no-recalibration")


@dataclass(frozen=True)
class Case:
    """One training: how tokens become fewer, by which schedule, with which seed, how long."""

    way: str
    schedule: str
    seed: int
    epochs: int = 0

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.way}-{self.schedule}-{self.seed}-{self.epochs}"


class Drop(nn.Module):
    """Keeps the tokens at some places, and forgets the others."""

    def __init__(self, places: Tensor) -> None:
        super().__init__()
        self.places = nn.Buffer(places)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, n, c] to [b, keep, c]."""
        return x[:, self.places]


def dropping(backbone: nn.Module, shape: Shape, schedule: Schedule, seed: int) -> SlimNet:
    """The backbone with tokens left out at places that the seed draws."""
    generator = torch.Generator().manual_seed(seed)
    counts = (shape.tokens, *schedule.keep)
    drawn = [torch.randperm(n, generator=generator)[:keep].sort().values for n, keep in zip(counts, schedule.keep)]
    return SlimNet(backbone, shape, [shape.ends[number - 1] for number in schedule.at], [Drop(each) for each in drawn])


def build(case: Case, shape: Shape) -> nn.Module:
    """The network of a case, before it trains."""
    network, schedule = trained(NETWORK), SCHEDULES[case.schedule]
    torch.manual_seed(case.seed)
    if case.way == "merge":
        return merged(network, shape, schedule)
    return dropping(network, shape, schedule, case.seed) if case.way == "drop" else slimmed(network, shape, schedule)


def run_case(case: Case, task: Task, shape: Shape, params: Params, work: Path) -> None:
    """Train one case and read its accuracy; a case that is done is left alone."""
    folder = work / case.name
    kept = folder / "result.json"
    if kept.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    net = build(case, shape)
    result: dict[str, Any] = {**asdict(case), "before": round(accuracy(net.eval(), task, "selection"), 2)}
    print(case.name, "before training", result["before"], flush=True)
    if isinstance(net, SlimNet):
        weight = 0.0 if case.way == "no-recalibration" else params.recalibrate
        net.learning(SCHEDULES[case.schedule], seed=case.seed)
        data = TaskData(replace(task, seed=case.seed), ("image",), params.batch, augment=task.augment)
        objective = recalibrated(trained(NETWORK), None, distill=params.distill, recalibrate=weight)
        training = replace(settings(params), seed=case.seed)
        fitted = fit(net, data, training, objective, folder=folder, groups=groups)
        net.finish()
        torch.save(net.state_dict(), folder / "net.pt")
        result |= {"examples": task.size("training"), "seconds": round(fitted.seconds)}
        result["loss"] = [round(loss, 3) for loss in fitted.losses]
    result |= {split: round(accuracy(net.eval(), task, split), 2) for split in ("selection", "test")}
    kept.write_text(json.dumps(result))
    print(result, flush=True)


def train(options: argparse.Namespace) -> None:
    """Every case that is not done, the most telling ones first."""
    task = limited(cifar10(options.data), options.limit)
    shape = shape_of(trained(NETWORK), [torch.zeros(1, 3, 32, 32)], {}, NETWORK)
    params = Params(epochs=options.epochs, **LEARNING)
    for seed in range(options.seeds):
        for schedule in options.schedules:
            for way in options.ways:
                run_case(
                    Case(way, schedule, seed, 0 if way == "merge" else options.epochs),
                    task,
                    shape,
                    params,
                    options.work,
                )


# ------------------------------------------------------------------ the page


def forms(bench: Bench) -> dict[str, tuple[Model, Plan]]:
    """The whole network, and each schedule slimmed and merged."""
    shape = shape_of(trained(NETWORK), [torch.zeros(1, 3, 32, 32)], {}, NETWORK)
    models = {"whole": bench.reference}
    for name in SCHEDULES:
        for way in ("slim", "merge"):
            made = with_module(bench.original, build(Case(way, name, 0), shape).eval(), f"{way} {name}")
            models[f"{way} {name}"] = lowered(made, bench)
    return {name: (model, bench.plan(model)) for name, model in models.items()}


def write_page(options: argparse.Namespace) -> None:
    """The page, of what has been trained so far."""
    task = cifar10(options.data)
    whole = {split: accuracy(trained(NETWORK), task, split) for split in ("selection", "test")}
    told, where = speeds(options, f"{Path(__file__).parent / 'networks.py'}:{NETWORK}", forms)
    found = results(options.work, PAGE)
    lines = [
        "# Fewer tokens on CIFAR-10",
        "",
        f"Written by `benchmarks/token_slim.py page`. ViT (`benchmarks/networks.py`: 64 tokens, 6 blocks) on CIFAR-10, "
        f"learning rate {LEARNING['rate']}, {LEARNING['distill']} of the loss from the whole network's answers; "
        f"{task.size('test')} images to test; top-1 in %. The whole network: selection {whole['selection']:.2f}, test "
        f"{whole['test']:.2f}. Speed: {where}, batch 1, interleaved, 95 % interval; it does not depend on weights.",
        "",
        f"| tokens | way {TITLES}",
        "|---" * 9 + "|",
        *(row for name in SCHEDULES for way in WAYS for row in _rows(way, name, found, whole["test"], told)),
        "",
        "`slim` is the method; `no-recalibration` is `slim` without recovering tokens; `drop` keeps tokens at places "
        "drawn by the seed and learns as `slim` does; `merge` is `token-merge`, which learns nothing. Accuracies are "
        "means over seeds.",
    ]
    written(PAGE, lines)


def _rows(way: str, name: str, every: Sequence[dict[str, Any]], whole: float, told: Mapping[str, str]) -> Iterator[str]:
    """A row for each length of training."""
    found = [each for each in every if (each["way"], each["schedule"]) == (way, name)]
    speed = told[f"{'merge' if way == 'merge' else 'slim'} {name}"] if way != "drop" else "not measured"
    for epochs in sorted({each["epochs"] for each in found}):
        yield seeds_row(f"{name} | {way}", [each for each in found if each["epochs"] == epochs], whole, speed)


# ------------------------------------------------------------------ command line


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line says; `run` is the function that does it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = train_command(commands, train, epochs=10, ways=WAYS)
    training.add_argument("--schedules", nargs="+", choices=sorted(SCHEDULES), default=list(SCHEDULES))
    page = page_command(commands, write_page)
    for command in (training, page):
        command.add_argument("--data", required=True)
        command.add_argument("--work", type=Path, required=True)
    return parser.parse_args(given)


if __name__ == "__main__":
    chosen = arguments(sys.argv[1:])
    chosen.run(chosen)
