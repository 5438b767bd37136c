"""Statistics against what is known in closed form, and against their own promise of coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.measuring import stats

positive = st.floats(min_value=1e-3, max_value=1e6)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, {50.0}), (99, {50.0}), (100, {50.0, 90.0}), (1000, {50.0, 90.0, 99.0}), (10000, {50.0, 90.0, 99.0, 99.9})],
)
def test_percentiles_need_support(n: int, expected: set[float]) -> None:
    assert set(stats.percentiles(np.arange(n))) == expected


@given(st.lists(positive, min_size=1, max_size=300))
def test_percentiles_lie_among_the_samples_and_rise(samples: list[float]) -> None:
    values = list(stats.percentiles(samples).values())
    assert values == sorted(values)
    assert min(samples) <= values[0] <= values[-1] <= max(samples)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        stats.percentiles([])


@pytest.mark.parametrize(
    ("n", "ranks"),
    # Conover's table of order-statistic intervals for the median at 95 %.
    [(5, None), (6, (1, 6)), (9, (2, 8)), (10, (2, 9)), (20, (6, 15)), (50, (18, 33)), (100, (40, 61))],
)
def test_the_median_s_interval_has_the_tabled_ranks(n: int, ranks: tuple[int, int] | None) -> None:
    assert stats.median_interval(range(1, n + 1)) == ranks


def test_the_median_s_interval_is_continuous_where_the_formula_changes() -> None:
    small, large = stats.median_interval(range(1, 200)), stats.median_interval(range(1, 201))
    assert small is not None
    assert large is not None
    assert abs(small[0] - large[0]) <= 1


@given(st.lists(positive, min_size=6, max_size=400))
def test_the_median_s_interval_holds_the_median(samples: list[float]) -> None:
    interval = stats.median_interval(samples)
    assert interval is not None
    assert interval[0] <= float(np.median(samples)) <= interval[1]


def test_the_median_s_interval_covers() -> None:
    rng = np.random.default_rng(0)
    drawn = [stats.median_interval(rng.lognormal(size=41)) for _ in range(500)]
    assert sum(d is not None and d[0] <= 1.0 <= d[1] for d in drawn) >= 0.92 * 500


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.706), (4, 2.776), (10, 2.228), (11, 2.201), (15, 2.131), (30, 2.042), (1000, 1.962)]
)
def test_student_t_is_the_tabled_value(freedom: int, value: float) -> None:
    assert stats.student_t(freedom) == pytest.approx(value, abs=1e-3)


def test_student_t_needs_two_values() -> None:
    with pytest.raises(ValueError, match="at least two values"):
        stats.student_t(0)
    assert stats.mean_interval([3.0]) == (3.0, None)


def test_ratio_over_rounds_covers_when_rounds_differ_systematically() -> None:
    rng = np.random.default_rng(1)
    intervals = [stats.ratio_over_rounds(rng.normal(0.0, 0.02, 6))[1] for _ in range(500)]
    assert 0.92 * 500 <= sum(i is not None and i[0] <= 1.0 <= i[1] for i in intervals) <= 0.98 * 500


def test_a_disturbed_round_hides_no_difference() -> None:
    """Five rounds see 5 %, one was disturbed by 20 %: a plain t interval would contain 1."""
    rounds = [-0.050, -0.052, -0.048, -0.051, -0.049, 0.2]
    value, interval = stats.ratio_over_rounds(rounds)
    plain = stats.mean_interval(rounds)[1]
    assert value == pytest.approx(math.exp(-0.05), rel=0.002)
    assert interval is not None
    assert interval[1] < 1.0
    assert plain is not None
    assert plain[1] > 0.0


def test_trimmed_mean_by_hand() -> None:
    """Ten values, two cut at each end: winsorised 2 2 2 3 4 5 6 7 7 7 has standard deviation 2.1213."""
    mean, interval = stats.trimmed_mean_interval([-90, 1, 2, 3, 4, 5, 6, 7, 8, 90])
    half = stats.student_t(5) * np.std([2, 2, 2, 3, 4, 5, 6, 7, 7, 7], ddof=1) * math.sqrt(9 / 30)
    assert mean == pytest.approx(4.5)
    assert interval == pytest.approx((4.5 - half, 4.5 + half))
    assert stats.trimmed_mean_interval([1, 2, 3]) == stats.mean_interval([1, 2, 3])


def test_ratio_over_rounds_is_the_ratio() -> None:
    value, interval = stats.ratio_over_rounds([math.log(1.25)] * 4)
    assert value == pytest.approx(1.25)
    assert interval == pytest.approx((1.25, 1.25))


def test_bootstrap_ratio_pairs_samples() -> None:
    rng = np.random.default_rng(2)
    drift = rng.lognormal(sigma=1.0, size=60)
    value, (low, high) = stats.bootstrap_ratio(1.3 * drift, drift * rng.lognormal(sigma=0.01, size=60))
    assert low < 1.3 < high
    assert value == pytest.approx(1.3, rel=0.01)
    assert high / low < 1.02
    assert stats.bootstrap_ratio(drift, drift, seed=3) == (1.0, (1.0, 1.0))


def test_a_few_interruptions_leave_timings_stable() -> None:
    rng = np.random.default_rng(3)
    quiet = rng.normal(100, 1, 1000)
    assert stats.stability(quiet).verdict == "stable"
    interrupted = quiet.copy()
    interrupted[:40] = 4000
    assert stats.stability(interrupted).verdict == "stable"
    throttled = quiet.copy()
    throttled[:200] *= 1.5
    assert stats.stability(throttled).verdict == "unstable"
    assert stats.stability(rng.normal(100, 6, 1000)).verdict == "noisy"


@given(st.lists(positive, min_size=1, max_size=200), st.floats(min_value=0.1, max_value=10))
def test_the_coefficient_of_variation_has_no_unit(samples: list[float], factor: float) -> None:
    scaled = stats.coefficient_of_variation([factor * s for s in samples])
    assert scaled == pytest.approx(stats.coefficient_of_variation(samples), abs=1e-9)


def test_paired_difference_of_proportions_is_agresti_and_min() -> None:
    # 100 pairs: 10 gained, 4 lost. n = 102, (10.5 - 4.5) / 102 = 0.0588, half-width 1.96 * sqrt(15 - 36 / 102) / 102.
    original = np.array([0] * 10 + [1] * 4 + [1] * 86)
    candidate = np.array([1] * 10 + [0] * 4 + [1] * 86)
    value, (low, high) = stats.paired_difference(candidate, original)
    assert value == pytest.approx(0.06)
    half = 1.959964 * math.sqrt(15 - 36 / 102) / 102
    assert (low, high) == pytest.approx((6 / 102 - half, 6 / 102 + half))


def test_models_that_agree_everywhere_still_have_an_interval() -> None:
    value, (low, high) = stats.paired_difference(np.ones(500), np.ones(500))
    assert value == 0
    assert low < 0 < high < 0.01


def test_paired_difference_covers() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(500):
        original = rng.random(80) < 0.8
        candidate = np.where(rng.random(80) < 0.1, rng.random(80) < 0.5, original)
        low, high = stats.paired_difference(candidate, original)[1]
        hits += low <= 0.1 * (0.5 - 0.8) <= high
    assert hits >= 0.93 * 500


def test_paired_difference_of_other_scores_uses_t() -> None:
    value, (low, high) = stats.paired_difference([1.5, 2.5, 3.5], [1.0, 2.0, 3.5])
    assert value == pytest.approx(1 / 3)
    assert low < value < high
    with pytest.raises(ValueError, match="differ in number: 2 and 3"):
        stats.paired_difference([1, 2], [1, 2, 3])


@pytest.mark.parametrize("n", range(6, 200))
def test_the_ranks_of_a_median_hold_it_as_often_as_is_said_and_no_wider(n: int) -> None:
    interval = stats.median_interval(np.arange(n, dtype=float))
    assert interval is not None
    low, high = map(int, interval)
    assert low + high == n - 1
    inside = [sum(math.comb(n, k) for k in range(at + 1, n - at)) / 2**n for at in (low, low + 1)]
    assert inside[1] < 0.95 <= inside[0]
