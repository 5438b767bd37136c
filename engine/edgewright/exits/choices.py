"""Choices of thresholds on a grid of cuts: what each costs and loses, all cuts of one exit at once.

A cut lies between two scores that were seen. At most `CUTS` are kept per exit, at even quantiles: finer ones fit the
noise of single examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright.types import Array

CUTS = 48
OFF = int(np.iinfo(np.int16).max)
"""In a choice: the exit is dropped, its stage merged into the next one."""

Choice = tuple[int, ...]
"""For each exit the number of its cut; the higher, the fewer rows leave."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """What is known of a chain of K gated stages and a last one, on n examples.

    `cuts` are each exit's thresholds, ascending; `level` [K, n] says how many of them a score reaches, so that a row
    leaves at cut c when its level is above c. `quality` [K + 1, n]; `stages` [K + 1] and `saved` [K] are in ms.
    """

    cuts: tuple[npt.NDArray[np.float32], ...]
    level: npt.NDArray[np.int16]
    quality: Floats
    stages: Floats
    saved: Floats

    @property
    def exits(self) -> int:
        """How many exits there are before the final answer."""
        return len(self.cuts)

    @property
    def whole_ms(self) -> float:
        """What every row costs when no exit is open."""
        return float(self.stages.sum() - self.saved.sum())


@dataclass(frozen=True)
class Outcome:
    """What a choice costs on average (ms), loses against the final answer (share of full scale), and how surely."""

    choice: Choice
    cost: float
    drop: float
    error: float


@dataclass(frozen=True, eq=False)
class Outcomes:
    """As `Outcome`, for several choices; every array is [choices]."""

    cost: Floats
    drop: Floats
    error: Floats


def tabulate(scores: Array, quality: Array, stages: Sequence[float], saved: Sequence[float]) -> Table:
    """The table of scores [K, n] and quality [K + 1, n]. Raises: ValueError when sizes do not fit together."""
    scores = np.asarray(scores, np.float32)
    exits, n = scores.shape
    if n == 0:
        raise ValueError("thresholds need at least one example")
    if np.shape(quality) != (exits + 1, n) or len(stages) != exits + 1 or len(saved) != exits:
        raise ValueError(f"{exits} exits: quality {np.shape(quality)}, {len(stages)} costs, {len(saved)} savings")
    cuts = tuple(cuts_of(each) for each in scores)
    level = np.stack([_levels(each, cut) for each, cut in zip(scores, cuts)]) if exits else np.zeros((0, n))
    return Table(cuts, level.astype(np.int16), *(np.asarray(each, np.float64) for each in (quality, stages, saved)))


def cuts_of(scores: Array, most: int = CUTS) -> npt.NDArray[np.float32]:
    """Thresholds between scores that were seen, ascending; the lowest is the lowest score itself: all of them leave.

    Equal scores are never parted. Scores that are not finite never reach a cut, or always do (+inf).
    """
    seen = np.sort(scores[np.isfinite(scores)])
    if len(seen) == 0:
        return np.zeros(0, np.float32)
    values = np.unique(seen)
    at = np.unique(seen[np.linspace(0, len(seen) - 1, most).round().astype(int)])
    below = values[np.maximum(np.searchsorted(values, at) - 1, 0)]
    middle = ((below.astype(np.float64) + at) / 2).astype(np.float32)
    return np.where(middle > below, middle, at)  # neighbours in float32 have no middle


def evaluate(table: Table, choice: Choice) -> Outcome:
    """What a choice costs and loses."""
    taken = taken_exits(table, choice)
    cost = float(arrival(table, choice)[taken].mean())
    lost = table.quality[-1] - table.quality[taken, np.arange(len(taken))]
    drop, error = mean_and_error(lost.sum(), np.square(lost).sum(), len(lost))
    return Outcome(choice, cost, float(drop), float(error))


def taken_exits(table: Table, choice: Choice) -> npt.NDArray[np.intp]:
    """The exit at which each row leaves [n]; K is the final answer."""
    left = table.level > np.array(choice, np.int16)[:, None]
    return first_true(left)


def first_true(left: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """The first row of `left` [m, n] that holds, per column; m where none does."""
    if len(left) == 0:
        return np.zeros(left.shape[1], np.intp)
    return np.where(left.any(0), left.argmax(0), len(left))


def arrival(table: Table, choice: Choice) -> Floats:
    """The time from the start to each exit [K + 1], in the chain whose dropped exits are merged away."""
    total = np.cumsum(table.stages)
    total[1:] -= np.cumsum(np.where(np.array(choice, np.int16) == OFF, table.saved, 0.0))
    return total


def along(table: Table, choice: Choice, exit: int) -> Outcomes:
    """Every cut of one exit, the others staying as they are; dropping it comes last. Arrays of [cuts + 1]."""
    opened = (*choice[:exit], 0, *choice[exit + 1 :])
    left = table.level > np.array(opened, np.int16)[:, None]
    rows = np.flatnonzero(~left[:exit].any(0))
    onward = first_true(left[exit + 1 :])[rows] + exit + 1
    here, there = table.quality[exit, rows], table.quality[onward, rows]
    final, reach = table.quality[-1, rows], arrival(table, opened)
    spent, lost, squares = _without(table, choice, exit)
    level, cuts = table.level[exit, rows], len(table.cuts[exit])
    cost = spent + _above(level, reach[exit] - reach[onward], cuts)
    cost[:-1] += table.saved[exit] * len(rows)  # open, it costs its head, whoever leaves
    drop, error = mean_and_error(
        lost + _above(level, there - here, cuts),
        squares + _above(level, np.square(final - here) - np.square(final - there), cuts),
        table.level.shape[1],
    )
    return Outcomes(cost / table.level.shape[1], drop, error)


def mean_and_error(total: Array | float, squares: Array | float, n: int) -> tuple[Array, Array]:
    """The mean of n values and its standard error, from their sum and their sum of squares."""
    mean = np.asarray(total) / n
    variance = np.maximum(np.asarray(squares) / n - np.square(mean), 0.0)
    return mean, np.sqrt(variance / max(n - 1, 1))


def _without(table: Table, choice: Choice, exit: int) -> tuple[float, float, float]:
    """Cost, loss and squared loss, summed over all rows, once `exit` is dropped."""
    dropped = (*choice[:exit], OFF, *choice[exit + 1 :])
    taken = taken_exits(table, dropped)
    lost = table.quality[-1] - table.quality[taken, np.arange(len(taken))]
    return float(arrival(table, dropped)[taken].sum()), float(lost.sum()), float(np.square(lost).sum())


def _above(level: npt.NDArray[np.int16], weights: Floats, cuts: int) -> Floats:
    """The sum of `weights` over the rows whose level is above each cut, and 0 for no cut at all: [cuts + 1]."""
    sums = np.bincount(level, weights, minlength=cuts + 1)[::-1].cumsum()[::-1]
    return np.append(sums[1:], 0.0)


def _levels(scores: Array, cuts: Array) -> npt.NDArray[np.int16]:
    reached = np.searchsorted(cuts, scores, side="right")
    return np.where(np.isnan(scores), 0, reached).astype(np.int16)
