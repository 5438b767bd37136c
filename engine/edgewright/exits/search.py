"""Searches choices of thresholds: MSDNet's geometric shares over subsets of exits, then exits moved one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from edgewright.exits.choices import OFF, Choice, Floats, Outcome, Outcomes, Table, along, evaluate
from edgewright.types import Goal

RATIOS = tuple(np.geomspace(0.2, 5.0, 9).tolist())
"""MSDNet's q: below 1 most rows leave early, above 1 late."""
EXHAUSTIVE = 8
"""Up to so many exits every subset is tried."""
STARTS = 5
"""Subsets that are refined after the sweep."""
WEIGHTS = (0.02, 500.0)
"""Between which shares of the whole cost per unit of quality trade-offs are sought: 1.0 is 1 % of cost per point."""
ROUNDS = 4
SLACK = {"cost": 0.005, "drop": 0.0005}
"""What an exit must bring to be kept: this share of the chain's cost, or this share of the metric's full scale."""


@dataclass(frozen=True)
class Aim:
    """What is sought: the cheapest choice that loses at most `drop`, `margin` standard errors included, or the best
    one that costs at most `cost` ms."""

    drop: float | None
    cost: float | None
    margin: float

    @classmethod
    def of(cls, goal: Goal, whole_ms: float, margin: float) -> Aim:
        """The aim behind a goal. Raises: ValueError when the goal says nothing."""
        if (goal.drop is None) == (goal.cost is None):
            raise ValueError("a goal says either how much may be lost or how much may be spent")
        return cls(goal.drop, None if goal.cost is None else goal.cost * whole_ms, margin)

    def excess(self, found: Outcomes | Outcome) -> Floats:
        """How far the bound is broken; 0 where it holds."""
        if self.drop is not None:
            over = found.drop + self.margin * np.asarray(found.error) - self.drop
        else:
            over = np.asarray(found.cost) - (self.cost or 0.0)
        return np.where(over > 1e-9, over, 0.0)

    def best(self, found: Outcomes) -> int:
        """The place of the best outcome."""
        return int(self.order(found)[0])

    def order(self, found: Outcomes) -> npt.NDArray[np.intp]:
        """The places of outcomes, best first: by the bound, then by what is sought; equal ones as they stand."""
        first, second = (found.cost, found.drop) if self.drop is not None else (found.drop, found.cost)
        return np.lexsort((second, first, self.excess(found)))

    def pick(self, outcomes: Sequence[Outcome]) -> Outcome:
        """The best of some outcomes."""
        return outcomes[self.best(stacked(outcomes))]

    def nearly(self, candidate: Outcome, best: Outcome) -> bool:
        """Whether a choice with fewer exits is as good as `best` but for what an exit must bring."""
        if self.excess(candidate) > self.excess(best):
            return False
        if self.drop is not None:
            return candidate.cost <= best.cost * (1 + SLACK["cost"])
        return candidate.drop <= best.drop + SLACK["drop"]


def stacked(outcomes: Sequence[Outcome]) -> Outcomes:
    """Outcomes as arrays."""
    columns = np.array([(each.cost, each.drop, each.error) for each in outcomes]).T
    return Outcomes(*columns)


def closed(table: Table) -> Choice:
    """Every exit dropped."""
    return (OFF,) * table.exits


def geometric(table: Table, exits: Iterable[int], ratio: float) -> Choice:
    """Cuts at which the share of rows that leaves goes as ratio^k over `exits` and the end; dropped where none may.

    Huang et al., Multi-Scale Dense Networks (ICLR 2018), section 5: exit probabilities q_k = z (1 - q)^(k-1) q, here
    with q^k and q free, so that rows may also leave late.
    """
    members = tuple(exits)
    shares = ratio ** np.arange(len(members) + 1, dtype=np.float64)
    wanted = shares / shares.sum() * table.level.shape[1]
    choice = list(closed(table))
    alive = np.ones(table.level.shape[1], bool)
    for exit, rows in zip(members, wanted[:-1]):
        level = table.level[exit]
        leaving = np.bincount(level[alive], minlength=len(table.cuts[exit]) + 1)[::-1].cumsum()[::-1][1:]
        offered = np.append(leaving, 0)
        cut = int(np.abs(offered - rows).argmin())
        if cut < len(leaving):
            choice[exit] = cut
            alive &= level <= cut
    return tuple(choice)


def alone(table: Table, aim: Aim) -> list[Outcome]:
    """The best cut of each exit when it is the only one."""
    single = ((exit, aim.best(along(table, closed(table), exit))) for exit in range(table.exits))
    return [evaluate(table, moved(table, closed(table), exit, cut)) for exit, cut in single]


def sweep(table: Table, aim: Aim) -> list[Outcome]:
    """Geometric shares over every subset of exits; beyond eight exits subsets grow by the exit that helps most."""
    if table.exits <= EXHAUSTIVE:
        subsets = (s for size in range(1, table.exits + 1) for s in combinations(range(table.exits), size))
        return [evaluate(table, choice) for subset in subsets for choice in _shares(table, subset)]
    found: list[Outcome] = []
    kept: tuple[int, ...] = ()
    best = evaluate(table, closed(table))
    while True:
        grown = [tuple(sorted({*kept, exit})) for exit in range(table.exits) if exit not in kept]
        tried = [evaluate(table, choice) for subset in grown for choice in _shares(table, subset)]
        found += tried
        if not tried or aim.pick([best, *tried]) is best:
            return found
        best = aim.pick(tried)
        kept = opened(best.choice)


def moved(table: Table, choice: Choice, exit: int, cut: int) -> Choice:
    """A choice with one exit at another cut; the number after the last cut drops it."""
    return (*choice[:exit], cut if cut < len(table.cuts[exit]) else OFF, *choice[exit + 1 :])


def opened(choice: Choice) -> tuple[int, ...]:
    """The exits that a choice keeps."""
    return tuple(exit for exit, cut in enumerate(choice) if cut != OFF)


def _shares(table: Table, subset: tuple[int, ...]) -> Iterator[Choice]:
    """The sweep over one subset; nothing when one of its exits answers worse than an earlier one."""
    means = table.quality[list(subset)].mean(1)
    if (np.diff(means) >= 0).all():
        yield from (geometric(table, subset, ratio) for ratio in RATIOS)


def refined(table: Table, start: Choice, aim: Aim) -> list[Outcome]:
    """Choices around `start`, the last of them the best found, with no exit that `start` has dropped.

    Cost and loss are weighed against each other (Everett, Operations Research 11, 1963), the weight halved into place
    until the bound just holds; then each exit goes as far as the bound lets it.
    """
    seen = [evaluate(table, start)]
    low, high = WEIGHTS
    choice = start
    for _ in range(8):
        weight = float(np.sqrt(low * high))
        seen.append(evaluate(table, choice := weighed(table, choice, opened(start), weight)))
        holds = not aim.excess(seen[-1])
        if holds == (aim.drop is not None):  # quality to spare, or cost too high
            high = weight
        else:
            low = weight
    return [*seen, _polished(table, aim.pick(seen).choice, opened(start), aim)]


def weighed(table: Table, choice: Choice, members: Sequence[int], weight: float) -> Choice:
    """Each of `members` in turn moved to where cost + weight * loss is least, until nothing moves."""

    def least(found: Outcomes) -> int:
        return int((found.cost / table.whole_ms + weight * found.drop).argmin())

    return _settled(table, choice, members, least)


def _polished(table: Table, choice: Choice, members: Sequence[int], aim: Aim) -> Outcome:
    return evaluate(table, _settled(table, choice, members, aim.best))


def _settled(table: Table, choice: Choice, members: Sequence[int], pick: Callable[[Outcomes], int]) -> Choice:
    for _ in range(ROUNDS):
        before = choice
        for exit in members:
            choice = moved(table, choice, exit, pick(along(table, choice, exit)))
        if choice == before:
            break
    return choice


def pruned(table: Table, best: Outcome, aim: Aim) -> tuple[Outcome, list[Outcome]]:
    """The choice without exits that do not earn their place, the rest refined again; and all that was tried."""
    tried: list[Outcome] = []
    while opened(best.choice):
        fewer: list[Outcome] = []
        for exit in opened(best.choice):
            fewer += refined(table, moved(table, best.choice, exit, OFF), aim)
        tried += fewer
        candidate = aim.pick(fewer)
        if not aim.nearly(candidate, best):
            break
        best = candidate
    return best, tried


def ladder(table: Table, choice: Choice) -> list[Outcome]:
    """Choices with the same exits, from the cheapest to the best."""
    return [evaluate(table, weighed(table, choice, opened(choice), weight)) for weight in np.geomspace(*WEIGHTS, 16)]
