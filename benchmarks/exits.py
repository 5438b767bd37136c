"""Do early exits keep what they promise? Paired on all test images, from networks that `early_exit.py train` wrote.

    python benchmarks/exits.py --nets DIR --data DIR --net vit12 [--goals 0.5 0.556 0.625 0.7]

For each seed, LGViT and its controls become chains; their gates are fitted on calibration and selection images with
costs measured in the running chain, once for a loss of at most half a point and once for each share of the latency in
--goals. Then every test image goes through the network without exits and through every chain, in turns. Writes
docs/results/early-exit-NET.md and what it is made of, NET.json.found, beside the networks.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from early_exit import load_net

from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.deploying.steps import lowered
from edgewright.environment import Environment
from edgewright.exits.settle import settle, with_thresholds
from edgewright.measuring import stats
from edgewright.onnxchain import dropped
from edgewright.protocols import NoParams
from edgewright.registry import Registry
from edgewright.store import Store, key_of
from edgewright.task import Task
from edgewright.torchkit.anatomy import examine
from edgewright.torchkit.weights import digest_of
from edgewright.types import Goal, Model
from edgewright.verbs.subject import bench_for
from edgewright_plugins.early_exit.build import example_of
from edgewright_plugins.early_exit.chain import stages_of, with_stages
from edgewright_plugins.early_exit.judge import answers_on, temperatures
from edgewright_plugins.early_exit.net import MultiExit
from edgewright_plugins.early_exit.split import Chain
from edgewright_plugins.nested_if import NESTED_IF
from edgewright_runtime import load

ROOT = Path(__file__).resolve().parents[1]
PASSES = 2
"""How often each image goes through each model; the quicker time counts."""
WARM = 200
LOWEST = -1e30
"""A threshold that every row passes: the network ends there."""
SPEEDUPS = (1.6, 1 / 0.6, 1.8)
"""Of the mean latency, at which accuracies are compared; the second is 60 % of it."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """One chain on the test images: accuracy in % (its own last answer's too), times in ms, shares of exits."""

    heads: str
    seed: int
    goal: str
    accuracy: float
    own: float
    speedup: float
    speedup_interval: tuple[float, float]
    mean_ms: float
    p50_ms: float
    p99_ms: float
    whole_mean_ms: float
    whole_p99_ms: float
    shares: tuple[float, ...]
    stages: tuple[str, ...]
    early: float
    late: float


@dataclass(frozen=True, eq=False)
class Entrant:
    """One chain: what it is, and whether its answers and its own last answers are right."""

    heads: str
    seed: int
    goal: str
    model: Model
    path: Path
    right: npt.NDArray[np.bool_]
    own: npt.NDArray[np.bool_]
    left: npt.NDArray[np.intp]


def chained(model: Model, net: MultiExit, task: Task) -> Model:
    """A trained network as `early-exit` would leave it: a chain with temperatures and without thresholds."""
    example = example_of(model)
    with torch.no_grad():
        seen = net(*example)
    exits = seen.at[:-1] if net.final else seen.at
    ends = [block.end for block in examine(net.backbone, example).blocks]
    chain = Chain(net, ends, exits, example, rule="max-probability", soft=False)
    if exits:
        found = temperatures(answers_on(chain, task, [spec.name for spec in model.signature.inputs], "calibration"))
        for gate, value in zip(chain.gates, found, strict=True):
            cast("torch.Tensor", gate.temperature).fill_(value)
    return with_stages(model, stages_of(model, chain, f"trained {digest_of(chain)}"))


def entrants(path: Path, goals: Sequence[Goal], bench: Bench) -> Iterator[Entrant]:
    """The chains of one trained network, one for each goal; linear heads also as networks that end at an exit."""
    said = json.loads(path.with_suffix(".json").read_text())["settings"]
    chain = lowered(chained(bench.original, load_net(path), bench.task), bench)
    heads, seed = said["heads"], said["seed"]
    if len(chain.stages) == 1:
        yield entrant(heads, seed, "no exit", chain, chain, bench)
        return
    if heads == "truncated":
        yield entrant(heads, seed, "ends there", chain, with_thresholds(chain, [LOWEST]), bench)
        return
    for goal in goals:
        aimed = replace(chain, variants=(replace(chain.variants[0], goal=goal),))
        name = f"loss <= {100 * goal.drop:g}" if goal.drop is not None else f"cost <= {goal.cost:.3f}"
        yield entrant(heads, seed, name, chain, settle(aimed, bench).model, bench)
    if heads == "linear":
        for number in range(len(chain.stages) - 1):
            short = replace(chain, variants=(dropped(chain.variants[0], range(number), bench.store.keep),))
            gates = [LOWEST] * (len(short.stages) - 1)
            yield entrant("cut short", seed, f"at exit {number + 1}", chain, with_thresholds(short, gates), bench)


def entrant(  # noqa: PLR0917 - what it is called, and what it is
    heads: str, seed: int, goal: str, chain: Model, model: Model, bench: Bench
) -> Entrant:
    """One chain and its answers; `chain` is the one without thresholds, whose last answers are its own."""
    labels, plan = bench.task.labels("test"), bench.plan(model)
    outputs = bench.deployed_outputs(model, "test", plan)
    own = next(iter(bench.explored(chain, "test")[-1].values())).argmax(1) == labels
    right = next(iter(outputs.values())).argmax(1) == labels
    left = bench.deployed_exits(model, "test", plan)
    return Entrant(heads, seed, goal, model, bench.trial(model, plan), right, own, left)


def timed(paths: Sequence[Path], images: Floats) -> Floats:
    """Milliseconds [models, images]: the quicker of each image's runs, the models taking turns image by image."""
    opened = [load(path) for path in paths]
    taken = np.full((PASSES, len(paths), len(images)), np.inf)
    rng = np.random.default_rng(0)
    for model in opened:
        for image in images[:WARM]:
            model.run(image[None])
    gc.collect()
    gc.disable()
    for each in taken:
        for number, image in enumerate(images):
            for which in rng.permutation(len(opened)):
                start = perf_counter_ns()
                opened[which].run(image[None])
                each[which, number] = (perf_counter_ns() - start) / 1e6
    gc.enable()
    return taken.min(0)


def found(of: Entrant, times: Floats, whole: Floats) -> Found:
    """What one chain came to."""
    value, interval = stats.ratio_of_means(whole, times)
    early = of.left == of.left.min()
    late = of.left == of.left.max()
    count = int(of.left.max()) + 1
    return Found(
        of.heads,
        of.seed,
        of.goal,
        100 * float(of.right.mean()),
        100 * float(of.own.mean()),
        value,
        interval,
        float(times.mean()),
        float(np.median(times)),
        float(np.percentile(times, 99)),
        float(whole.mean()),
        float(np.percentile(whole, 99)),
        tuple(float(np.mean(of.left == number)) for number in range(count)),
        tuple(stage.name for stage in of.model.stages),
        100 * float(of.right[early].mean()),
        100 * float(of.right[late].mean()),
    )


def nested(of: Entrant, bench: Bench) -> Entrant:
    """The same chain in one graph of nested `If`s."""
    model = NESTED_IF.apply(of.model, NoParams(), Workbench(bench, key_of("nested", of.model.digest)))
    return entrant(f"{of.heads}, one graph of Ifs", of.seed, of.goal, of.model, model, bench)


def measured(paths: Sequence[Path], goals: Sequence[Goal], bench: Bench) -> list[Found]:
    """Every chain of one seed, in turns with the network without exits; the first also as one graph."""
    listed = [each for path in paths for each in entrants(path, goals, bench)]
    first = next(each for each in listed if len(each.model.stages) > 1)
    listed.append(nested(first, bench))
    same = int((listed[-1].left == first.left).sum())
    print(
        f"{first.heads} {first.seed} {first.goal}: the same exit in stages and in Ifs for {same} of {len(first.left)}"
    )
    images = next(iter(next(iter(bench.task.batches("test", bench.task.size("test")))).inputs.values()))
    whole = bench.trial(bench.reference, bench.plan(bench.reference))
    times = timed([whole, *(each.path for each in listed)], images)
    return [found(each, times[number], times[0]) for number, each in enumerate(listed, 1)]


def read(entry: dict[str, Any]) -> Found:
    """What was found, from its JSON form."""
    tuples = ("speedup_interval", "shares", "stages")
    fields: dict[str, Any] = {name: tuple(value) if name in tuples else value for name, value in entry.items()}
    return Found(**fields)


# ------------------------------------------------------------------ what it says


def over_seeds(values: Sequence[float]) -> str:
    """Mean and its 95 % interval over seeds."""
    mean, interval = stats.mean_interval(values)
    return f"{mean:.2f}" if interval is None else f"{mean:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def at_equal_time(results: Sequence[Found], heads: str, speedup: float, seed: int) -> float:
    """The accuracy of other heads of the same seed at a measured speed-up, between their nearest points.

    The slowest point stands for what is slower still. NaN beyond the quickest.
    """
    points = sorted((each.speedup, each.accuracy) for each in results if each.heads == heads and each.seed == seed)
    speeds, accuracies = zip(*points, strict=True)
    return float(np.interp(speedup, speeds, accuracies, right=np.nan))


def rows(results: Sequence[Found]) -> Iterator[list[str]]:
    """One row per heads and goal, over seeds."""
    for heads, goal in dict.fromkeys((each.heads, each.goal) for each in results):
        some = [each for each in results if (each.heads, each.goal) == (heads, goal)]
        own = [each.own - each.accuracy for each in some]
        yield [
            heads,
            goal,
            str(len(some)),
            over_seeds([each.speedup for each in some]),
            over_seeds([each.accuracy for each in some]),
            over_seeds(own),
            f"{max(each.p99_ms / each.whole_p99_ms for each in some):.2f}",
            "; ".join("/".join(f"{100 * share:.0f}" for share in each.shares) for each in some),
            f"{np.mean([each.early for each in some]):.1f} / {np.mean([each.late for each in some]):.1f}",
        ]


TITLES = (
    "heads",
    "gates fitted to",
    "seeds",
    "speed-up (mean latency)",
    "accuracy %",
    "below its own last answer",
    "p99 / p99 without exits",
    "leave at each exit, %",
    "accuracy of the first and of the last to leave, %",
)


def comparisons(results: Sequence[Found], heads: str, controls: Sequence[str]) -> Iterator[str]:
    """How far the heads are above each control at equal measured time, paired by seed."""
    for control in controls:
        for goal in dict.fromkeys(each.goal for each in results if each.heads == heads):
            known = {each.seed for each in results if each.heads == control}
            gains = [
                each.accuracy - at_equal_time(results, control, each.speedup, each.seed)
                for each in results
                if (each.heads, each.goal) == (heads, goal) and each.seed in known
            ]
            if gains and np.isfinite(gains).all():
                yield (
                    f"- {heads} fitted to `{goal}`, over {control} at equal time: {over_seeds(gains)} points "
                    f"(n = {len(gains)} seeds)"
                )


def at_speed(results: Sequence[Found], heads: Sequence[str]) -> Iterator[str]:
    """What each kind of heads keeps at the speed-ups that are asked for, between its measured points."""
    for speedup in SPEEDUPS:
        for each in heads:
            seeds = sorted({one.seed for one in results if one.heads == each})
            kept = [at_equal_time(results, each, speedup, seed) for seed in seeds]
            own = [next(one.own for one in results if (one.heads, one.seed) == (each, seed)) for seed in seeds]
            if kept and np.isfinite(kept).all():
                below = over_seeds([one - other for one, other in zip(own, kept, strict=True)])
                yield f"| {speedup:.2f} | {each} | {over_seeds(kept)} | {below} |"


def page(net: str, results: Sequence[Found], bench: Bench, heads: str, controls: Sequence[str]) -> str:
    """The page of results."""
    device = bench.host.device()
    original = bench.score(bench.outputs(bench.reference, "test"), "test")
    lines = [
        f"# Early exits on {net}",
        "",
        f"Written by `benchmarks/exits.py`. {bench.task.name}: {'; '.join(bench.task.notes)}. Without exits, before "
        f"any further training: {original:.2f} % on test. {device.cpu}, one thread, "
        f"onnxruntime {bench.versions['onnxruntime']}; "
        f"all {bench.task.size('test')} test images, models in turns, the quicker of {PASSES} runs of each image.",
        "",
        "| " + " | ".join(TITLES) + " |",
        "|" + "---|" * len(TITLES),
        *("| " + " | ".join(row) + " |" for row in rows(results)),
        "",
        "Intervals are 95 %, Student's t over seeds. `cut short` is the network with linear heads, ended at an exit: a "
        "network of that depth, trained with the deeper ones. Between measured points of a control, accuracy is "
        "interpolated.",
        "",
        "| speed-up | heads | accuracy % | below its own last answer |",
        "|---|---|---|---|",
        *at_speed(results, (heads, *controls)),
        "",
        *comparisons(results, heads, controls),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every seed and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--net", required=True)
    parser.add_argument("--heads", default="lgvit")
    parser.add_argument("--controls", nargs="+", default=["linear", "truncated"])
    parser.add_argument("--goals", type=float, nargs="*", default=[0.45, 0.556, 0.625])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--drop", type=float, default=0.5)
    parser.add_argument("--again", action="store_true", help="write the page of what was found before")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/edgewright-exits"))
    options = parser.parse_args()
    os.environ["EDGEWRIGHT_DATA"] = options.data
    goals = [Goal(drop=options.drop / 100), *(Goal(cost=share) for share in options.goals)]
    env = Environment(Registry(), Store(options.cache), _told)
    request = Request(
        model=f"{ROOT / 'benchmarks/networks.py'}:{options.net}", task=f"{ROOT / 'examples/cifar10.py'}:resnet"
    )
    kept = options.nets / f"{options.net}.json.found"
    results: list[Found] = []
    with ExitStack() as stack:
        bench = bench_for(str(request.model), request, env, stack)
        if options.again:
            results = [read(entry) for entry in json.loads(kept.read_text())]
        for seed in range(0 if options.again else options.seeds):
            names = [f"{options.net}-{each}-{seed}.safetensors" for each in (options.heads, *options.controls)]
            paths = [options.nets / name for name in names]
            results += measured([path for path in paths if path.is_file()], goals, bench)
            kept.write_text(json.dumps([asdict(each) for each in results], indent=1))
        text = page(options.net, results, bench, options.heads, (*options.controls, "cut short"))
    (ROOT / "docs" / "results" / f"early-exit-{options.net}.md").write_text(text)


def _told(message: str, done: int, total: int) -> None:
    print(f"\r{message} {done}/{total}   ", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
