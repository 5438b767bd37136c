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


def warm_up(run: Callable[[], object], rules: WarmUp) -> tuple[list[int], bool]:
    """The nanoseconds of each warm-up run, and whether the median of the last `window` runs settled.

    Settled: it differs from the median of the window before it by less than `tolerance`.
    """
    taken: list[int] = []
    start = perf_counter_ns()
    while True:
        taken.append(_timed(run))
        spent = perf_counter_ns() - start
        if spent < rules.least_ns or len(taken) < rules.least_runs:
            continue
        if _settled(taken, rules):
            return taken, True
        if spent >= rules.most_ns:
            return taken, False


def time_block(run: Callable[[], object], *, least_runs: int, least_ns: int, settle_ns: int = 0) -> list[int]:
    """The nanoseconds of each run; both `least_runs` and `least_ns` are reached.

    Runs for `settle_ns` before that (one at least, when it is not 0) bring back caches and clocks after
    another process had its turn; they are not reported.
    """
    start = perf_counter_ns()
    while perf_counter_ns() - start < settle_ns:
        run()
    taken: list[int] = []
    start = perf_counter_ns()
    while len(taken) < least_runs or perf_counter_ns() - start < least_ns:
        taken.append(_timed(run))
    return taken


def _timed(run: Callable[[], object]) -> int:
    start = perf_counter_ns()
    run()
    return perf_counter_ns() - start


def _settled(taken: list[int], rules: WarmUp) -> bool:
    if len(taken) < 2 * rules.window:
        return False
    last, before = median(taken[-rules.window :]), median(taken[-2 * rules.window : -rules.window])
    return abs(last - before) <= rules.tolerance * before
