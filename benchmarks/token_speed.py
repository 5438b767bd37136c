"""What fewer tokens save on DeiT-tiny's shape: slimmed, merged, in int8, and slimmed in int8.

    python benchmarks/token_speed.py choose   # searches the schedules by latency; kept in the cache
    python benchmarks/token_speed.py measure  # times what was chosen, interleaved; writes docs/results/token-speed.md

Random weights; the time does not depend on them. The bars: slimmed by `speedup=1.7` at least 1.7 times as fast as the
whole network, and slimmed in int8 faster than slimmed or in int8 alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgewright.asking.recipe import Method
from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.deploying.steps import lowered, run_step
from edgewright.environment import Environment
from edgewright.measuring.timings import Measured
from edgewright.registry import TRANSFORMS, Registry
from edgewright.store import Store
from edgewright.types import Model
from edgewright.verbs.subject import bench_for
from edgewright_plugins.token_merge import TOKEN_MERGE
from edgewright_plugins.token_slim import TOKEN_SLIM

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "token-speed.md"
ASKED: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    "slimmed, speedup=1.7": (TOKEN_SLIM, {"speedup": 1.7}),
    "slimmed after 3, 6, 9": (TOKEN_SLIM, {"at": (3, 6, 9), "keep": (98, 49, 24)}),
    "merged after 3, 6, 9": (TOKEN_MERGE, {"at": (3, 6, 9), "keep": (98, 49, 24)}),
    "merged, 8 per block": (TOKEN_MERGE, {"at": tuple(range(1, 12)), "keep": tuple(196 - 8 * i for i in range(1, 12))}),
}
BAR = 1.7


def decided(name: str, bench: Bench) -> tuple[Model, str]:
    """A network with fewer tokens, and its schedule; the weights that are new have learned nothing."""
    method, asked = ASKED[name]
    context = Workbench(bench, f"token-speed {name}")
    decision = context.remember("decision", lambda: method.decide(bench.original, method.Params(**asked), context))
    steps = ", ".join(f"{count} after {number}" for number, count in zip(decision["at"], decision["keep"]))
    return lowered(method.rewrite(bench.original, decision), bench), steps


def forms(bench: Bench) -> Mapping[str, tuple[Model, str]]:
    """Every form with its schedule, the whole network first."""
    fewer = {name: decided(name, bench) for name in ASKED}
    slim, steps = fewer["slimmed, speedup=1.7"]
    integers = {"int8": (in_int8(bench.reference, bench), ""), "slimmed in int8": (in_int8(slim, bench), steps)}
    return {"whole": (bench.reference, ""), **fewer, **integers}


def in_int8(model: Model, bench: Bench) -> Model:
    """The model quantised, calibrated on noise."""
    offer = bench.registry.get(TRANSFORMS, "quantize")
    return run_step(Method(offer, offer.value.Params(mode="static", range="min-max")), model, bench)


def page(found: Mapping[str, Measured], steps: Mapping[str, str], bench: Bench, preset: str) -> str:
    """The page of results."""
    both, slim, int8 = (_ends(found[name]) for name in ("slimmed in int8", "slimmed, speedup=1.7", "int8"))
    lines = [
        "# Fewer tokens, in time",
        "",
        f"Written by `benchmarks/token_speed.py measure --preset {preset}`: DeiT-tiny's shape (224 x 224, 12 blocks of "
        f"width 192, 196 tokens and one for the class, `examples/deit_tiny.py`), batch 1, one thread, "
        f"{bench.host.device().cpu}, onnxruntime {bench.versions['onnxruntime']}. Interleaved; the ratio is of mean "
        "undisturbed times, its interval 95 % over rounds of fresh processes. Weights are random: this page is about "
        "time alone. int8 is `quantize:mode=static`.",
        "",
        "| form | tokens stay | median ms | times as fast |",
        "|---|---|---|---|",
    ]
    for name, each in found.items():
        ratio = each.ratio
        assert ratio is not None
        assert ratio.value is not None
        low, high = ratio.interval or (ratio.value, ratio.value)
        told = f"{ratio.value:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(f"| {name} | {steps[name] or 'all'} | {each.latency['p50'].value:.2f} | {told} |")
    told = (
        f"At least {BAR} slimmed: **{_judged(slim, BAR)}**; int8 on top faster than either alone: "
        f"**{_judged(both, max(slim[1], int8[1]))}**; the whole interval counts."
    )
    return "\n".join([*lines, "", told]) + "\n"


def _ends(measured: Measured) -> tuple[float, float]:
    assert measured.ratio is not None
    assert measured.ratio.interval is not None
    return measured.ratio.interval


def _judged(ends: tuple[float, float], bar: float) -> str:
    low, high = ends
    return "held" if low >= bar else "undecided" if high >= bar else "not held"


def _told(message: str, done: int, total: int) -> None:
    print(message, done, total, flush=True)


def main() -> None:
    """Choose, or measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("choose", "measure"))
    parser.add_argument("--preset", default="default")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgewright")
    options = parser.parse_args()
    env = Environment(Registry(), Store(options.cache), _told)
    with ExitStack() as stack:
        bench = bench_for(f"{ROOT / 'examples/deit_tiny.py'}:model", Request(threads=1), env, stack)
        made = forms(bench)
        if options.what == "choose":
            return
        plans = {name: (model, bench.plan(model)) for name, (model, _) in made.items()}
        text = page(
            bench.timed(plans, options.preset), {n: steps for n, (_, steps) in made.items()}, bench, options.preset
        )
    RESULTS.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
