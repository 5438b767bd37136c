"""Fits the thresholds of a chain to a goal, from scores that were seen and costs that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgewright.exits.choices import OFF, Choice, Outcome, Table, evaluate, mean_and_error, tabulate
from edgewright.exits.search import (
    STARTS,
    Aim,
    alone,
    closed,
    ladder,
    opened,
    pruned,
    refined,
    stacked,
    sweep,
)
from edgewright.gates import depth_of
from edgewright.types import Goal, Tradeoff

MARGIN = 2.0
"""Standard errors of the loss that must fit into the goal too.

The cheapest of thousands of choices that just fits on these examples owes part of that to chance, and breaks the
bound on new ones. On synthetic chains of four exits (goal 1 point, 2,400 examples, 100 draws each) 80 % of fits broke
it on 100,000 new examples with a margin of 0, 38 % with 1 and 10 % with 2, at 85, 87 and 89 % of the whole cost;
with 600 examples 94, 48 and 13 %, with 9,600 examples 46, 15 and 0 %.
"""
POINTS = 40
"""The most points of a front."""

Thresholds = tuple["float | None", ...]


@dataclass(frozen=True, eq=False)
class Observed:
    """What every exit made of n examples, none of which left before the end.

    `scores` [exits, n] float32, one row per gated stage; `quality` [exits + 1, n] float64 is how good each exit's
    answer is to each example, the final answer's last: higher is better, 1.0 is the metric's full scale.
    """

    scores: npt.NDArray[np.float32]
    quality: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """What the stages of the running chain take in ms, heads included, and what each dropped exit saves.

    `saved` is an exit's head and the hop to the next stage; 0 where that is unknown.
    """

    stages: tuple[float, ...]
    saved: tuple[float, ...]


@dataclass(frozen=True)
class Fit:
    """Thresholds and what they come to on the examples they were fitted on.

    A threshold of None says that the exit was dropped. `cost_ms` and `quality` are means per row; `drop` is what is
    lost against the final answer, `drop_error` the standard error of that paired difference; `shares` [exits + 1] says
    how many leave where. `tradeoffs` is the Pareto front, and the chosen point where it lies behind it.
    """

    thresholds: Thresholds
    cost_ms: float
    quality: float
    drop: float
    drop_error: float
    shares: tuple[float, ...]
    tradeoffs: tuple[Tradeoff, ...]


def fit(observed: Observed, costs: Costs, goal: Goal, *, margin: float = MARGIN) -> Fit:
    """The cheapest thresholds that lose at most `goal.drop`, or the best that cost at most `goal.cost`.

    The loss counts with `margin` standard errors; costs are means per row, `goal.cost` a share of what the chain costs
    without exits. An exit is dropped when the chain is at most 0.5 % dearer (0.05 points worse) without it, and where
    its answers are worse than an earlier one's that is kept. A cost that no choice reaches gives the cheapest one.
    Raises: ValueError when sizes do not fit together, or the goal says nothing.
    """
    table = tabulate(observed.scores, observed.quality, costs.stages, costs.saved)
    aim = Aim.of(goal, table.whole_ms, margin)
    pool = [evaluate(table, closed(table)), *alone(table, aim), *sweep(table, aim)]
    for start in _starts(pool, aim):
        pool += refined(table, start.choice, aim)
    chosen, fewer = pruned(table, aim.pick(pool), aim)
    front = _front([*pool, *fewer, *ladder(table, chosen.choice), chosen], chosen)
    final = float(table.quality[-1].mean())
    points = tuple(
        Tradeoff(_thresholds(table, each.choice), each.cost, final - each.drop, chosen=each is chosen) for each in front
    )
    return replace(reweighed(_thresholds(table, chosen.choice), observed, costs), tradeoffs=points)


def reweighed(thresholds: Sequence[float | None], observed: Observed, costs: Costs) -> Fit:
    """What given thresholds come to on other examples, or at other costs; its only trade-off is itself."""
    depth = depth_of(observed.scores, thresholds)
    dropped = [threshold is None for threshold in thresholds]
    reach = np.cumsum(costs.stages) - np.append(0.0, np.cumsum(np.where(dropped, costs.saved, 0.0)))
    quality = observed.quality[depth, np.arange(len(depth))]
    lost = observed.quality[-1] - quality
    drop, error = mean_and_error(lost.sum(), np.square(lost).sum(), len(lost))
    shares = np.bincount(depth, minlength=len(reach)) / len(depth)
    cost, mean = float(reach[depth].mean()), float(quality.mean())
    point = Tradeoff(tuple(thresholds), cost, mean, chosen=True)
    return Fit(tuple(thresholds), cost, mean, float(drop), float(error), tuple(shares.tolist()), (point,))


def _starts(pool: Sequence[Outcome], aim: Aim) -> list[Outcome]:
    """The best choice of each of the few best subsets of exits."""
    best: dict[tuple[int, ...], Outcome] = {}
    for place in aim.order(stacked(pool)):
        best.setdefault(opened(pool[place].choice), pool[place])
        if len(best) == STARTS:
            break
    return list(best.values())


def _front(pool: Sequence[Outcome], chosen: Outcome) -> list[Outcome]:
    """The outcomes that no other one beats in both cost and loss, by rising cost, thinned out; and the chosen one."""
    front: list[Outcome] = []
    for each in sorted(pool, key=lambda outcome: (outcome.cost, outcome.drop)):
        if not front or each.drop < front[-1].drop:
            front.append(each)
    kept = np.unique(np.linspace(0, len(front) - 1, POINTS - 1).round().astype(int))
    thinned = {front[place].choice: front[place] for place in kept} | {chosen.choice: chosen}
    return sorted(thinned.values(), key=lambda outcome: (outcome.cost, outcome.drop))


def _thresholds(table: Table, choice: Choice) -> Thresholds:
    return tuple(None if cut == OFF else float(cuts[cut]) for cuts, cut in zip(table.cuts, choice))
