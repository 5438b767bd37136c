"""The integer programme against trying every choice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("scipy")

from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import RecipeError
from edgewright_plugins.qdq.allocate import Choice, Pair, Table, allocate, cost_of

Problem = tuple[Table, Table, list[Pair]]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to five layers of up to three options; whole numbers, so that sums are exact."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    losses = [[draw(st.integers(0, 10**6)) for _ in range(n)] for n in sizes]
    costs = [[draw(st.integers(0, 10**7)) for _ in range(n)] for n in sizes]
    places = [(layer, option) for layer, n in enumerate(sizes) for option in range(n)]
    chosen = draw(st.lists(st.tuples(st.sampled_from(places), st.sampled_from(places)), max_size=3))
    pairs = [Pair(a, b, draw(st.integers(-(10**6), 10**6))) for a, b in chosen if a[0] != b[0]]
    return losses, costs, pairs


def every(costs: Table) -> list[Choice]:
    return list(itertools.product(*(range(len(row)) for row in costs)))


def loss_of(choice: Choice, losses: Table) -> float:
    return sum(losses[layer][option] for layer, option in enumerate(choice))


@settings(max_examples=60)
@given(problems(), st.floats(0, 1))
def test_no_choice_within_the_budget_loses_less(problem: Problem, share: float):
    losses, costs, pairs = problem
    possible = sorted(cost_of(choice, costs, pairs) for choice in every(costs))
    budget = possible[int(share * (len(possible) - 1))]
    found = allocate(losses, costs, budget, pairs=pairs)
    best = min(loss_of(c, losses) for c in every(costs) if cost_of(c, costs, pairs) <= budget)
    assert cost_of(found, costs, pairs) <= budget
    assert loss_of(found, losses) == best


@settings(max_examples=20)
@given(problems())
def test_a_budget_below_the_cheapest_choice_is_refused_with_its_cost(problem: Problem):
    losses, costs, pairs = problem
    least = min(cost_of(choice, costs, pairs) for choice in every(costs))
    with pytest.raises(RecipeError, match=r"the cheapest costs .*, so allow that") as refusal:
        allocate(losses, costs, least - 1, pairs=pairs)
    assert f"the cheapest costs {least:.6g}," in str(refusal.value)


def test_a_saving_that_two_layers_share_is_used():
    """Both in option 1 costs 6 + 6 - 5: within 8 only because of what they save together."""
    losses, costs = [[9.0, 1.0], [9.0, 1.0]], [[2.0, 6.0], [2.0, 6.0]]
    assert allocate(losses, costs, 8) in ((0, 1), (1, 0))
    assert allocate(losses, costs, 8, pairs=[Pair((0, 1), (1, 1), -5.0)]) == (1, 1)


def test_tiny_losses_are_told_apart():
    losses = [[1e-6, 3e-6], [2e-6, 1e-6], [5.0, 1e-6]]
    costs = [[1.0, 1.0], [1.0, 1.0], [1.0, 2.0]]
    assert allocate(losses, costs, 4) == (0, 1, 1)


def test_one_byte_above_the_budget_is_too_much():
    """The solver's own tolerance would let it pass."""
    losses, costs = [[1.0, 0.0]], [[1.0, 10_000_001.0]]
    assert allocate(losses, costs, 10_000_000) == (0,)


def test_a_hundred_layers_lose_less_than_any_of_a_thousand_random_choices():
    rng = np.random.default_rng(0)
    losses = (rng.random((100, 3)) * (9, 0.5, 0.01)).tolist()
    costs = (rng.integers(1, 8, (100, 1)) * (2, 4, 8)).tolist()
    found = allocate(losses, costs, 2000)
    drawn = [tuple(int(option) for option in rng.integers(0, 3, 100)) for _ in range(1000)]
    affordable = [choice for choice in drawn if cost_of(choice, costs) <= 2000]
    assert cost_of(found, costs) <= 2000
    assert len(affordable) > 100
    assert loss_of(found, losses) < min(loss_of(choice, losses) for choice in affordable)
