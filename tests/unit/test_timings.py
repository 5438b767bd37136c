"""What made-up runs come to: ratios, rounds that something disturbed, and models whose runs differ in depth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgewright.measuring.timings import Setting, depths_seen, latency_of, ratio_of, undisturbed_ns

SETTING = Setting("measured", {"device": "made up"})
PERCENT = 5


def rounds_of(ns: float, *, seed: int, disturbed: float = 0.1) -> list[np.ndarray]:
    """Six rounds of 60 runs whose process is off by 1 %; interruptions of 4 to 300 ms hit a share of the runs."""
    rng = np.random.default_rng(seed)
    quiet = ns * rng.normal(1, 0.01, (6, 1)) * (1 + rng.exponential(0.02, (6, 60)))
    hit = rng.random(quiet.shape) < disturbed
    return list((quiet + hit * rng.uniform(4e6, 3e8, quiet.shape)).astype(np.int64))


def compared(reference: list[np.ndarray], other: list[np.ndarray]) -> list[float]:
    """One log ratio per round."""
    one, two = ([undisturbed_ns(runs, (), PERCENT, None) for runs in rounds] for rounds in (reference, other))
    return [math.log(a / b) for a, b in zip(one, two, strict=True)]


@pytest.mark.parametrize("disturbed", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("slower", [0.5, 0.9, 1.0, 2.0])
def test_interruptions_leave_the_ratio_where_it_is(slower: float, disturbed: float) -> None:
    first = rounds_of(1e6, seed=1, disturbed=disturbed)
    found = ratio_of(SETTING, compared(first, rounds_of(slower * 1e6, seed=2, disturbed=disturbed)))
    assert found.value == pytest.approx(1 / slower, rel=0.03)
    assert found.interval is not None
    assert found.interval[0] <= 1 / slower <= found.interval[1]
    assert (found.interval[0] > 1, found.interval[1] < 1) == (slower < 1, slower > 1)
    assert (found.n, found.unit, found.kind) == (6, "x", "measured")


def test_one_round_on_a_slow_processor_hides_nothing() -> None:
    """Half the speed for all runs of one candidate in one round of six."""
    other = rounds_of(1.2e6, seed=2)
    other[3] *= 2
    found = ratio_of(SETTING, compared(rounds_of(1e6, seed=1), other))
    assert found.value == pytest.approx(1 / 1.2, rel=0.03)
    assert found.interval is not None
    assert found.interval[1] < 1


def test_runs_of_several_depths_count_by_how_many_took_them() -> None:
    """A quarter of all runs goes on to the end; a round that saw none of them takes what others saw."""
    quick, slow = [100] * 30, [500] * 10
    runs, depths = [*quick, *slow, *quick, *slow], ([0] * 30 + [1] * 10) * 2
    everywhere = depths_seen(runs, depths, PERCENT)
    assert everywhere == ({0: 0.75, 1: 0.25}, {0: 100.0, 1: 500.0})
    assert undisturbed_ns([100, 100, 500], [0, 0, 1], PERCENT, everywhere) == 0.75 * 100 + 0.25 * 500
    assert undisturbed_ns([110, 110], [0, 0], PERCENT, everywhere) == 0.75 * 110 + 0.25 * 500
    assert undisturbed_ns([100, 100, 500], (), PERCENT, None) == 100


def test_the_median_of_all_runs_lies_in_its_interval() -> None:
    rounds = rounds_of(1e6, seed=3)
    found = latency_of(SETTING, rounds)
    p50 = found["p50"]
    assert p50.value == pytest.approx(float(np.median(np.concatenate(rounds))) / 1e6)
    assert p50.interval is not None
    assert p50.interval[0] <= p50.value <= p50.interval[1]
    assert p50.n == 360
    assert p50.unstable, "a tenth of the runs was interrupted"
    assert not latency_of(SETTING, rounds_of(1e6, seed=3, disturbed=0.0))["p50"].unstable
    assert found["mean"].value == pytest.approx(float(np.concatenate(rounds).mean()) / 1e6)
