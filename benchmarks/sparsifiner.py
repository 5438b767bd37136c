"""Learned sparse attention on CIFAR-10, on the ViT of `networks.py`, against random masks; goes on after a kill.

    python benchmarks/sparsifiner.py train --data DIR --work DIR --seeds 1
    python benchmarks/sparsifiner.py build --work DIR
    python benchmarks/sparsifiner.py page --data DIR --work DIR

Each of 6 blocks computes half of its attention: tiles of 16 queries see 4 of 8 blocks of 8 keys. `sparsifiner` is the
method; `random` has masks of the same density that are drawn once, and learns as long. Both learn from labels and from
the whole network. `build` compiles what `page` times: this ViT and DeiT-tiny's shape, dense and sparse, as plain graphs
and with our kernels, predictors included. The test split is read once per training that ended.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from networks import trained
from token_slim import ratio_told
from torch import nn
from train_reference import accuracy, cifar10
from training_runs import inputs, limited, train_command

from edgewright.bench import Bench, stage_artifacts
from edgewright.bench.placing import placements_of
from edgewright.environment import Environment
from edgewright.exporting import exported
from edgewright.recipe import Request
from edgewright.registry import Registry
from edgewright.steps import lowered
from edgewright.store import Store
from edgewright.task import Task
from edgewright.torchkit.data import TaskData
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import distilled
from edgewright.types import Model, Plan, TorchGraph
from edgewright.verbs.subject import bench_for
from edgewright_plugins.sparsifiner import Params
from edgewright_plugins.sparsifiner.attention import sparse_attentions
from edgewright_plugins.sparsifiner.job import planned, sparse
from edgewright_plugins.sparsifiner.learn import connecting, groups, kept, settings, start, teacher_of
from edgewright_plugins.tokens.decide import with_module

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "sparsifiner.md"
NETWORK = "vit"
SHAPES = {
    "the ViT, 64 tokens": (f"{ROOT / 'benchmarks/networks.py'}:{NETWORK}", 32),
    "DeiT-tiny's shape, 197 tokens": (f"{ROOT / 'examples/deit_tiny.py'}:model", 224),
}
"""What is timed: where it is, and the size of its images."""
WAYS = ("sparsifiner", "random")


@dataclass(frozen=True)
class Case:
    """One training: how masks come about, with which seed."""

    way: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.way}-{self.seed}"


def network_of(case: Case, params: Params, task: Task) -> nn.Module:
    """The network of a case, its predictors fitted, before it trains."""
    network, batches = trained(NETWORK), inputs(task, "calibration", 64, 4)
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


def run_case(case: Case, task: Task, params: Params, work: Path) -> None:
    """Train one case and read its accuracy; a case that is done is left alone."""
    folder = work / case.name
    file = folder / "result.json"
    if file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(case.seed)
    net = network_of(case, params, task)
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
            run_case(Case(way, seed), task, Params(epochs=options.epochs), options.work)


# ------------------------------------------------------------------ time


def plans(bench: Bench, size: int) -> Mapping[str, tuple[Model, Plan]]:
    """Dense and sparse, as plain graphs and with our kernels; the first is what the others are compared with."""
    graph = bench.original.graph
    assert isinstance(graph, TorchGraph)
    module: nn.Module = graph.module
    few = sparse(copy.deepcopy(module), planned(module, (torch.zeros(1, 3, size, size),), {}, Params()), 0).eval()
    models = {"dense": bench.reference, "sparse": lowered(with_module(bench.original, few, "sparsifiner"), bench)}
    return {
        f"{name}, {form}": (model, plan_of(model, exporter, bench))
        for form, exporter in (("plain graph", ""), ("our kernels", "kernels"))
        for name, model in models.items()
    }


def plan_of(model: Model, exporter: str, bench: Bench) -> Plan:
    """How a model runs in ONNX Runtime, as it is or as an exporter writes it."""
    artifacts = exported(model, exporter, bench) if exporter else stage_artifacts(model)
    device = bench.host.device()
    placements = tuple(
        placements_of(each, ("ort",), registry=bench.registry, recipe=bench.recipe, target=bench.target, device=device)[
            0
        ]
        for each in artifacts
    )
    return Plan(placements, artifacts if exporter else ())


def timed(options: argparse.Namespace, *, measure: bool) -> None:
    """Build every form and, with `measure`, time those of each shape in turns; kept in the folder of the runs."""
    env = Environment(Registry(), Store(options.cache), lambda message, done, total: None)
    for title, (source, size) in SHAPES.items():
        file = options.work / f"speed-{size}.json"
        if file.exists():
            continue
        with ExitStack() as stack:
            bench = bench_for(source, Request(threads=1), env, stack)
            made = plans(bench, size)
            print(title, list(made), flush=True)
            if not measure:
                continue
            found = bench.timed(made, options.preset)
            where = f"{bench.host.device().cpu}, one thread, onnxruntime {bench.versions['onnxruntime']}"
            rows = {
                name: [f"{each.latency['p50'].value:.3f}", ratio_told(each.ratio) if each.ratio else "1"]
                for name, each in found.items()
            }
            file.write_text(json.dumps({"title": title, "where": where, "preset": options.preset, "rows": rows}))
            print(rows, flush=True)


def build_forms(options: argparse.Namespace) -> None:
    """Compile what `page` times."""
    timed(options, measure=False)


# ------------------------------------------------------------------ the page


def untrained(task: Task, work: Path) -> dict[str, Any]:
    """What the network gives on the test split before it trains: with predictors fitted, and with drawn masks."""
    file = work / "before.json"
    if not file.exists():
        nets = {way: network_of(Case(way, 0), Params(), task).eval() for way in WAYS}
        batches = inputs(task, "calibration", 250, 4)
        found = {
            way: {"test": round(accuracy(net, task, "test"), 2), "attention": round(100 * kept(net, batches)[1], 1)}
            for way, net in nets.items()
        }
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def write_page(options: argparse.Namespace) -> None:
    """The page, of what has been trained so far; times what is not timed yet."""
    timed(options, measure=True)
    task = cifar10(options.data)
    whole, before = accuracy(trained(NETWORK), task, "test"), untrained(task, options.work)
    results = [json.loads(path.read_text()) for path in sorted(options.work.glob("*/result.json"))]
    speeds = [json.loads(path.read_text()) for path in sorted(options.work.glob("speed-*.json"))]
    lines = [
        "# Learned sparse attention",
        "",
        "Written by `benchmarks/sparsifiner.py page`.",
        "",
        "## Accuracy",
        "",
        "ViT (`benchmarks/networks.py`: 64 tokens, 6 blocks of 3 heads) on CIFAR-10, "
        f"{task.size('test')} images to test; top-1 in %. The whole network: {whole:.2f}. Each tile of 16 queries sees "
        "4 of 8 blocks of 8 keys: half of all pairs of tokens. `dense attention kept` is what of the attention that "
        "the network would give falls on the pairs that are computed.",
        "",
        "| masks | trained | dense attention kept, % | test | loss |",
        "|---|---|---|---|---|",
        *(_accuracy(way, "not", before[way], whole) for way in WAYS),
        *(_accuracy(each["way"], _training(each), each, whole) for each in results),
        "",
        "`sparsifiner` is the method: before training its predictors are fitted to 256 calibration images. `random` "
        "has masks of the same density, drawn once, and learns as long. The bar is a loss of 0.5 after 20 epochs.",
        "",
        "## Time",
        "",
        *(line for each in speeds for line in _speed(each)),
    ]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")


def _training(result: Mapping[str, Any]) -> str:
    return f"{result['epochs']} epochs of {result['examples']} images, seed {result['seed']}"


def _accuracy(way: str, how: str, found: Mapping[str, Any], whole: float) -> str:
    return f"| {way} | {how} | {found['attention']} | {found['test']:.2f} | {whole - found['test']:.2f} |"


def _speed(found: Mapping[str, Any]) -> list[str]:
    rows = [f"| {name} | {median} | {ratio} |" for name, (median, ratio) in found["rows"].items()]
    told = (
        f"{found['title']}: {found['where']}, batch 1, interleaved, preset {found['preset']}, 95 % interval; "
        "predictors counted. At most half of the pairs are computed."
    )
    return [told, "", "| form | median ms | times as fast |", "|---|---|---|", *rows, ""]


# ------------------------------------------------------------------ command line


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line says; `run` is the function that does it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = train_command(commands, train, epochs=10, ways=WAYS)
    build = commands.add_parser("build", help="compile what is timed")
    build.set_defaults(run=build_forms)
    page = commands.add_parser("page", help="time what is not timed yet, and write the page of what is trained")
    page.set_defaults(run=write_page)
    for command in (build, page):
        command.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgewright")
        command.add_argument("--preset", default="default")
    for command in (training, page):
        command.add_argument("--data", required=True)
    for command in (training, build, page):
        command.add_argument("--work", type=Path, required=True)
    return parser.parse_args(given)


if __name__ == "__main__":
    chosen = arguments(sys.argv[1:])
    chosen.run(chosen)
