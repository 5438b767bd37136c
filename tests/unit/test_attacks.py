"""Attacks: what they make of inputs, and that the search gets past gates that noise of the same size does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import PluginError, RefusedError
from edgewright.registry import ATTACKS, Registry
from edgewright.testing.attacks import Known, crafts
from edgewright.types import Offer
from edgewright_plugins.attacks import Blank, Blur, Gaussian, Jitter, Slowdown, Uniform
from edgewright_plugins.attacks.ball import EPS, spatial_axes
from edgewright_plugins.attacks.slowdown import REACHED, losses

RNG = np.random.default_rng
# Eight rows that hardly differ, so that one threshold is as far from each of them.
ALIKE = 0.5 + 0.45 * np.sin(np.arange(256)) + RNG(0).uniform(-0.01, 0.01, (8, 256))
IMAGES = {"image": ALIKE.reshape(8, 1, 16, 16).astype(np.float32)}
VECTORS = {"x": ALIKE.astype(np.float32), "ids": np.arange(8)}
GATES = 0.006
"""How far below the scores the gates stand: less than half of what a change of EPS can do, four deviations of noise."""


def probe_of(inputs, queries: int = 200) -> Known:
    """Gates that every row reaches, so that all leave at the first."""
    scores = Known(inputs).scores(inputs)
    return Known(inputs, thresholds=tuple(float(each.min()) - GATES for each in scores), queries=queries)


def depths(probe: Known, inputs) -> np.ndarray:
    return Known(inputs, thresholds=probe.thresholds).depths(inputs)


def test_all_are_offered():
    names = {offer.value.name for offer in Registry().all(ATTACKS)}
    assert names >= {"blank-zeros", "blank-mean", "noise-gaussian", "noise-uniform", "jitter", "blur", "slowdown"}


# ------------------------------------------------------------------ slowdown


@pytest.mark.parametrize("inputs", [IMAGES, {"x": VECTORS["x"]}], ids=["images", "vectors"])
def test_slowdown_passes_gates_that_noise_of_its_size_does_not(inputs):
    probe = probe_of(inputs)
    assert depths(probe, inputs).max() == 0
    assert depths(probe, Jitter().craft(probe, inputs, RNG(0))).max() == 0
    crafted = Slowdown().craft(probe, inputs, RNG(0))
    assert depths(probe, crafted).mean() > 1.0


def test_slowdown_stays_near_in_range_and_in_budget():
    probe = probe_of(IMAGES, queries=30)
    crafted = Slowdown().craft(probe, IMAGES, RNG(0))["image"]
    low, high = probe.limits["image"]
    assert np.abs(crafted - IMAGES["image"]).max() <= EPS * (high - low) * 1.0001
    assert low <= crafted.min() <= crafted.max() <= high
    assert probe.asked == 30


def test_slowdown_never_makes_a_row_leave_earlier_than_it_did():
    inputs, rng = {"image": RNG(5).random((16, 1, 8, 8), np.float32)}, RNG(2)
    probe = Known(inputs, thresholds=(0.5, 0.5), queries=5)
    before = losses(Known(inputs, thresholds=probe.thresholds), inputs)
    after = losses(Known(inputs, thresholds=probe.thresholds), Slowdown().craft(probe, inputs, rng))
    assert (after <= before + 1e-7).all()


def test_slowdown_stops_when_every_row_gets_to_the_end():
    probe = Known(IMAGES, thresholds=(9.0, 9.0))
    crafted = Slowdown().craft(probe, IMAGES, RNG(0))
    np.testing.assert_array_equal(crafted["image"], IMAGES["image"])
    assert probe.asked == 1


class Inside(Known):
    """The same model, deciding inside its graph: where rows leave is all it tells."""

    def scores(self, inputs):
        return np.zeros((0, len(inputs["image"])), np.float32)

    def depths(self, inputs):
        return depths(self, inputs)


def test_slowdown_works_by_depth_where_there_are_no_scores():
    known = probe_of(IMAGES)
    inside = Inside(IMAGES, thresholds=known.thresholds, queries=100)
    crafted = Slowdown(eps=4 * EPS).craft(inside, IMAGES, RNG(0))
    assert depths(known, crafted).mean() > depths(known, IMAGES).mean()


def test_a_row_that_only_reaches_its_threshold_still_leaves_and_nan_does_not():
    probe = Known(IMAGES)
    probe.thresholds = tuple(float(each[0]) for each in probe.scores(IMAGES))
    assert losses(probe, IMAGES)[0] == pytest.approx(2 * REACHED)
    assert losses(probe, {"image": np.full_like(IMAGES["image"], np.nan)}).max() == 0


# ------------------------------------------------------------------ the others


def test_blank_is_the_same_everywhere():
    probe = Known(IMAGES)
    assert np.ptp(Blank("mean").craft(probe, IMAGES, RNG(0))["image"]) == 0
    zeros = Blank("zeros").craft(probe, IMAGES, RNG(0))["image"]
    assert (zeros == np.float32(probe.limits["image"][0])).all()


def test_noise_is_like_the_data_and_leaves_what_is_no_float():
    probe = Known(VECTORS)
    gaussian = Gaussian().craft(probe, VECTORS, RNG(0))
    assert gaussian["x"].mean() == pytest.approx(VECTORS["x"].mean(), abs=0.03)
    np.testing.assert_array_equal(gaussian["ids"], VECTORS["ids"])
    uniform = Uniform().craft(probe, VECTORS, RNG(0))["x"]
    assert uniform.std() == pytest.approx((probe.limits["x"][1] - probe.limits["x"][0]) / np.sqrt(12), rel=0.05)
    assert np.abs(uniform - VECTORS["x"]).max() > 0.5


def test_blur_spreads_a_point_and_keeps_its_sum():
    image = np.zeros((1, 1, 32, 32), np.float32)
    image[0, 0, 16, 16] = 1
    found = Blur().craft(Known({"image": image}), {"image": image}, RNG(0))["image"][0, 0]
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert 0.01 < found.max() < 0.1
    np.testing.assert_allclose(found, found.T, atol=1e-7)


def test_what_cannot_be_done_is_refused():
    with pytest.raises(RefusedError, match="blur needs images"):
        Blur().craft(Known(VECTORS), VECTORS, RNG(0))
    words = {"ids": np.arange(8).reshape(4, 2)}
    with pytest.raises(RefusedError, match="none among ids"):
        Slowdown().craft(Known(words), words, RNG(0))


@pytest.mark.parametrize(
    ("shape", "axes"), [((2, 3, 8, 8), (2, 3)), ((2, 8, 8, 3), (1, 2)), ((2, 8, 8, 8), (2, 3)), ((2, 16), None)]
)
def test_images_are_known_by_their_channels(shape, axes):
    assert spatial_axes(np.zeros(shape)) == axes


@given(
    st.sampled_from([Jitter(), Slowdown(), Uniform(), Gaussian(), Blur(), Blank("mean")]),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 6), st.integers(2, 6)),
    st.integers(0, 9),
)
@settings(max_examples=40)
def test_any_images_stay_within_what_is_real(attack, shape, seed):
    inputs = {"image": RNG(seed).standard_normal(shape).astype(np.float32)}
    probe = Known(inputs, thresholds=(0.5, 0.5), queries=4)
    found = attack.craft(probe, inputs, RNG(seed))["image"]
    assert (found.shape, found.dtype) == (shape, np.float32)
    low, high = probe.limits["image"]
    assert low - 1e-5 <= found.min() <= found.max() <= high + 1e-5


# ------------------------------------------------------------------ the kit


class Loud(Jitter):
    """Goes beyond the limits."""

    def craft(self, probe, inputs, rng):
        return {name: array * 100 for name, array in inputs.items()}


class Greedy(Jitter):
    """Asks more often than it may."""

    def craft(self, probe, inputs, rng):
        for _ in range(probe.queries + 1):
            probe.scores(inputs)
        return inputs


class Careless(Jitter):
    """Writes into what it was given."""

    def craft(self, probe, inputs, rng):
        for name in inputs:
            inputs[name][:] += 1
        return inputs


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (Loud(), "real data from"),
        (Greedy(), "more often than the 20 times"),
        (Careless(), "changes the arrays"),
    ],
)
def test_the_kit_catches_attacks_that_break_the_rules(attack, words: str):
    with np.errstate(all="ignore"), pytest.raises(PluginError, match=words):
        crafts(Offer(attack, "acme", "1"), None)
