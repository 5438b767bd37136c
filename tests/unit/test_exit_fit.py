"""Thresholds fitted to a goal: bounds hold, ties are right, exits that earn nothing are dropped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.exits.choices import OFF, Table, along, arrival, cuts_of, evaluate, tabulate
from edgewright.exits.fit import MARGIN, Costs, Fit, Observed, fit, reweighed
from edgewright.exits.search import Aim, alone, closed, geometric, moved
from edgewright.gates import depth_of
from edgewright.types import Goal

KINDS = ("smooth", "saturated", "patience", "holes")


def observed(kind: str, exits: int, n: int, seed: int) -> Observed:
    """Later exits answer better, scores tell right from wrong; `holes` are NaN."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=n)
    sure = np.linspace(0.3, 1.3, exits + 1)[:, None] - hard + rng.normal(size=(exits + 1, n)) * 0.5
    scores = 1 / (1 + np.exp(-np.abs(sure[:-1]) - rng.normal(size=(exits, n)) * 0.3))
    if kind == "saturated":
        scores = np.minimum(scores * 1.3, 1.0)
    elif kind == "patience":
        scores = np.minimum(np.floor(scores * 4), np.arange(exits)[:, None])
    elif kind == "holes":
        scores[rng.random(scores.shape) < 0.2] = np.nan
    return Observed(scores.astype(np.float32), (sure > 0).astype(np.float64))


def costs(exits: int, saved: float = 0.1) -> Costs:
    return Costs(tuple(1.0 + 0.3 * k for k in range(exits + 1)), (saved,) * exits)


def whole(c: Costs) -> float:
    return sum(c.stages) - sum(c.saved)


chains = st.builds(observed, st.sampled_from(KINDS), st.integers(1, 4), st.integers(2, 80), st.integers(0, 2**32))
drops = st.sampled_from((0.0, 0.01, 0.05, 0.2, 1.0))


@settings(max_examples=15)
@given(chains, drops)
def test_a_bound_on_the_loss_holds_with_its_margin(seen: Observed, drop: float) -> None:
    c = costs(len(seen.scores))
    found = fit(seen, c, Goal(drop=drop))
    assert found.drop + MARGIN * found.drop_error <= drop + 1e-9
    assert c.stages[0] - 1e-9 <= found.cost_ms <= whole(c) + 1e-9
    assert found.drop == pytest.approx(seen.quality[-1].mean() - found.quality)


@settings(max_examples=15)
@given(chains, st.sampled_from((0.2, 0.5, 0.8, 1.0)))
def test_a_bound_on_the_cost_holds_or_the_cheapest_is_taken(seen: Observed, cost: float) -> None:
    c = costs(len(seen.scores))
    found = fit(seen, c, Goal(cost=cost))
    everyone = [np.isfinite(row).all() for row in seen.scores]
    if everyone[0] and c.stages[0] > cost * whole(c):
        assert found.cost_ms == pytest.approx(c.stages[0])
    if found.cost_ms > cost * whole(c) + 1e-9:
        cheapest = fit(seen, c, Goal(cost=0.0))
        assert found.cost_ms == pytest.approx(cheapest.cost_ms)


@settings(max_examples=15)
@given(chains, drops)
def test_thresholds_reproduce_the_shares(seen: Observed, drop: float) -> None:
    found = fit(seen, costs(len(seen.scores)), Goal(drop=drop))
    depth = depth_of(seen.scores, found.thresholds)
    counted = np.bincount(depth, minlength=len(found.shares)) / len(depth)
    np.testing.assert_allclose(found.shares, counted)
    for row, threshold in zip(seen.scores, found.thresholds, strict=True):
        if threshold is not None:
            assert np.isfinite(threshold)
            assert np.float32(threshold) == threshold
            assert np.nanmin(row) <= threshold <= np.nanmax(row)


@settings(max_examples=15)
@given(chains, drops)
def test_no_single_exit_at_any_cut_is_cheaper(seen: Observed, drop: float) -> None:
    exits = len(seen.scores)
    c = costs(exits)
    found = fit(seen, c, Goal(drop=drop))
    for exit in range(exits):
        for cut in cuts_of(seen.scores[exit]):
            thresholds = [float(cut) if k == exit else None for k in range(exits)]
            other = reweighed(thresholds, seen, c)
            if other.drop + MARGIN * other.drop_error <= drop:
                assert found.cost_ms <= other.cost_ms * 1.005**exits + 1e-9


@settings(max_examples=15)
@given(chains)
def test_more_loss_allowed_never_costs_more(seen: Observed) -> None:
    c = costs(len(seen.scores))
    spent = [fit(seen, c, Goal(drop=drop)).cost_ms for drop in (0.0, 0.02, 0.1, 1.0)]
    # the search is no exhaustive one, and an exit may go for half a percent
    assert all(later <= earlier * 1.03 for earlier, later in zip(spent, spent[1:]))


@settings(max_examples=15)
@given(chains, st.floats(0.0, 0.3), st.data())
def test_moving_one_exit_is_foretold_exactly(seen: Observed, saved: float, data: st.DataObject) -> None:
    c = costs(len(seen.scores), saved)
    table = tabulate(seen.scores, seen.quality, c.stages, c.saved)
    choice = tuple(data.draw(st.sampled_from((*range(len(cuts)), OFF))) for cuts in table.cuts)
    exit = data.draw(st.integers(0, table.exits - 1))
    told = along(table, choice, exit)
    assert len(told.cost) == len(table.cuts[exit]) + 1
    for cut in range(len(told.cost)):
        outcome = evaluate(table, moved(table, choice, exit, cut))
        found = (told.cost[cut], told.drop[cut], told.error[cut])
        assert found == pytest.approx((outcome.cost, outcome.drop, outcome.error), abs=1e-7)


@settings(max_examples=30)
@given(chains, st.floats(0.1, 10.0))
def test_the_table_and_the_thresholds_tell_the_same(seen: Observed, ratio: float) -> None:
    exits = len(seen.scores)
    c = costs(exits)
    table = tabulate(seen.scores, seen.quality, c.stages, c.saved)
    choice = geometric(table, range(exits), ratio)
    outcome = evaluate(table, choice)
    thresholds = [None if cut == OFF else float(table.cuts[k][cut]) for k, cut in enumerate(choice)]
    found = reweighed(thresholds, seen, c)
    assert (found.cost_ms, found.drop, found.drop_error) == pytest.approx((outcome.cost, outcome.drop, outcome.error))


@settings(max_examples=60)
@given(st.lists(st.floats(width=32), min_size=1, max_size=60))
def test_cuts_part_scores_without_splitting_equal_ones(values: list[float]) -> None:
    scores = np.array(values, np.float32)
    cuts = cuts_of(scores)
    finite = np.unique(scores[np.isfinite(scores)])
    assert np.isfinite(cuts).all()
    assert (np.diff(cuts) > 0).all()
    left = [int((finite >= cut).sum()) for cut in cuts]
    assert left == sorted(set(left), reverse=True)
    assert len(finite) == 0 or left[0] == len(finite)
    assert 0 not in left


def test_patience_leaves_at_whole_numbers() -> None:
    scores = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 2]], np.float32)
    assert [cuts_of(row).tolist() for row in scores] == [[0.0], [0.0, 0.5], [0.0, 0.5, 1.5]]


def test_saturated_scores_leave_together() -> None:
    scores = np.array([1.0] * 6 + [0.5, 0.4], np.float32)
    assert cuts_of(scores)[-1] == np.float32(0.75)


@pytest.mark.parametrize("towards", [0, 2])
def test_neighbours_in_float32_are_parted(towards: int) -> None:
    pair = np.array([1.0, np.nextafter(np.float32(1), np.float32(towards))], np.float32)
    assert [(pair >= cut).sum() for cut in cuts_of(pair)] == [2, 1]


def found_with(seen: Observed, goal: Goal, saved: float = 0.1) -> Fit:
    return fit(seen, costs(len(seen.scores), saved), goal)


def test_exits_save_time_where_scores_tell_right_from_wrong() -> None:
    seen = observed("smooth", 3, 1500, seed=5)
    found = found_with(seen, Goal(drop=0.02))
    assert found.cost_ms < 0.9 * whole(costs(3))
    again = reweighed(found.thresholds, seen, costs(3))
    assert again.cost_ms == found.cost_ms
    assert again.shares == found.shares


def test_exits_that_tell_nothing_are_all_dropped() -> None:
    rng = np.random.default_rng(0)
    quality = np.stack([rng.random(500) < p for p in (0.2, 0.3, 0.9)]).astype(np.float64)
    found = found_with(Observed(rng.random((2, 500), np.float32), quality), Goal(drop=0.005))
    assert found.thresholds == (None, None)
    assert found.cost_ms == pytest.approx(whole(costs(2)))
    assert (found.drop, found.drop_error, found.shares) == (0.0, 0.0, (0.0, 0.0, 1.0))


def test_an_exit_that_earns_less_than_its_head_is_dropped() -> None:
    good = observed("smooth", 1, 1000, seed=2)
    twice = Observed(np.repeat(good.scores, 2, axis=0), good.quality[[0, 0, 1]])
    found = fit(twice, Costs((1.0, 0.2, 3.0), (0.1, 0.15)), Goal(drop=0.02))
    assert [threshold is None for threshold in found.thresholds] == [False, True]


def told(n: int, *exits: tuple[range, range]) -> Observed:
    """Each exit is sure of some rows, and right about some; the final answer is always right."""
    rows = np.arange(n)
    scores = [np.isin(rows, sure) for sure, _ in exits]
    quality = [*(np.isin(rows, right) for _, right in exits), np.ones(n)]
    return Observed(np.stack(scores).astype(np.float32), np.stack(quality).astype(np.float64))


@pytest.mark.parametrize(("rows", "kept"), [(2, False), (20, True)])
def test_an_exit_stays_for_more_than_half_a_percent(rows: int, kept: bool) -> None:
    seen = told(1000, (range(500), range(500)), (range(500, 500 + rows), range(600)))
    found = fit(seen, Costs((1.0, 0.01, 10.0), (0.0, 0.0)), Goal(drop=0.0))
    assert [threshold is not None for threshold in found.thresholds] == [True, kept]


def test_an_exit_worse_than_an_earlier_one_is_not_kept_beside_it() -> None:
    first, second = (range(300), range(600)), (range(400, 700), range(400, 800))
    c = Costs((1.0, 1.0, 10.0), (0.0, 0.0))
    beside = fit(told(1000, first, second), c, Goal(drop=0.0))
    assert [threshold is not None for threshold in beside.thresholds] == [True, False]
    better = fit(told(1000, first, (range(400, 700), range(100, 800))), c, Goal(drop=0.0))
    assert None not in better.thresholds


def test_each_exit_alone_is_tried_at_every_cut() -> None:
    seen = observed("smooth", 6, 300, seed=8)
    c = costs(6)
    table = tabulate(seen.scores, seen.quality, c.stages, c.saved)
    aim = Aim.of(Goal(drop=0.1), table.whole_ms, MARGIN)
    for exit, found in enumerate(alone(table, aim)):
        every = [evaluate(table, moved(table, closed(table), exit, cut)) for cut in range(len(table.cuts[exit]) + 1)]
        assert found.cost == min(each.cost for each in every if not aim.excess(each))


def test_every_exit_that_stays_earns_half_a_percent() -> None:
    seen = observed("smooth", 5, 1500, seed=4)
    found = found_with(seen, Goal(drop=0.03))
    for exit, threshold in enumerate(found.thresholds):
        if threshold is not None:
            without = [None if k == exit else t for k, t in enumerate(found.thresholds)]
            other = reweighed(without, seen, costs(5))
            assert other.cost_ms > found.cost_ms * 1.005


def test_the_front_is_one_and_holds_the_choice() -> None:
    seen = observed("smooth", 4, 800, seed=6)
    found = found_with(seen, Goal(drop=0.02))
    points = found.tradeoffs
    assert 5 < len(points) <= 40
    (chosen,) = [point for point in points if point.chosen]
    assert (chosen.thresholds, chosen.cost_ms) == (found.thresholds, pytest.approx(found.cost_ms))
    others = [point for point in points if not point.chosen]
    assert all(a.cost_ms < b.cost_ms and a.metric < b.metric for a, b in zip(others, others[1:]))
    assert others[-1].metric >= seen.quality[-1].mean()
    for point in points:
        again = reweighed(point.thresholds, seen, costs(4))
        assert (again.cost_ms, again.quality) == pytest.approx((point.cost_ms, point.metric))


def test_more_than_eight_exits_are_fitted_too_and_alike_each_time() -> None:
    seen = observed("smooth", 10, 600, seed=7)
    first, second = (found_with(seen, Goal(drop=0.03)) for _ in range(2))
    assert first == second
    assert first.cost_ms < 0.8 * whole(costs(10))


def test_a_dropped_exit_saves_its_head() -> None:
    seen = observed("smooth", 2, 50, seed=0)
    table: Table = tabulate(seen.scores, seen.quality, (1.0, 2.0, 4.0), (0.25, 0.5))
    assert arrival(table, (0, 0)).tolist() == [1.0, 3.0, 7.0]
    assert arrival(table, (OFF, 0)).tolist() == [1.0, 2.75, 6.75]
    assert arrival(table, (OFF, OFF)).tolist() == [1.0, 2.75, 6.25]


@pytest.mark.parametrize("goal", [Goal(), Goal(drop=0.1, cost=0.5)])
def test_a_goal_says_one_thing(goal: Goal) -> None:
    with pytest.raises(ValueError, match="either how much may be lost"):
        found_with(observed("smooth", 2, 20, seed=0), goal)


def test_sizes_that_do_not_fit_are_named() -> None:
    seen = observed("smooth", 2, 20, seed=0)
    with pytest.raises(ValueError, match="2 exits"):
        fit(seen, Costs((1.0, 1.0), (0.0, 0.0)), Goal(drop=0.1))
    with pytest.raises(ValueError, match="at least one example"):
        fit(Observed(seen.scores[:, :0], seen.quality[:, :0]), costs(2), Goal(drop=0.1))
