"""How the benchmarks of kernels time: runs by turns, rounds of fresh sessions, and ratios over these."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from kernel_cases import Comparison
from kernel_runs import Library, Run, library, ours

from edgewright.measuring.stats import ratio_over_rounds
from edgewright.toolchain.ortheader import headers_place
from edgewright_exporters.tir.isa import isas_of
from edgewright_runtime.device import find_device

SAMPLE = 1e-3
"""Seconds that one sample lasts at least: runs are repeated within it, after one that is not timed."""

Ratio = tuple[float, float, float]
"""A ratio and the ends of its 95 % interval."""

Name = TypeVar("Name")


def sampled(runs: Mapping[Name, Run], pairs: int) -> Mapping[Name, np.ndarray]:
    """Seconds per run, `pairs` samples each, by turns; who begins a turn changes."""
    repeats = {name: max(1, math.ceil(SAMPLE / _seconds(run, 3))) for name, run in runs.items()}
    found: dict[Name, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(pairs):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            runs[name]()  # The one before it has put its own weights into the caches.
            found[name].append(_seconds(runs[name], repeats[name]))
    return {name: np.array(each) for name, each in found.items()}


def _seconds(run: Run, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def ratio(rounds: Sequence[np.ndarray]) -> Ratio:
    """The trimmed mean over rounds of the median of paired ratios, with its interval."""
    value, ends = ratio_over_rounds([math.log(np.median(each)) for each in rounds])
    return (value, *(ends or (value, value)))


def interval(found: Ratio, digits: int = 2) -> str:
    """A ratio as pages show it."""
    value, low, high = (f"{each:.{digits}f}" for each in found)
    return f"{value} [{low}, {high}]"


def fastest(comparison: Comparison, number: int, built: Library, pairs: int) -> int:
    """The tile that a first pass finds best; what it measures is used for nothing else."""
    count = len(comparison.template.tiles(comparison.case, built.isa))
    if count == 1:
        return 0
    found = sampled({tile: ours(comparison, number, tile, built) for tile in range(count)}, pairs)
    return min(found, key=lambda tile: float(np.median(found[tile])))


def built_or_measured(about: str, every: Sequence[Comparison], measure: Callable[[Library], None]) -> None:
    """The command line of a benchmark that compiles in one call, with --build, and measures in another."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--build", action="store_true")
    options, isa = parser.parse_args(), isas_of(find_device())[0]
    if options.build:
        library(every, isa, options.library, headers_place())
    else:
        measure(Library(options.library, isa))
