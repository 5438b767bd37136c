"""Grids of integers: what rounding keeps, loses and never changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgewright.errors import RecipeError
from edgewright.grids import Encoding, Grid, encode, encode_closest, encode_range
from edgewright.types import Array

FLOATS = st.floats(-1e4, 1e4, width=32).map(lambda x: 0.0 if abs(x) < 1e-6 else x)
VALUES = arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=FLOATS)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    symmetric = draw(st.booleans())
    per = draw(st.sampled_from(["tensor", "channel", "group"]))
    group = draw(st.integers(1, 5)) if per == "group" else 0
    return Grid(draw(st.integers(2, 8)), symmetric, symmetric or draw(st.booleans()), per, group)


def steps(encoding: Encoding, values: Array) -> Array:
    return np.broadcast_to(encoding.beside(encoding.scale, values.shape), values.shape)


@given(grids(), VALUES, st.integers(0, 1))
def test_codes_stand_for_values_and_back(grid: Grid, values: Array, axis: int):
    encoding = encode(grid, values, axis)
    codes = encoding.codes(values)
    assert codes.min() >= grid.low
    assert codes.max() <= grid.high
    np.testing.assert_array_equal(encoding.codes(encoding.values(codes)), codes)
    np.testing.assert_array_equal(encoding.rounded(encoding.rounded(values)), encoding.rounded(values))


@given(grids(), VALUES, st.integers(0, 1))
def test_zero_is_exact_and_no_value_inside_the_range_is_off_by_more_than_half_a_step(
    grid: Grid, values: Array, axis: int
):
    values = values.copy()
    values[0, 0] = 0.0
    encoding = encode(grid, values, axis)
    rounded = encoding.rounded(values)
    assert rounded[0, 0] == 0.0
    # An asymmetric range moves by up to half a step where its zero point is rounded.
    allowed = 0.5 if grid.symmetric else 1.0
    assert np.all(np.abs(rounded - values) <= steps(encoding, values) * allowed * 1.001 + 1e-9)


@given(grids().filter(lambda grid: grid.symmetric), VALUES, st.integers(0, 1))
def test_codes_of_a_symmetric_grid_change_sign_with_the_values(grid: Grid, values: Array, axis: int):
    encoding = encode(grid, values, axis)
    np.testing.assert_array_equal(encoding.codes(-values), -encoding.codes(values))
    np.testing.assert_array_equal(encode(grid, -values, axis).scale, encoding.scale)


@given(grids(), VALUES, st.integers(0, 1))
def test_the_closest_encoding_is_never_worse_than_the_whole_range(grid: Grid, values: Array, axis: int):
    def error(encoding: Encoding) -> float:
        return float(np.sum(np.square(encoding.rounded(values).astype(np.float64) - values)))

    whole = error(encode(grid, values, axis))
    assert error(encode_closest(grid, values, axis)) <= whole * (1 + 1e-9)


def test_two_bits_of_a_bell_want_a_clipped_range():
    values = np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)
    closest, whole = encode_closest(Grid(2), values), encode(Grid(2), values)
    assert np.all(closest.scale < 0.6 * whole.scale)


def test_scales_by_hand():
    values = np.array([[-7.0, 3.5], [1.0, 14.0]], np.float32)
    np.testing.assert_allclose(encode(Grid(4, per="tensor"), values).scale, 2.0)
    np.testing.assert_allclose(encode(Grid(4), values, 0).scale, [1.0, 2.0])
    np.testing.assert_allclose(encode(Grid(4), values, 1).scale, [1.0, 2.0])
    np.testing.assert_array_equal(encode(Grid(4), values, 0).codes(values), [[-7, 4], [0, 7]])
    wide = encode_range(Grid(8, symmetric=False, signed=False, per="tensor"), -1.0, 4.1)
    assert (float(wide.scale), int(wide.zero_point)) == (pytest.approx(0.02), 50)


def test_scaled_keeps_the_codes_of_scaled_values():
    values = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    factor = np.array([0.5, 2.0, 4.0], np.float32)
    encoding = encode(Grid(4), values)
    np.testing.assert_array_equal(encoding.scaled(factor).codes(values * factor[:, None]), encoding.codes(values))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bits": 9}, "2 to 8 bits"),
        ({"per": "chanel"}, "did you mean 'channel'"),
        ({"per": "group"}, "groups of 0"),
        ({"group": 32}, "cannot have groups of 32"),
    ],
)
def test_a_grid_that_means_nothing_is_refused(settings: dict[str, object], said: str):
    with pytest.raises(RecipeError, match=said):
        Grid(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_symmetric_grid_is_narrow_so_that_a_sign_may_change_beyond_its_range_too(bits: int) -> None:
    encoding = encode_range(Grid(bits, per="tensor"), -1.0, 1.0)
    beyond = np.linspace(-3, 3, 101, dtype=np.float32)
    assert np.array_equal(encoding.codes(-beyond), -encoding.codes(beyond))
