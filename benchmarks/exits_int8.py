"""Early exits and int8 together: faster than either alone? And what if thresholds were not fitted again?

    python benchmarks/exits_int8.py --nets DIR --data DIR [--net vit] [--heads lgvit] [--mode dynamic]

For each seed: the network, the network in int8, the chain that `early_exit.py train` made of it, and that chain in
int8 (each stage by the method `quantize`), with its gates fitted again and with those of the float chain. All test
images go through all of them in turns. Writes docs/results/early-exit-int8.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from early_exit import load_net
from exits import ROOT, chained, over_seeds, timed

from edgewright.asking.recipe import Method
from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.steps import lowered, run_step
from edgewright.environment import Environment
from edgewright.exits.settle import settle, with_thresholds
from edgewright.measuring import stats
from edgewright.registry import TRANSFORMS, Registry
from edgewright.store import Store
from edgewright.types import Goal, Model
from edgewright.verbs.subject import bench_for
from edgewright_plugins.quantize import Params

RESULTS = ROOT / "docs" / "results" / "early-exit-int8.md"
DROP = 0.5
"""Points that leaving early may lose."""
BAR = 1.5


@dataclass(frozen=True)
class Found:
    """One form of the network: accuracy in %, how many times as fast as the float network in the mean, share that
    leaves before the end."""

    accuracy: float
    speedup: float
    early: float


def forms(path: Path, mode: str, bench: Bench) -> Mapping[str, Model]:
    """The forms to compare, the float network first."""
    offer = bench.registry.get(TRANSFORMS, "quantize")
    quantize = Method(offer, Params(mode=mode))
    chain = lowered(chained(bench.original, load_net(path), bench.task), bench)
    chain = replace(chain, variants=(replace(chain.variants[0], goal=Goal(drop=DROP / 100)),))
    exits, int8 = settle(chain, bench).model, run_step(quantize, chain, bench)
    again = settle(int8, bench).model
    return {
        "float": bench.reference,
        "int8": run_step(quantize, bench.reference, bench),
        "exits": exits,
        "exits and int8, gates fitted again": again,
        "exits and int8, gates of the float chain": with_thresholds_of(exits, run_step(quantize, exits, bench)),
    }


def with_thresholds_of(fitted: Model, other: Model) -> Model:
    """`other` with the thresholds of a chain that has the same stages."""
    return with_thresholds(other, [stage.gate.threshold for stage in fitted.stages if stage.gate])


def measured(path: Path, mode: str, bench: Bench) -> dict[str, Found]:
    """Every form of one seed."""
    models = forms(path, mode, bench)
    images = next(iter(next(iter(bench.task.batches("test", bench.task.size("test")))).inputs.values()))
    times = timed([bench.trial(model, bench.plan(model)) for model in models.values()], images)
    found: dict[str, Found] = {}
    for number, (name, model) in enumerate(models.items()):
        plan = bench.plan(model)
        accuracy = bench.score(bench.deployed_outputs(model, "test", plan), "test")
        left = bench.deployed_exits(model, "test", plan)
        early = 100 * float(np.mean(left < len(model.stages) - 1))
        found[name] = Found(accuracy, stats.ratio_of_means(times[0], times[number])[0], early)
    return found


def page(results: Sequence[Mapping[str, Found]], bench: Bench, asked: argparse.Namespace) -> str:
    """The page of results."""
    lines = [
        "# Early exits and int8",
        "",
        f"Written by `benchmarks/exits_int8.py --net {asked.net} --heads {asked.heads} --mode {asked.mode}`. "
        f"{bench.task.name}, {bench.task.size('test')} test images, {len(results)} seeds of the heads, batch 1, one "
        f"thread, {bench.host.device().cpu}, onnxruntime {bench.versions['onnxruntime']}. Gates fitted to lose at most "
        f"{DROP} points against the chain's own last answer. Allowed for both together: {BAR} points below float.",
        "",
        "| form | accuracy % | of float's mean latency: speed-up | leave early, % |",
        "|---|---|---|---|",
    ]
    for name in results[0]:
        some = [each[name] for each in results]
        cells = [over_seeds([getattr(each, field) for each in some]) for field in ("accuracy", "speedup", "early")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    both = "exits and int8, gates fitted again"
    gains = {
        name: over_seeds([each[both].speedup / each[name].speedup for each in results]) for name in ("int8", "exits")
    }
    lost = over_seeds([each["float"].accuracy - each[both].accuracy for each in results])
    lines += ["", f"Both together take {gains['exits']} times less than exits alone, {gains['int8']} times less than"]
    lines += [f"int8 alone, and lose {lost} points to float. Intervals are 95 %, Student's t over seeds."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every seed and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--net", default="vit")
    parser.add_argument("--heads", default="lgvit")
    parser.add_argument("--mode", default="dynamic")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/edgewright-exits"))
    asked = parser.parse_args()
    os.environ["EDGEWRIGHT_DATA"] = asked.data
    env = Environment(Registry(), Store(asked.cache), lambda message, done, total: None)
    source = f"{ROOT / 'benchmarks/networks.py'}:{asked.net}"
    request = Request(model=source, task=f"{ROOT / 'examples/cifar10.py'}:resnet")
    results: list[Mapping[str, Found]] = []
    with ExitStack() as stack:
        bench = bench_for(source, request, env, stack)
        for seed in range(asked.seeds):
            results.append(measured(asked.nets / f"{asked.net}-{asked.heads}-{seed}.safetensors", asked.mode, bench))
            RESULTS.write_text(page(results, bench, asked))
            sys.stdout.write(RESULTS.read_text())


if __name__ == "__main__":
    main()
