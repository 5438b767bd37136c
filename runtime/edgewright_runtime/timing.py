"""Times runs inside the process that makes them, in raw nanoseconds; every statistic is the host's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns


@dataclass(frozen=True)
class WarmUp:
    """Run at least so long and so often, then on until the rolling median settles, but not for ever."""

    least_ns: int = 200_000_000
    least_runs: int = 10
    most_ns: int = 2_000_000_000
    tolerance: float = 0.02
    window: int = 10


def stopwatch(run: Callable[[], object]) -> Callable[[], int]:
    """A function that runs `run` once and returns the nanoseconds it took."""

    def once() -> int:
        start = perf_counter_ns()
        run()
        return perf_counter_ns() - start

    return once


def spin(ns: float) -> int:
    """Look at the clock for so long; the nanoseconds it really took, of which the rest is the machine's doing."""
    start = perf_counter_ns()
    while perf_counter_ns() - start < ns:
        pass
    return perf_counter_ns() - start


def warm_up(once: Callable[[], int], rules: WarmUp) -> tuple[list[int], bool]:
    """The nanoseconds of each warm-up run, and whether the median of the last `window` runs settled.

    `once` makes a run and returns its nanoseconds. Settled: that median differs from the one of the window before
    by less than `tolerance`.
    """
    taken: list[int] = []
    start = perf_counter_ns()
    while True:
        taken.append(once())
        spent = perf_counter_ns() - start
        if spent < rules.least_ns or len(taken) < rules.least_runs:
            continue
        if _settled(taken, rules):
            return taken, True
        if spent >= rules.most_ns:
            return taken, False


def settle(once: Callable[[], int], ns: int) -> None:
    """Run for so long, one run at least unless it is 0: caches and clocks come back after another process's turn."""
    start = perf_counter_ns()
    while perf_counter_ns() - start < ns:
        once()


def time_block(once: Callable[[], int], *, least_runs: int, least_ns: int) -> list[int]:
    """The nanoseconds of each run, as `once` returns them; both `least_runs` and `least_ns` are reached."""
    taken: list[int] = []
    start = perf_counter_ns()
    while len(taken) < least_runs or perf_counter_ns() - start < least_ns:
        taken.append(once())
    return taken


def _settled(taken: list[int], rules: WarmUp) -> bool:
    if len(taken) < 2 * rules.window:
        return False
    last, before = median(taken[-rules.window :]), median(taken[-2 * rules.window : -rules.window])
    return abs(last - before) <= rules.tolerance * before
