"""Does the integer programme choose well, and does what it says of losses and latency come true?

    python benchmarks/mixed_bits.py --data DIR [--model benchmarks/networks.py:resnet20] [--split test]

DIR holds CIFAR-10 (examples/cifar10.py). Writes docs/results/mixed-bits.md. The bars: at 5 bits per weight the choice
beats each of 10 random mixes of equal size, by the divergence from float on examples that chose nothing, and by
accuracy; what the layers' losses say ranks 20 random mixes of any size with Spearman's coefficient of at least 0.7;
the latency of each mix that was chosen by latency is within 10 % of what was said.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.environment import Environment
from edgewright.registry import Registry
from edgewright.store import Store, key_of
from edgewright.verbs.subject import bench_for
from edgewright_plugins.mixed_bits import MIXED_BITS, Params
from edgewright_plugins.mixed_bits.decide import prices_for
from edgewright_plugins.mixed_bits.job import Job
from edgewright_plugins.mixed_bits.losses import Losses
from edgewright_plugins.mixed_bits.net import Mix
from edgewright_plugins.mixed_bits.prices import Prices
from edgewright_plugins.mixed_bits.start import start

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "mixed-bits.md"
PARAMS = Params(average=5.0, examples=128)
BUDGET, NEAR = 5 / 8, 0.01
"""Five bits per weight, and how far from the choice's size a mix of equal size may be, as a share of 8 bits."""
EQUALS, ANY = 10, 20
SPEARMAN, TRUE = 0.7, 0.10
LATENCIES = (1.1, 1.3, 1.6)


@dataclass(frozen=True)
class Judged:
    """One mix: its size as a share of 8 bits, what was said and found of its loss, and its accuracy in %."""

    name: str
    share: float
    said: float
    found: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Search:
    """A bench with what the method knows about its network: losses and prices in bytes."""

    bench: Bench
    split: str
    job: Job
    losses: Losses
    prices: Prices

    def judged(self, name: str, mix: Mix) -> Judged:
        """The mix on examples that chose nothing."""
        found = self.job.loss(mix, "selection")
        outputs = self.bench.outputs(self.job.model_of(mix), self.split)
        accuracy = self.bench.score(outputs, self.split)
        print(f"{name}: {found:.4f}, {accuracy:.2f} %", file=sys.stderr)
        return Judged(name, self.prices.share(mix), self.losses.predicted(mix), found, accuracy)


def searched(bench: Bench, split: str) -> Search:
    """Every layer's losses and prices."""
    context = Workbench(bench, key_of("mixed-bits", "bytes"))
    job = start(bench.reference, PARAMS, context)
    losses = job.losses((2, 4, 8))
    return Search(bench, split, job, losses, prices_for(job, losses, PARAMS, BUDGET))


# ------------------------------------------------------------------ random mixes


def equal_mixes(prices: Prices, share: float, options: Sequence[int], rng: np.random.Generator) -> Iterator[Mix]:
    """Mixes drawn uniformly, layer by layer, of those whose size is near `share`."""
    while True:
        mix = tuple(int(bits) for bits in rng.choice(options, len(prices.costs)))
        if abs(prices.share(mix) - share) <= NEAR:
            yield mix


def any_mixes(prices: Prices, rng: np.random.Generator) -> Iterator[Mix]:
    """Mixes of any size: how often each number of bits comes is itself drawn for each mix."""
    while True:
        often = rng.dirichlet(np.ones(len(prices.options)))
        yield tuple(int(bits) for bits in rng.choice(prices.options, len(prices.costs), p=often))


def compared(search: Search) -> tuple[Judged, list[Judged], list[Judged]]:
    """The choice, random mixes of its size, and random mixes of its size without the fewest bits (for interest)."""
    mix = search.prices.best(search.losses, BUDGET)
    rng = np.random.default_rng(search.bench.recipe.seed)
    chosen = search.judged("chosen", mix)
    rivals = zip(range(EQUALS), equal_mixes(search.prices, chosen.share, search.prices.options, rng))
    careful = zip(range(EQUALS), equal_mixes(search.prices, chosen.share, search.prices.options[1:], rng))
    return (
        chosen,
        [search.judged(f"random {number + 1}", other) for number, other in rivals],
        [search.judged(f"random without 2 bits {number + 1}", other) for number, other in careful],
    )


def ranked(search: Search) -> float:
    """Spearman's coefficient of what was said and found of random mixes' losses."""
    rng = np.random.default_rng(search.bench.recipe.seed + 1)
    mixes = [mix for _, mix in zip(range(ANY), any_mixes(search.prices, rng))]
    said = [search.losses.predicted(mix) for mix in mixes]
    return float(spearmanr(said, [search.job.loss(mix, "selection") for mix in mixes]).statistic)


def latencies(bench: Bench) -> list[tuple[float, float, float]]:
    """Budget, latency said and latency found of the mix that is chosen by it."""
    found: list[tuple[float, float, float]] = []
    for budget in LATENCIES:
        context = Workbench(bench, key_of("mixed-bits", "latency", budget))
        step = MIXED_BITS.apply(bench.reference, Params(cost="latency", budget=budget), context).history[-1]
        print("\n".join(step.notes), file=sys.stderr)
        found.append((budget, step.details["said"], step.details["found"]))
    return found


# ------------------------------------------------------------------ the page


def page(bench: Bench, model: str, split: str) -> tuple[str, bool]:
    """The results page, and whether every bar holds."""
    search = searched(bench, split)
    chosen, rivals, careful = compared(search)
    coefficient, times = ranked(search), latencies(bench)
    nearer = sum(chosen.found < each.found for each in rivals)
    better = sum(chosen.accuracy > each.accuracy for each in rivals)
    holds = min(nearer, better) == EQUALS and coefficient >= SPEARMAN
    holds = holds and all(abs(found / said - 1) <= TRUE for _, said, found in times)
    device = bench.host.device()
    head = (
        f"Written by `benchmarks/mixed_bits.py` on {date.today()}; {device.cpu}, {device.cores} cores; {model}; "
        f"load over 5 minutes {os.getloadavg()[1]:.2f}. Losses are measured on {PARAMS.examples} calibration images "
        f"without labels; distances below on {PARAMS.examples} other images, accuracy on the {bench.task.size(split)} "
        f"images of the {split} split. 8 bits everywhere: distance {search.losses.base:.4f}."
    )
    bars = [
        ("random mixes of equal size that are farther from float", f"{nearer} of {EQUALS}", f"{EQUALS}"),
        ("random mixes of equal size that are less accurate", f"{better} of {EQUALS}", f"{EQUALS}"),
        (f"Spearman, said and found losses of {ANY} random mixes", f"{coefficient:.2f}", f">= {SPEARMAN}"),
        *(
            (f"latency budget {b:.2f}: found over said", f"{f:.3f} / {s:.3f} = {f / s:.3f}", "0.9 to 1.1")
            for b, s, f in times
        ),
    ]
    mixes = [
        (each.name, f"{8 * each.share:.2f}", f"{each.said:.3f}", f"{each.found:.3f}", f"{each.accuracy:.2f}")
        for each in (chosen, *rivals, *careful)
    ]
    verdict = "All bars hold." if holds else "Not all bars hold."
    parts = ("# Which layers take how many bits", head, table(("what", "found", "bar"), bars), verdict)
    columns = ("mix", "bits per weight", "distance said", "distance found", "accuracy, %")
    return "\n\n".join((*parts, table(columns, mixes))) + "\n", holds


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Exit code 0 when the bars hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder that holds cifar10*.npz")
    parser.add_argument("--model", default=f"{ROOT / 'benchmarks' / 'networks.py'}:resnet20")
    parser.add_argument("--split", choices=("selection", "test"), default="test")
    parser.add_argument("--out", type=Path, default=RESULTS)
    settings = parser.parse_args()
    os.environ["EDGEWRIGHT_DATA"] = settings.data
    with ExitStack() as stack:
        store = Store(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        env = Environment(Registry(only=()), store, lambda message, done, total: None)
        task = f"{ROOT / 'examples' / 'cifar10.py'}:resnet"
        bench = bench_for(settings.model, Request(task=task, on="local"), env, stack)
        text, held = page(bench, Path(settings.model).name, settings.split)
    settings.out.write_text(text, encoding="utf-8")
    print(text)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
