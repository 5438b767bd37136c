"""Scores of gates, the temperatures that make them honest, and where exits are put."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import RecipeError
from edgewright_plugins.early_exit.place import MOST, checked_blocks, placed, shares_of, thinned, usual_exits

torch = pytest.importorskip("torch")

from edgewright_plugins.early_exit.gate import Gate  # noqa: E402
from edgewright_plugins.early_exit.temperature import RANGE, temperature_of  # noqa: E402

LOGITS = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32) * 3


def probabilities(logits, temperature=1.0):
    powers = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_probability_and_negated_entropy(temperature):
    shares = probabilities(LOGITS.astype(np.float64), temperature)
    wanted = {"max-probability": shares.max(1), "entropy": (shares * np.log(shares)).sum(1)}
    for rule, scores in wanted.items():
        gate = Gate(rule)
        gate.temperature.fill_(temperature)
        found, memory = gate(torch.from_numpy(LOGITS), ())
        assert (found.dtype, memory) == (torch.float32, ())
        np.testing.assert_allclose(found.numpy(), scores, rtol=1e-5)


def test_a_sure_answer_has_a_score_that_can_be_compared():
    sure = torch.tensor([[1e4, -1e4, 0.0]])
    assert [float(Gate(rule)(sure, ())[0]) for rule in ("max-probability", "entropy")] == [1.0, 0.0]


def test_patience_counts_exits_that_agree_and_starts_again():
    answers = [[0, 1, 2], [0, 1, 0], [0, 2, 0]]
    memory, counted = (), []
    for said in answers:
        score, memory = Gate("patience")(torch.nn.functional.one_hot(torch.tensor(said), 5).float(), memory)
        counted.append(score.tolist())
    assert counted == [[1, 1, 1], [2, 2, 1], [3, 1, 2]]
    assert memory[0].tolist() == answers[-1]


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(true):
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((20_000, 4)).astype(np.float32) * 2
    drawn = (probabilities(logits, true).cumsum(1) > rng.random((len(logits), 1))).argmax(1)
    assert temperature_of(torch.from_numpy(logits), torch.from_numpy(drawn)) == pytest.approx(true, rel=0.04)
    wanted = torch.from_numpy(probabilities(logits, true))
    assert temperature_of(torch.from_numpy(logits), wanted) == pytest.approx(true, rel=1e-3)


def test_temperatures_stay_in_their_range():
    logits = torch.eye(3) * 5
    assert temperature_of(logits, torch.eye(3)) == pytest.approx(RANGE[0], rel=0.01)
    assert temperature_of(logits, torch.tensor([1, 2, 0])) == pytest.approx(RANGE[1], rel=0.01)


def test_a_few_right_answers_do_not_make_an_exit_sure_of_everything():
    # Each of 3 rows may be taken for right with 4 / 5, and exp(5 / T) / (exp(5 / T) + 2) is that.
    assert temperature_of(torch.eye(3) * 5, torch.tensor([0, 1, 2])) == pytest.approx(5 / np.log(8), rel=1e-3)


def test_shares_of_costs_end_before_the_last_piece():
    assert shares_of([1.0, 2.0, 1.0]) == (0.25, 0.75)


def test_exits_stand_near_evenly_spaced_shares_of_the_cost():
    even = [(k + 1) / 12 for k in range(11)]
    assert placed(even, 4, [False] * 11) == (3, 5, 7, 9)  # 0.33, 0.5, 0.67, 0.83
    assert placed(even, 1, [False] * 11) in ((5,), (6,))  # 0.5 or 0.58, for 0.55
    early = [0.6, 0.7, 0.75, 0.8, 0.9]
    assert placed(early, 2, [False] * 5) == (0, 3)


def test_the_end_of_a_resolution_is_worth_a_little():
    shares = [0.28, 0.32, 0.5]
    assert placed(shares, 1, [False, False, False]) == (2,)
    assert placed([0.5, 0.58], 1, [True, False]) == (0,)
    assert placed([0.3, 0.58], 1, [True, False]) == (1,)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=MOST + 1), st.integers(1, 8))
@settings(max_examples=60)
def test_no_other_places_are_nearer(costs, exits):
    shares = shares_of(costs)
    chosen = placed(shares, exits, [False] * len(shares))
    assert len(chosen) == min(exits, len(shares))
    assert list(chosen) == sorted(set(chosen))
    wanted = np.linspace(0.3, 0.8, len(chosen)) if len(chosen) > 1 else [0.55]
    off = [
        sum(abs(shares[i] - share) for i, share in zip(each, wanted, strict=True))
        for each in itertools.combinations(range(len(shares)), len(chosen))
    ]
    assert sum(abs(shares[i] - share) for i, share in zip(chosen, wanted, strict=True)) <= min(off) + 1e-9


@given(st.integers(1, 60))
def test_thinned_boundaries_keep_their_ends_and_are_few(count):
    numbers = list(range(1, count + 1))
    kept = thinned(numbers)
    assert (kept[0], kept[-1], len(kept)) == (1, count, min(count, MOST))
    gaps = np.diff(kept)
    assert list(kept) == sorted(set(kept))
    assert not gaps.size or gaps.max() - gaps.min() <= 1


def test_how_many_exits_a_network_gets():
    assert [usual_exits(blocks) for blocks in (2, 3, 4, 5, 6, 12, 24)] == [1, 1, 2, 2, 4, 4, 4]


def test_blocks_that_a_user_names_are_checked():
    assert checked_blocks((4, 2, 2), (1, 2, 4), 6) == (2, 4)
    with pytest.raises(RecipeError, match=r"at=6 is no block to leave behind; the network has 6 blocks.*1, 2, 4"):
        checked_blocks((2, 6), (1, 2, 4), 6)
