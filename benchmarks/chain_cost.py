"""What a chain costs when nothing leaves: DeiT-tiny's shape in one graph, in stages, and in stages with heads.

    python benchmarks/chain_cost.py [--preset default]

Random weights; the time does not depend on them. Writes docs/results/chain-cost.md. The bars: stages with the four
heads of LGViT take at most 1.10 times as long as one graph, stages without heads at most 1.02 times.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import onnx
import onnx.utils

from edgewright import onnxkit
from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.steps import lowered
from edgewright.environment import Environment
from edgewright.measuring.timings import Measured
from edgewright.registry import Registry
from edgewright.store import Store
from edgewright.torchkit.anatomy import examine
from edgewright.types import Model, Stage
from edgewright.verbs.subject import bench_for
from edgewright_plugins.early_exit import Params
from edgewright_plugins.early_exit.build import cut, example_of, module_of
from edgewright_plugins.early_exit.choice import Choice
from edgewright_plugins.early_exit.heads import lgvit
from edgewright_plugins.early_exit.side import Cut

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "chain-cost.md"
AFTER = (3, 5, 7, 9)
BARS = {"stages": 1.02, "stages with heads": 1.10}


def forms(bench: Bench) -> Mapping[str, Model]:
    """The network in one graph, cut after the blocks of `AFTER`, and with heads there; as ONNX."""
    model = bench.original
    blocks = examine(module_of(model), example_of(model)).blocks
    cuts = tuple(Cut(blocks[number - 1].end) for number in AFTER)
    choice = Choice(Params(heads="lgvit"), "lgvit", cuts, kinds=lgvit.kinds(len(cuts)), blocks=AFTER)
    chain = lowered(cut(model, choice), bench)
    return {"one graph": bench.reference, "stages": headless(chain, bench), "stages with heads": chain}


def headless(chain: Model, bench: Bench) -> Model:
    """The chain without what only answers early: each stage but the last hands on, and no more."""
    *early, last = chain.variants[0].stages
    bare = [_bare(stage, bench) for stage in early]
    return replace(chain, variants=(replace(chain.variants[0], stages=(*bare, last)),))


def _bare(stage: Stage, bench: Bench) -> Stage:
    proto = onnxkit.read(stage.graph)
    taken = [value.name for value in proto.graph.input]
    kept = onnx.utils.Extractor(proto).extract_model(taken, list(stage.carry))
    return replace(stage, graph=bench.store.keep(onnxkit.pack(kept)), outputs=(), gate=None)


def page(found: Mapping[str, Measured], bench: Bench, preset: str) -> str:
    """The page of results."""
    lines = [
        "# What a chain costs when nothing leaves",
        "",
        f"Written by `benchmarks/chain_cost.py --preset {preset}`: DeiT-tiny's shape (224 x 224, 12 blocks of "
        f"width 192, `examples/deit_tiny.py`), cut after blocks {', '.join(map(str, AFTER))}, batch 1, one thread, "
        f"{bench.host.device().cpu}, onnxruntime {bench.versions['onnxruntime']}. Interleaved; the ratio is of mean "
        "undisturbed times, its interval 95 % over rounds of fresh processes.",
        "",
        "| form | median ms | takes, of one graph | allowed |",
        "|---|---|---|---|",
    ]
    for name, each in found.items():
        ratio = each.ratio
        assert ratio is not None
        assert ratio.value is not None
        low, high = ratio.interval or (ratio.value, ratio.value)
        share = f"{1 / ratio.value:.3f} [{1 / high:.3f}, {1 / low:.3f}]"
        lines.append(f"| {name} | {each.latency['p50'].value:.2f} | {share} | {BARS.get(name, '')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgewright")
    options = parser.parse_args()
    env = Environment(Registry(), Store(options.cache), lambda message, done, total: None)
    with ExitStack() as stack:
        bench = bench_for(f"{ROOT / 'examples/deit_tiny.py'}:model", Request(), env, stack)
        made = forms(bench)
        text = page(
            bench.timed({n: (m, bench.plan(m)) for n, m in made.items()}, options.preset), bench, options.preset
        )
    RESULTS.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
