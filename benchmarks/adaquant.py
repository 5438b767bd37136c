"""What AdaQuant keeps of two ResNet-20s with weights of 4 bits, against the same bits rounded to the nearest.

    python benchmarks/adaquant.py --data DIR [--work DIR]

DIR holds `vision/cifar10*.npz` and `models/resnet20_cifar10.onnx`. Writes docs/results/adaquant.md; with --work it
goes on after a kill. Each seed draws 512 unlabelled calibration images anew. Accuracy is the exported integer graph's,
run by onnxruntime, on the test split, which is read once per row.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from edgewright import onnxkit
from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.environment import Environment
from edgewright.grids import encode
from edgewright.registry import Registry
from edgewright.store import Store
from edgewright.types import Array, Arrays
from edgewright.verbs.subject import bench_for
from edgewright_plugins.adaquant import Params
from edgewright_plugins.adaquant.adapt import Settings, adapt
from edgewright_plugins.adaquant.biases import tune_biases
from edgewright_plugins.adaquant.job import Plan, planned
from edgewright_plugins.lift.build import lift_graph
from edgewright_plugins.qdq.layers import constant, layers_of
from edgewright_plugins.qdq.prepare import prepare
from edgewright_plugins.qdq.sensitivity import divergence, divergence_of
from edgewright_plugins.qdq.tune import Adapted, tune_norms

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "adaquant.md"
EXAMPLES, BITS = 512, 4
ROWS = ("min-max", "parallel", "sequential", "sequential + norm", "sequential + norm + bias")
HEAD = ("network", "seed", "float", *ROWS, "shipped by the method", "agreement with fake-quant, %")


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with one draw of calibration images."""

    name: str
    bench: Bench
    plan: Plan
    feeds: Sequence[Arrays]
    seed: int

    def logits(self, proto: onnx.ModelProto) -> Array:
        """The answers to the test images, one at a time, as the runtime gives them."""
        feeds = (batch.inputs for batch in self.bench.task.batches("test", 1))
        return np.concatenate([outputs[0] for outputs in onnxkit.run(onnxkit.pack(proto), feeds)])

    def accuracy(self, logits: Array) -> float:
        """Top-1 in %."""
        return round(100 * float(np.mean(logits.argmax(1) == self.bench.labels("test"))), 2)

    def written(self, adapted: Adapted) -> onnx.ModelProto:
        """The integer graph."""
        return adapted.written(self.plan.proto, self.plan.scheme, self.plan.ranges)


def subject(name: str, source: str, seed: int, env: Environment, stack: ExitStack) -> Subject:
    """The network on its task, with the seed's calibration images."""
    bench = bench_for(source, Request(task=f"{ROOT / 'examples' / 'cifar10.py'}:resnet", on="local"), env, stack)
    examples, rows = bench.task.splits["calibration"]
    drawn = np.random.default_rng(seed).choice(np.asarray(rows), EXAMPLES, replace=False)
    feeds = [examples.take([int(row)])[0] for row in drawn]
    proto = prepare(onnxkit.read(bench.reference.graph))
    return Subject(name, bench, planned(proto, Params(bits=BITS), feeds), feeds, seed)


def min_max(plan: Plan) -> Adapted:
    """The control: each weight to the nearest code, its channel's scale by the largest value."""
    layers = {layer.weight: layer for layer in layers_of(plan.proto)}
    scales = {name: encode(grid, constant(plan.proto, name), layers[name].axis) for name, grid in plan.grids.items()}
    return Adapted({}, scales)


def forms(it: Subject) -> dict[str, Callable[[dict[str, Adapted]], Adapted]]:
    """How each row of the table is made, given those before it."""
    plan, quiet = it.plan, lambda done, total: None
    seen = it.feeds[: EXAMPLES * 3 // 4]

    def fitted(_: dict[str, Adapted], *, parallel: bool) -> Adapted:
        settings = Settings(plan.scheme, parallel=parallel, seed=it.seed)
        with tempfile.TemporaryDirectory() as folder:
            return adapt(plan.proto, plan.grids, plan.ranges, it.feeds, settings, progress=quiet, folder=Path(folder))

    def normed(before: dict[str, Adapted]) -> Adapted:
        return tune_norms(plan.proto, plan.scheme, plan.ranges, before["sequential"], seen, progress=quiet)

    def biased(before: dict[str, Adapted]) -> Adapted:
        return tune_biases(plan.proto, before["sequential + norm"], seen, seed=it.seed, progress=quiet)

    made = (lambda _: min_max(plan), partial(fitted, parallel=True), partial(fitted, parallel=False), normed, biased)
    return dict(zip(ROWS, made, strict=True))


def agreement(it: Subject, graph: onnx.ModelProto, exported: Array) -> float:
    """In how many of 100 test images the runtime names the class that torch does, rounding in float (fake-quant)."""
    fake = lift_graph(graph, it.feeds[0]).module
    with torch.no_grad():
        answers = [
            fake(*map(torch.from_numpy, each.inputs.values())).argmax(1) for each in it.bench.task.batches("test", 1)
        ]
    return round(100 * float(np.mean(torch.cat(answers).numpy() == exported.argmax(1))), 2)


def measured(it: Subject) -> dict[str, Any]:
    """One line of the table."""
    made: dict[str, Adapted] = {}
    logits: dict[str, Array] = {"float": it.logits(it.plan.proto)}
    for row, make in forms(it).items():
        made[row] = make(made)
        logits[row] = it.logits(it.written(made[row]))
        print(it.name, it.seed, row, it.accuracy(logits[row]), file=sys.stderr, flush=True)
    found: dict[str, Any] = {row: it.accuracy(answers) for row, answers in logits.items()}
    shipped = chosen(it, made)
    apart = {row: divergence([logits[row]], [logits["float"]]) for row in ROWS}
    same = agreement(it, it.written(made[shipped]), logits[shipped])
    return {"network": it.name, "seed": it.seed, **found, "shipped": shipped, "agreement": same, "apart": apart}


def chosen(it: Subject, made: dict[str, Adapted]) -> str:
    """What the method itself ships: the form nearest to float on the images that fitted nothing."""
    judges = it.feeds[EXAMPLES * 3 // 4 :]
    forms = ("sequential", "sequential + norm", "sequential + norm + bias")
    return min(forms, key=lambda row: divergence_of(it.written(made[row]), it.plan.proto, judges))


def remembered(folder: Path, name: str, seed: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A line that was measured before, or a new one."""
    kept = folder / f"{name}-{seed}.json"
    if not kept.exists():
        kept.write_text(json.dumps(make()))
    return json.loads(kept.read_text())


# ------------------------------------------------------------------ the page


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval over seeds (Student's t)."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    half = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(values), 2.6) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.2f} [{np.mean(values) - half:.2f}, {np.mean(values) + half:.2f}]"


def bars(name: str, lines: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """What the network shows of each bar."""

    def less(first: str, other: str) -> list[float]:
        return [line[first] - line[other] for line in lines]

    lines = [{**line, "final": line[line["shipped"]]} for line in lines]
    asked = (
        ("loss to float, points", less("float", "final"), "at most 1", lambda mean: mean <= 1),
        ("gain over min-max, points", less("final", "min-max"), "at least 3", lambda mean: mean >= 3),
        ("sequential over parallel, points", less("sequential", "parallel"), "at least 0", lambda mean: mean >= 0),
        (
            "divergence, sequential over parallel",
            [line["apart"]["sequential"] / line["apart"]["parallel"] for line in lines],
            "at most 1",
            lambda mean: mean <= 1,
        ),
        ("tuning as shipped, points", less("final", "sequential"), "at least -0.1", lambda mean: mean >= -0.1),
        ("agreement with fake-quant, %", [line["agreement"] for line in lines], "99.5", lambda mean: mean >= 99.5),
    )
    return [
        (f"{name}: {what}", interval(values), bar, "yes" if holds(float(np.mean(values))) else "no")
        for what, values, bar, holds in asked
    ]


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The results page."""
    names = list(dict.fromkeys(line["network"] for line in lines))
    head = (
        f"Written by `benchmarks/adaquant.py` on {date.today()}. Weights of {BITS} bits per channel (first and last "
        f"layer 8), activations of 8; the integer graph that is exported, run by onnxruntime. {EXAMPLES} unlabelled "
        "images, drawn anew for each seed; top-1 in % on the 5000 test images (the images alone give a difference of "
        "two rows a standard error of about 0.3); intervals are 95 % over seeds."
    )
    judged = [row for name in names for row in bars(name, [line for line in lines if line["network"] == name])]
    rows = [
        tuple(str(line[key]) for key in ("network", "seed", "float", *ROWS, "shipped", "agreement")) for line in lines
    ]
    columns = ("network", "seed", *ROWS)
    apart = [(line["network"], str(line["seed"]), *(f"{line['apart'][row]:.4f}" for row in ROWS)) for line in lines]
    said = "Divergence of the classes from the float network's, in nats, on the test images:"
    judged_table = table(("what", "found", "bar", "held"), judged)
    parts = ("# AdaQuant", head, judged_table, table(HEAD, rows), said, table(columns, apart))
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *rows))


def main() -> None:
    """Measure every network and seed that was not measured yet, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path(tempfile.mkdtemp()))
    parser.add_argument("--seeds", type=int, default=3)
    settings = parser.parse_args()
    os.environ["EDGEWRIGHT_DATA"] = str(settings.data / "vision")
    settings.work.mkdir(parents=True, exist_ok=True)
    networks = {
        "published": str(settings.data / "models" / "resnet20_cifar10.onnx"),
        "ours": f"{ROOT / 'benchmarks' / 'networks.py'}:resnet20",
    }
    lines: list[dict[str, Any]] = []
    with ExitStack() as stack:
        store = Store(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        env = Environment(Registry(only=()), store, lambda message, done, total: None)
        for name, source in networks.items():
            for seed in range(settings.seeds):
                make = partial(lambda n, s, k: measured(subject(n, s, k, env, stack)), name, source, seed)
                lines.append(remembered(settings.work, name, seed, make))
    RESULTS.write_text(page(lines), encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
