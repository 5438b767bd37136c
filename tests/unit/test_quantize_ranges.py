"""Ranges of activations: hand-computed cases, and what must hold for every histogram."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgewright_plugins.qdq.ranges import (
    DENSE,
    METHODS,
    Histogram,
    divergence,
    find_range,
    grid,
    least_entropy,
    min_max,
    percentile,
    squared_error,
    without_zeros,
)

ends = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    low, high = sorted((draw(ends), draw(ends)))
    counts = draw(arrays.arrays(np.float64, 64, elements=st.integers(0, 10_000).map(float)))
    counts[0] += 1.0
    counts[-1] += 1.0
    return Histogram(low, high, counts)


def of(values: np.ndarray, bins: int = 2048) -> Histogram:
    counts, edges = np.histogram(values, bins)
    return Histogram(float(edges[0]), float(edges[-1]), counts.astype(np.float64))


def test_min_max_holds_zero():
    counts = np.ones(4)
    assert min_max(Histogram(1.0, 3.0, counts)) == (0.0, 3.0)
    assert min_max(Histogram(-3.0, -1.0, counts)) == (-3.0, 0.0)


def test_percentile_by_hand():
    # 100 values in each of 10 bins over -5..5: 1 % on each side is less than a bin, 15 % is one and a half.
    flat = Histogram(-5.0, 5.0, np.full(10, 100.0))
    assert percentile(flat, 0.99) == (-5.0, 5.0)
    assert percentile(flat, 0.85) == (-4.0, 4.0)


def test_squared_error_by_hand():
    # Levels 0, 1, ..., 255; the bin centres lie at 0.25 and 0.75, a quarter from a level each.
    histogram = Histogram(0.0, 1.0, np.array([3.0, 1.0]))
    assert squared_error(histogram, (0.0, 255.0)) == pytest.approx(0.0625)
    # The upper bin, around 3, is clipped to 1.
    clipped = squared_error(Histogram(0.0, 4.0, np.array([0.0, 1.0])), (0.0, 1.0))
    assert clipped == pytest.approx(4.0)


def test_grid_has_zero_as_a_level():
    scale, zero = grid((-1.0, 3.0))
    assert scale == pytest.approx(4 / 255)
    assert zero == round(255 / 4)


@given(histograms())
def test_every_range_lies_in_min_max_and_holds_zero(histogram: Histogram):
    low, high = min_max(histogram)
    for method in METHODS:
        found = find_range(histogram, method)
        assert low <= found[0] <= 0.0 <= found[1] <= high


@given(histograms())
def test_mse_is_never_worse_than_min_max(histogram: Histogram):
    found = find_range(histogram, "mse")
    if found[0] < found[1]:
        assert squared_error(histogram, found) <= squared_error(histogram, min_max(histogram))


@given(histograms(), st.floats(0.5, 1.0), st.floats(0.5, 1.0))
def test_percentile_grows_with_its_share(histogram: Histogram, one: float, other: float):
    small, large = (percentile(histogram, share) for share in sorted((one, other)))
    assert large[0] <= small[0]
    assert small[1] <= large[1]


@given(histograms())
@settings(max_examples=30)
def test_entropy_is_never_worse_than_min_max(histogram: Histogram):
    found = least_entropy(histogram)
    if found != min_max(histogram):
        others = without_zeros(histogram)
        assert divergence(others, found) <= divergence(others, min_max(histogram))


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_a_lone_outlier_does_not_set_the_range(method: str):
    values = np.random.default_rng(0).standard_normal(500_000)
    values[0] = 12.0
    low, high = find_range(of(values), method)
    assert -7.0 < low < -2.0
    assert 2.0 < high < 7.0


def test_zeros_of_relu_do_not_narrow_the_entropy_range():
    values = np.maximum(np.random.default_rng(1).standard_normal(500_000), 0.0)
    _, high = find_range(of(values), "entropy")
    assert high > 2.5


def test_too_few_values_show_no_shape():
    values = np.random.default_rng(2).standard_normal(DENSE * 10)
    histogram = of(values)
    assert least_entropy(histogram) == min_max(histogram)


def test_a_constant_has_a_range():
    for method in METHODS:
        assert find_range(Histogram(2.0, 2.0, np.zeros(8)), method) == (0.0, 2.0)
