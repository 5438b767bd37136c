"""How often a run with a deadline is late, beside a loop of the same length that only looks at the clock.

    python benchmarks/deadlines.py --bundle DIR --inputs X.npz [--runs 10000] [--busy 0|1]

Deadlines lie at 25, 50 and 75 % of the way from the first exit's 99th percentile to that of the whole model, both
measured here in runs that nothing interrupted. Each input is run with each deadline. For every run a loop spins for as
long as the median run of the plan that was chosen takes, and is late by the same deadline: that is what the machine
itself makes late when nothing but the processor is needed. And the input runs to the same stage again, told to stop
there and of no deadline (`late, again`): what is late then, no policy could have helped. The three take turns in a
random order with random pauses between them, or the processor's time slices fall in step with them and one of the three
is hit again and again. One process on one CPU; with --busy 1 another one spins on the same CPU. Prints a Markdown
table; `y` in the .npz (the class of each example) adds the accuracy at each deadline.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

import edgewright_runtime
from edgewright.arrays import read_npz
from edgewright.errors import TaskError
from edgewright_runtime import Loaded
from edgewright_runtime.calibration import interrupted, witness
from edgewright_runtime.examples import cycle
from edgewright_runtime.timing import spin

WAY = (0.25, 0.50, 0.75)
MEASURED_RUNS = 2000
PAUSE_MS = 0.5
"""The longest pause between two turns."""


@dataclass(frozen=True)
class Deadline:
    """A deadline and what came of it; times in ms."""

    name: str
    deadline_ms: float
    runs: int
    late: int
    late_spinning: int
    late_again: int
    median_ms: float
    p999_ms: float
    stages: float
    right: int | None


def percentile_to(loaded: Loaded, feeds: Iterator[Mapping[str, Any]], stage: int, runs: int) -> float:
    """The 99th percentile, in ms, of calm runs that end at a stage when nothing runs beyond it."""
    taken: list[int] = []
    for _ in range(runs):
        fed, before = next(feeds), witness()
        ns, result = timed(loaded, fed, through=stage)
        if max(result.exits) == stage and not interrupted(before, witness()):
            taken.append(ns)
    if not taken:
        sys.exit(f"none of {runs} runs came to stage {stage} undisturbed; give inputs that do")
    return float(np.percentile(taken, 99)) / 1e6


def timed(loaded: Loaded, feeds: Mapping[str, Any], **limits: Any) -> tuple[int, Any]:
    """Nanoseconds from the call to its return, and the result."""
    start = perf_counter_ns()
    result = loaded.run(feeds, **limits)
    return perf_counter_ns() - start, result


def meet(
    loaded: Loaded, arrays: Mapping[str, Any], labels: Any, *, name: str, deadline_ms: float, runs: int
) -> Deadline:
    """Run every input with a deadline; spin for as long, and run it to the same stage again without one."""
    feeds = cycle(arrays, 1)
    rng = np.random.default_rng(0)
    taken: list[int] = []
    spun: list[int] = []
    again: list[int] = []
    depths: list[int] = []
    right = 0
    planned: dict[int, list[int]] = {}

    def run(fed: Mapping[str, Any]) -> None:
        nonlocal right
        ns, result = timed(loaded, fed, deadline_ms=deadline_ms)
        depth = max(result.exits)
        planned.setdefault(depth, []).append(ns)
        if labels is not None:
            right += answered(result) == labels[len(taken) % len(labels)]
        taken.append(ns)
        depths.append(depth)

    def controls(fed: Mapping[str, Any], depth: int) -> list[Callable[[], None]]:
        typical = median(planned[depth][-101:])
        return [
            lambda: spun.append(spin(typical)),
            lambda: again.append(timed(loaded, fed, through=depth)[0]),
        ]

    waiting: list[Callable[[], None]] = []
    for _ in range(runs):
        fed = next(feeds)
        turns = [partial(run, fed), *waiting]
        for turn in rng.permutation(len(turns)):
            spin(rng.uniform(0, PAUSE_MS) * 1e6)
            turns[turn]()
        waiting = controls(fed, depths[-1])
    for turn in waiting:
        turn()
    limit = deadline_ms * 1e6
    return Deadline(
        name,
        deadline_ms,
        runs,
        late=sum(ns > limit for ns in taken),
        late_spinning=sum(ns > limit for ns in spun),
        late_again=sum(ns > limit for ns in again),
        median_ms=median(taken) / 1e6,
        p999_ms=float(np.percentile(taken, 99.9)) / 1e6,
        stages=float(np.mean(depths)) + 1,
        right=None if labels is None else int(right),
    )


def answered(result: Any) -> int:
    """The class that the first output names for the first row."""
    return int(np.argmax(next(iter(result.outputs.values()))[0]))


@contextmanager
def busy(wanted: bool, cpu: int) -> Generator[None]:
    """While the block runs, a process of ours spins on the same CPU."""
    child = os.fork() if wanted else None
    if child == 0:
        os.sched_setaffinity(0, {cpu})
        while True:
            pass
    try:
        yield
    finally:
        if child:
            os.kill(child, 9)
            os.waitpid(child, 0)


def page(found: Sequence[Deadline], about: str) -> str:
    """The results as a Markdown table."""
    lines = [
        about,
        "",
        "| deadline | ms | median, ms | p99.9, ms | stages, mean | late | late, spinning | late, again | accuracy |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for each in found:
        accuracy = "-" if each.right is None else f"{each.right / each.runs:.2%}"
        lines.append(
            f"| {each.name} | {each.deadline_ms:.3f} | {each.median_ms:.3f} | {each.p999_ms:.3f} | {each.stages:.2f} "
            f"| {each.late} of {each.runs} ({each.late / each.runs:.3%}) "
            f"| {each.late_spinning} ({each.late_spinning / each.runs:.3%}) "
            f"| {each.late_again} ({each.late_again / each.runs:.3%}) | {accuracy} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure one bundle."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--busy", type=int, choices=(0, 1), default=0)
    options = parser.parse_args()
    cpu = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    arrays = dict(read_npz(options.inputs, TaskError))
    labels = arrays.pop("y", None)
    loaded = edgewright_runtime.load(options.bundle, threads=1, cache=False)
    last = len(loaded.bundle.variants[0].stages) - 1
    if last == 0:
        sys.exit(f"{options.bundle} has one stage, so a deadline cannot change what runs; give a bundle with exits")
    loaded.calibrate(2.0, arrays)
    loaded.get_ready()
    gc.collect()
    gc.freeze()
    few = min(MEASURED_RUNS, options.runs)
    first, whole = (percentile_to(loaded, cycle(arrays, 1), stage, few) for stage in (0, last))
    deadlines = {f"{way:.0%}": first + way * (whole - first) for way in WAY}
    with busy(bool(options.busy), cpu):
        found = [
            meet(loaded, arrays, labels, name=name, deadline_ms=deadline, runs=options.runs)
            for name, deadline in deadlines.items()
        ]
    costs = ", ".join(f"{cost.stage} {cost.median_ms:.3f} / {cost.high_ms:.3f}" for cost in loaded.costs)
    print(
        page(
            found,
            f"{loaded.bundle.name} on CPU {cpu}{', which another process keeps busy' if options.busy else ''}; stages, "
            f"median / high in ms: {costs}. First exit p99 {first:.3f} ms, all of it {whole:.3f} ms.",
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
