"""Channels that fire together on CIFAR-10, on the VGG-11 of `networks.py`, against controls that compute as many.

    python benchmarks/ftwt.py train --data DIR --work DIR --seeds 1 --epochs 8
    python benchmarks/ftwt.py page --data DIR --work DIR

`ftwt` is the method; `random` draws as many blocks anew for each image, `fixed` once by the seed, and `l1` keeps those
of the largest weights; these learn as long and the same way, without predictors. Seeds and budgets in turn, the method
first; goes on after a kill. The test split is read once per training that ended. `page` times the first trained network
in turns with the whole one, both in ONNX Runtime and with our kernels, on a stream of images, and writes
`docs/results/ftwt.md` of what has been trained so far.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from networks import trained
from torch import Tensor, nn
from train_reference import accuracy, cifar10
from trained_pages import Forms, mean_told, page_command, results, speeds, with_kernels, written
from training_runs import RESULTS, limited, train_command

from edgewright.bench import Bench
from edgewright.deploying.steps import lowered
from edgewright.task import Task
from edgewright.torchkit.data import Inputs, TaskData
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import Objective, distilled
from edgewright.types import Model, Plan
from edgewright_plugins.ftwt import Params
from edgewright_plugins.ftwt.budget import estimate, mass_for, share_left, total_macs
from edgewright_plugins.ftwt.find import Unit, units_of
from edgewright_plugins.ftwt.gates import GatedConv, Rule, gate_, gates, targets
from edgewright_plugins.ftwt.learn import firing, freeze, groups, level, settings, wire
from edgewright_plugins.ftwt.speed import heats, usual
from edgewright_plugins.tokens.decide import with_module

PAGE = RESULTS / "ftwt.md"
NETWORK = "vgg11"
WAYS = ("ftwt", "random", "fixed", "l1")
EXAMPLE = torch.zeros(1, 3, 32, 32)
DISTILL = 0.9
"""Share of the loss that compares with the whole network, which says more than labels of so few images."""


@dataclass(frozen=True)
class Case:
    """One training: which channels are left out how, the share of work that stays, and the seed."""

    way: str
    keep: float
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.way}-{self.keep:g}-{self.seed}-{self.epochs}"


@dataclass(frozen=True, eq=False)
class Start:
    """What all cases start from: the network's units, examples to calibrate on, and what masks leave to do."""

    units: Sequence[Unit]
    batches: Sequence[Inputs]
    total: int
    kept: Path

    def mass(self, keep: float) -> float:
        """The mass of heat for a budget; what is estimated is kept."""
        table: dict[str, float] = json.loads(self.kept.read_text()) if self.kept.exists() else {}

        def left(mass: float) -> float:
            if str(mass) not in table:
                table[str(mass)] = estimate(trained(NETWORK), self.units, self.batches, (mass,))[mass]
                self.kept.write_text(json.dumps(table))
            return table[str(mass)]

        found = mass_for(keep, left)
        assert found is not None, f"no mass leaves {keep}"
        return found


def start_of(task: Task, block: int, kept: Path) -> Start:
    """The convolutions that skip, and 256 examples to calibrate on."""
    network = trained(NETWORK)
    units = units_of(network, [EXAMPLE], block)
    batches = [each.inputs for each in itertools.islice(TaskData(task, ("image",), 64, "calibration").epoch(0), 4)]
    return Start(units, batches, total_macs(network, [EXAMPLE]), kept)


# ------------------------------------------------------------------ controls


def ruled(net: nn.Module, case: Case, start: Start) -> None:
    """Give every gated convolution the rule of a control, with as many blocks as the mass leaves on average."""
    chosen = [usual(heat, start.mass(case.keep)) for heat in heats(net.eval(), start.batches)]
    generator = torch.Generator().manual_seed(case.seed)
    for each, blocks in zip(gates(net), chosen, strict=True):
        each.rule = RULES[case.way](each, len(blocks), generator)


def _random(each: GatedConv, count: int, generator: torch.Generator) -> Rule:
    def rule(heat: Tensor, _logits: Tensor) -> Tensor:
        drawn = torch.rand(heat.shape, generator=generator).argsort(1)[:, :count]
        return torch.zeros_like(heat).scatter(1, drawn, 1.0)

    return rule


def _always(mask: Tensor) -> Rule:
    return lambda heat, _logits: mask.to(heat.dtype).expand_as(heat)


def _fixed(each: GatedConv, count: int, generator: torch.Generator) -> Rule:
    blocks = each.predict.out_features
    return _always(torch.zeros(blocks).index_fill(0, torch.randperm(blocks, generator=generator)[:count], 1.0))


def _l1(each: GatedConv, count: int, generator: torch.Generator) -> Rule:
    with torch.no_grad():
        norms = each.conv.weight.abs().sum((1, 2, 3)).unflatten(0, (-1, each.block)).sum(1)
    return _always(torch.zeros(len(norms)).index_fill(0, norms.topk(count).indices, 1.0))


RULES = {"random": _random, "fixed": _fixed, "l1": _l1}


# ------------------------------------------------------------------ training


def run_case(case: Case, task: Task, start: Start, params: Params, work: Path) -> None:
    """Train one case and read what came of it; a case that is done is left alone."""
    folder = work / case.name
    kept = folder / "result.json"
    if kept.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(case.seed)
    mass, whole = start.mass(case.keep), trained(NETWORK)
    net = gate_(trained(NETWORK), start.units).to(memory_format=torch.channels_last)
    answers = distilled(whole.to(memory_format=torch.channels_last), task.loss, weight=params.distill)
    if case.way == "ftwt":
        wire(net.eval(), mass, start.batches)
    else:
        ruled(net, case, start)
    objective = firing(answers, mass) if case.way == "ftwt" else answers
    between = partial(level, net, mass, start.batches) if case.way == "ftwt" else None
    seconds = learn(net, (objective, answers), replace(task, seed=case.seed), params, folder, between)
    result: dict[str, Any] = {
        **asdict(case), "mass": round(mass, 4), "block": params.block, "examples": task.size("training"),
        "seconds": seconds,
    }  # fmt: skip
    if case.way == "ftwt":
        result["predicted right"] = round(100 * agreement(net.eval(), start, mass), 1)
    torch.save(net.state_dict(), folder / "net.pt")
    result["estimate"] = round(100 * case.keep, 1)
    result["left"] = round(100 * share_left(net.eval(), start.units, start.total, start.batches), 1)
    result |= {split: round(accuracy(net, task, split), 2) for split in ("selection", "test")}
    kept.write_text(json.dumps(result))
    print(result, flush=True)


def learn(  # noqa: PLR0917 - what the two halves share
    net: nn.Module, objectives: tuple[Objective, Objective], task: Task, params: Params, folder: Path,
    between: Callable[[], None] | None,
) -> int:  # fmt: skip
    """Both halves of the training, as the method has them; their seconds."""
    data = TaskData(task, ("image",), params.batch, augment=task.augment)
    later, spent = params.epochs // 2, 0.0
    for part, objective, epochs in zip(("wiring", "adapting"), objectives, (params.epochs - later, later)):
        training = replace(settings(params, epochs), seed=task.seed)
        fitted = fit(net, data, training, objective, folder=folder / part, groups=groups)
        print(folder.name, part, [round(loss, 3) for loss in fitted.losses], flush=True)
        spent += fitted.seconds
        if part == "wiring":
            if between:
                between()
            freeze(net)
    return round(spent)


def agreement(net: nn.Module, start: Start, mass: float) -> float:
    """The share of blocks about which predictors say what the heat of the layer, as it is now, says."""
    right: list[Tensor] = []

    def rule(heat: Tensor, logits: Tensor) -> Tensor:
        right.append(((logits > 0) == (targets(heat, mass) > 0)).float().mean(1))
        return (logits > 0).to(heat.dtype)

    for each in gates(net):
        each.rule = rule
    with torch.no_grad():
        for inputs in start.batches:
            net(*inputs)
    for each in gates(net):
        each.rule = None
    return float(torch.cat(right).mean())


def train(options: argparse.Namespace) -> None:
    """Every case that is not done, the most telling ones first."""
    task = limited(cifar10(options.data), options.limit)
    params = Params(epochs=options.epochs, block=options.block, distill=DISTILL)
    options.work.mkdir(parents=True, exist_ok=True)
    start = start_of(task, params.block, options.work / f"estimate-{params.block}.json")
    for seed in range(options.seeds):
        for keep in options.keep:
            for way in options.ways:
                run_case(Case(way, keep, seed, params.epochs), task, start, params, options.work)


# ------------------------------------------------------------------ the page


def forms(options: argparse.Namespace, first: dict[str, Any]) -> Forms:
    """The whole network and a trained one, in ONNX Runtime and with our kernels."""

    def made(bench: Bench) -> dict[str, tuple[Model, Plan]]:
        task = cifar10(options.data)
        start = start_of(task, first["block"], options.work / f"estimate-{first['block']}.json")
        net = gate_(trained(NETWORK), start.units)
        case = Case(first["way"], first["keep"], first["seed"], first["epochs"])
        net.load_state_dict(torch.load(options.work / case.name / "net.pt", weights_only=True))
        fewer = lowered(with_module(bench.original, net.eval(), case.name), bench)
        both = {"whole": bench.reference, "ftwt": fewer}
        plain = {name: (model, bench.plan(model)) for name, model in both.items()}
        ours = {f"{name}, our kernels": (model, with_kernels(model, bench)) for name, model in both.items()}
        return {**plain, **ours}

    return made


def write_page(options: argparse.Namespace) -> None:
    """The page, of what has been trained so far."""
    task, found = cifar10(options.data), results(options.work, PAGE)
    whole = accuracy(trained(NETWORK), task, "test")
    first = next(each for each in found if each["way"] == "ftwt")
    here = Path(__file__).parent
    images = f"{here.parent / 'examples' / 'cifar10.py'}:resnet"
    told, where = speeds(options, f"{here / 'networks.py'}:{NETWORK}", forms(options, first), images)
    lines = [
        "# Channels that fire together, on CIFAR-10",
        "",
        f"Written by `benchmarks/ftwt.py page`. VGG-11 (`benchmarks/networks.py`) on CIFAR-10, {task.size('test')} "
        f"images to test; top-1 in %. The whole network: {whole:.2f}. `estimate` is the share of multiply-accumulates "
        "promised before training, `left` what masks leave after it, predictors counted, both in %; means over seeds. "
        f"{DISTILL} of the loss are from the whole network's answers.",
        "",
        "| budget | way | seeds | epochs, examples | estimate | left | predicted right | test | loss on test |",
        "|---" * 9 + "|",
        *(_row(list(some), whole) for _, some in itertools.groupby(sorted(found, key=_case), _case)),
        "",
        "`random` draws as many blocks anew for each image, `fixed` once by the seed, `l1` keeps those of the largest "
        "weights; they learn as long and the same way, without predictors.",
        "",
        f"Time, of the network with seed {first['seed']} and a budget of {first['keep']:g}: {where}, float32, batch 1, "
        "on a stream of images, interleaved; the ratio is of mean undisturbed times, its interval 95 %.",
        "",
        "| form | times as fast |",
        "|---|---|",
        *(f"| {name} | {ratio} |" for name, ratio in told.items()),
    ]
    written(PAGE, lines)


def _case(result: dict[str, Any]) -> tuple[float, int, int, int]:
    """What results of several seeds have in common, in the order of the table."""
    return result["keep"], WAYS.index(result["way"]), result["epochs"], result["examples"]


def _row(found: Sequence[dict[str, Any]], whole: float) -> str:
    """The row of a case, of its results with every seed."""
    keep, way, epochs, examples = (found[0][key] for key in ("keep", "way", "epochs", "examples"))
    numbers = (mean_told([each[key] for each in found]) for key in ("estimate", "left"))
    right = mean_told([each["predicted right"] for each in found]) if way == "ftwt" else ""
    test, loss = mean_told([each["test"] for each in found]), mean_told([whole - each["test"] for each in found])
    case = f"{keep:g} | {way} | {len(found)} | {epochs}, {examples}"
    return f"| {case} | {' | '.join(numbers)} | {right} | {test} | {loss} |"


# ------------------------------------------------------------------ command line


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line says; `run` is the function that does it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = train_command(commands, train, epochs=8, ways=WAYS)
    training.add_argument("--block", type=int, default=8)
    training.add_argument("--keep", type=float, nargs="+", default=[0.55])
    page = page_command(commands, write_page)
    for command in (training, page):
        command.add_argument("--data", required=True)
        command.add_argument("--work", type=Path, required=True)
    return parser.parse_args(given)


if __name__ == "__main__":
    chosen = arguments(sys.argv[1:])
    chosen.run(chosen)
