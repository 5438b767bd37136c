"""Fewer tokens, early exits and integers on one ViT: what each gains alone, and what they gain together.

    python benchmarks/composition.py prepare --data DIR
    python benchmarks/composition.py measure --data DIR

The ViT of `networks.py` on CIFAR-10. `prepare` trains and quantises (kept in the cache; goes on after a kill).
`measure` fits the gates, times all forms by turns on a stream of images, reads the test split once per form, and
writes `docs/results/composition.md`. Trainings are short: this page is about how gains combine, not about the best
of each.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from trained_pages import ratio_told
from training_runs import RESULTS

from edgewright.asking.recipe import ordered, resolve
from edgewright.asking.request import Request, parse_method
from edgewright.bench import Bench
from edgewright.deploying.steps import run_step
from edgewright.environment import Environment
from edgewright.exits.settle import settle, unsettled
from edgewright.measuring.timings import Measured
from edgewright.registry import Registry
from edgewright.store import Store
from edgewright.types import Model
from edgewright.verbs.subject import bench_for

HERE = Path(__file__).resolve().parent
METHODS = {
    "fewer tokens": "token-slim:at=2+4,keep=32+16,epochs=1",
    "exits": "early-exit:heads=linear,at=2+4,train=heads,head_epochs=1",
    "int8": "quantize",
}
TOGETHER = "all three"
FORMS: Mapping[str, tuple[str, ...]] = {name: (name,) for name in METHODS} | {TOGETHER: tuple(METHODS)}


def composed(names: tuple[str, ...], bench: Bench) -> Model:
    """The network after some methods, as ONNX; gates are open still."""
    calls = tuple(parse_method(METHODS[name]) for name in names)
    methods = resolve(Request(apply=calls), bench.target, bench.registry).methods
    model = bench.original
    for method in ordered(methods, model.format, bench.registry):
        model = run_step(method, model, bench)
    return model


def page(found: Mapping[str, Measured], scores: Mapping[str, float], told: Mapping[str, str], bench: Bench) -> str:
    """The page of results."""
    alone = [_value(found[name]) for name in METHODS]
    rows = (
        f"| {name} | {', '.join(f'`{METHODS[part]}`' for part in FORMS.get(name, ()))} | "
        f"{ratio_told(each.ratio) if each.ratio else ''} | {scores[name]:.2f} | {told[name]} |"
        for name, each in found.items()
    )
    lines = (
        "# Gains alone and together",
        "Written by `benchmarks/composition.py measure`. ViT (`benchmarks/networks.py`: 64 tokens, 6 blocks) on "
        f"CIFAR-10; {bench.task.size('training')} images to train on, {bench.task.size('test')} to test; one seed. "
        f"Speed: {bench.host.device().cpu}, one thread, onnxruntime {bench.versions['onnxruntime']}, batch 1, a "
        "stream of images, interleaved; the ratio is of mean undisturbed times, its interval 95 %.",
        "\n".join(
            ("| form | methods | times as fast | top-1, % | leave at each exit |", "|---|---|---|---|---|", *rows)
        ),
        f"Multiplied, the three gains alone would be {math.prod(alone):.2f}; together they are "
        f"{_value(found[TOGETHER]):.2f}.",
    )
    return "\n\n".join(lines) + "\n"


def _value(measured: Measured) -> float:
    assert measured.ratio is not None
    assert measured.ratio.value is not None
    return measured.ratio.value


def leaving(name: str, model: Model, bench: Bench) -> str:
    """How many of 100 leave at each stage, in words; nothing for a form that never had exits."""
    if len(model.stages) == 1:
        return "no exit earns its place" if "exits" in FORMS.get(name, ()) else ""
    at = bench.deployed_exits(model, "test", bench.plan(model))
    return " / ".join(f"{100 * float((at == stage).mean()):.0f}" for stage in range(len(model.stages)))


def measure(models: Mapping[str, Model], bench: Bench) -> None:
    """Fit gates, time everything by turns, read the test split, and write the page."""
    settled = {name: settle(each, bench).model if unsettled(each) else each for name, each in models.items()}
    plans = {name: (each, bench.plan(each)) for name, each in settled.items()}
    found = bench.timed(plans, "default")
    scores = {
        name: bench.score(bench.deployed_outputs(each, "test", plan), "test") for name, (each, plan) in plans.items()
    }
    told = {name: leaving(name, each, bench) for name, each in settled.items()}
    (RESULTS / "composition.md").write_text(page(found, scores, told, bench), encoding="utf-8")


def main() -> None:
    """Prepare, or measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "measure"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgewright")
    options = parser.parse_args()
    os.environ["EDGEWRIGHT_DATA"] = options.data
    env = Environment(Registry(), Store(options.cache), lambda message, done, total: print(message, flush=True))
    request = Request(threads=1, task=f"{HERE.parent / 'examples' / 'cifar10.py'}:resnet")
    with ExitStack() as stack:
        bench = bench_for(f"{HERE / 'networks.py'}:vit", request, env, stack)
        models = {"whole": bench.reference} | {name: composed(parts, bench) for name, parts in FORMS.items()}
        if options.what == "measure":
            measure(models, bench)


if __name__ == "__main__":
    main()
