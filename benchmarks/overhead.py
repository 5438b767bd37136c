"""What `edgewright_runtime.load(...).run(...)` adds to a bare `InferenceSession.run`, interleaved in one process.

    python benchmarks/overhead.py BUNDLE [BUNDLE ...] [--pairs 3000]

Both run the same file with the same options; they take turns, run by run. Writes docs/results/overhead.md.
The bar: at most 15 us, or 2 % of the bare time where that is larger.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import onnxruntime

import edgewright_runtime
from edgewright.bundle import open_bundle
from edgewright.measuring.stats import median_interval
from edgewright.onnxkit import ask_for_exact_products
from edgewright.verbs.subject import example_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "overhead.md"
LEAST_US, SHARE = 15.0, 0.02


@dataclass(frozen=True)
class Overhead:
    """Median microseconds of both, of the paired difference, and its 95 % interval."""

    name: str
    bare_us: float
    added_us: float
    interval: tuple[float, float]
    pairs: int

    @property
    def holds(self) -> bool:
        """Whether it stays within the bar."""
        return self.added_us <= max(LEAST_US, SHARE * self.bare_us)


def measure(path: Path, pairs: int) -> Overhead:
    """Time both by turns; the order changes with every pair."""
    bundle = open_bundle(path)
    inputs = dict(example_of(bundle))
    ours = edgewright_runtime.load(path, threads=1)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    ask_for_exact_products(settings)
    bare = onnxruntime.InferenceSession(
        str(bundle.artifacts[0].path), settings, providers=[bundle.plan.placements[0].provider]
    )

    def run_ours() -> None:
        ours.run(inputs)

    def run_bare() -> None:
        bare.run(None, inputs)

    for _ in range(200):
        run_ours()
        run_bare()
    taken = np.empty((pairs, 2))
    for pair in range(pairs):
        for column, work in ((0, run_bare), (1, run_ours)) if pair % 2 else ((1, run_ours), (0, run_bare)):
            taken[pair, column] = timed(work)
    added = taken[:, 1] - taken[:, 0]
    interval = median_interval(added)
    if interval is None:
        sys.exit("too few pairs for an interval; give --pairs 100 or more")
    return Overhead(bundle.name, float(np.median(taken[:, 0])), float(np.median(added)), interval, pairs)


def timed(work: Callable[[], None]) -> float:
    """Microseconds of one call."""
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1e3


def page(found: Sequence[Overhead]) -> str:
    """The results as Markdown."""
    lines = [
        "# Overhead of the in-process runtime",
        "",
        f"`Loaded.run` against a bare `InferenceSession.run`, one thread, by turns; {date.today()}, onnxruntime "
        f"{onnxruntime.__version__}. Bar: at most {LEAST_US:g} us or {SHARE:.0%} of the bare time.",
        "",
        "| bundle | bare, median | added, median [95 %] | pairs | held |",
        "|---|---:|---:|---:|---|",
    ]
    for each in found:
        low, high = each.interval
        lines.append(
            f"| {each.name} | {each.bare_us:.1f} us | {each.added_us:.2f} us [{low:.2f}, {high:.2f}] "
            f"| {each.pairs} | {'yes' if each.holds else 'no'} |"
        )
    return "\n".join([*lines, "", "`python benchmarks/overhead.py BUNDLE ...`", ""])


def main() -> int:
    """Measure every bundle that was named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--pairs", type=int, default=3000)
    options = parser.parse_args()
    found = [measure(path, options.pairs) for path in options.bundles]
    text = page(found)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(each.holds for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
