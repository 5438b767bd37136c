"""Measures what each stage of a chain takes, in runs that end at depths drawn at random, as real inputs end them."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from edgewright.types import Arrays, StageCost
from edgewright_runtime.costs import stage_cost

WARM_RUNS = 5
LEAST_RUNS = 10
STOLEN_NS = 20_000
"""A thread that did not wait loses a few microseconds to the clock's own grain, never so many."""


def calibrate(
    run: Callable[[Arrays, int], Sequence[int]],
    feeds: Iterator[Arrays],
    stages: Sequence[str],
    seconds: float,
) -> tuple[StageCost, ...]:
    """The cost of each stage.

    A stage that does not run every time finds other things in the caches than one that does; so runs end at every
    depth equally often. Runs during which the system gave the processor to something else are left out.

    Args:
        run: Takes inputs and the last stage to run; returns what each stage took, in ns.
        feeds: What runs are fed.
        stages: Their names, in order.
        seconds: How long to measure; every stage is run ten times at least.
    """
    for _ in range(WARM_RUNS):
        run(next(feeds), len(stages) - 1)
    rng = np.random.default_rng(0)
    runs: list[tuple[int, ...]] = []
    calm: list[bool] = []
    give_up = time.perf_counter_ns() + int(seconds * 1e9)
    while time.perf_counter_ns() < give_up or sum(len(taken) == len(stages) for taken in runs) < LEAST_RUNS:
        fed, depth = next(feeds), int(rng.integers(len(stages)))
        before = witness()
        runs.append(tuple(run(fed, depth)))
        calm.append(not interrupted(before, witness()))
    return tuple(stage_cost(name, _of(number, runs, calm)) for number, name in enumerate(stages))


def _of(number: int, runs: Sequence[Sequence[int]], calm: Sequence[bool]) -> list[float]:
    """Milliseconds of a stage in calm runs; in all runs where hardly any was calm."""
    everything = [(taken[number] / 1e6, quiet) for taken, quiet in zip(runs, calm) if len(taken) > number]
    kept = [ms for ms, quiet in everything if quiet]
    return kept if len(kept) >= LEAST_RUNS else [ms for ms, _ in everything]


# ------------------------------------------------------------------ interruptions


@dataclass(frozen=True)
class Witness:
    """What the system says about this thread at one moment: times it was put aside, times it waited, clocks in ns."""

    put_aside: int
    waited: int
    wall_ns: int
    worked_ns: int


def interrupted(before: Witness, after: Witness) -> bool:
    """Whether the processor was taken away in between.

    By the system, which counts it; or by the machine below it, which shows as time that passed while a thread
    that never waited did not work.
    """
    if after.put_aside > before.put_aside:
        return True
    passed, worked = after.wall_ns - before.wall_ns, after.worked_ns - before.worked_ns
    return after.waited == before.waited and passed - worked > max(STOLEN_NS, 0.05 * passed)


def witness() -> Witness:
    """What the system says now; where it keeps no counts, nothing is ever told apart as interrupted."""
    usage = _usage()
    wall = time.perf_counter_ns()
    if usage is None:
        return Witness(0, 0, wall, wall)
    return Witness(usage.ru_nivcsw, usage.ru_nvcsw, wall, time.thread_time_ns())


def _usage() -> Optional[Any]:
    """This thread's own counts; None where the system keeps none."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:
        return None
    whose = getattr(resource, "RUSAGE_THREAD", None)
    return None if whose is None else resource.getrusage(whose)
