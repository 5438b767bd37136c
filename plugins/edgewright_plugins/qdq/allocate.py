"""Which option each layer takes: the least sum of losses within a budget, solved exactly as an integer programme."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp

from edgewright.errors import RecipeError
from edgewright.types import Array

Table = Sequence[Sequence[float]]
"""A number for each layer and option; layers may have different numbers of options."""
Choice = tuple[int, ...]
"""The position of the option that each layer takes."""
SPREAD = 1e6
"""The largest loss as the solver sees it: its absolute tolerance of 1e-6 is then a share of 1e-12."""
REFUSED = 50
"""How many solutions that break the budget within the solver's tolerance are tried again."""


@dataclass(frozen=True)
class Pair:
    """A cost (or a saving, below 0) that counts when two layers both take the named options.

    `first` and `other` are (layer, option).
    """

    first: tuple[int, int]
    other: tuple[int, int]
    cost: float


def allocate(losses: Table, costs: Table, budget: float, *, pairs: Sequence[Pair] = ()) -> Choice:
    """The choice with the least sum of losses whose costs, pairs included, are within the budget.

    Integer programming (I. Hubara et al., Improving Post Training Neural Quantization, arXiv 2006.10518, eq. 9): binary
    x[l, o] with sum_o x[l, o] = 1, minimise sum x * loss subject to sum x * cost <= budget. A pair adds y = x * x',
    linear as y <= x, y <= x', y >= x + x' - 1.

    Raises: RecipeError when no choice is within the budget, with the least budget that some choice meets.
    """
    programme = _Programme(losses, costs, pairs)
    scale = SPREAD / max(float(np.max(np.abs(programme.losses), initial=0.0)), 1e-300)
    refused: list[Choice] = []
    while len(refused) < REFUSED:
        choice = programme.solve(programme.losses * scale, budget, refused)
        if choice is None:
            break
        if cost_of(choice, costs, pairs) <= budget:
            return choice
        refused.append(choice)
    cheapest = programme.solve(programme.costs, None, ())
    least = cost_of(cheapest, costs, pairs) if cheapest is not None else float("nan")
    raise RecipeError(f"no choice of options costs {budget:.6g} or less; the cheapest costs {least:.6g}, so allow that")


def cost_of(choice: Choice, costs: Table, pairs: Sequence[Pair] = ()) -> float:
    """What a choice costs, pairs included."""
    taken = set(enumerate(choice))
    alone = sum(costs[layer][option] for layer, option in taken)
    return alone + sum(pair.cost for pair in pairs if {pair.first, pair.other} <= taken)


@dataclass(frozen=True, eq=False)
class _Programme:
    """The variables are all x[l, o], layer by layer, and then one y per pair."""

    loss_table: Table
    cost_table: Table
    pairs: Sequence[Pair]

    @property
    def starts(self) -> list[int]:
        """The position of each layer's first option; one more at the end."""
        return [0, *np.cumsum([len(row) for row in self.cost_table]).tolist()]

    @property
    def losses(self) -> npt.NDArray[np.float64]:
        """Of each variable."""
        return np.array([*(loss for row in self.loss_table for loss in row), *(0.0 for _ in self.pairs)])

    @property
    def costs(self) -> npt.NDArray[np.float64]:
        """Of each variable."""
        return np.array([*(cost for row in self.cost_table for cost in row), *(pair.cost for pair in self.pairs)])

    def solve(self, objective: Array, budget: float | None, refused: Sequence[Choice]) -> Choice | None:
        """The choice with the least objective that is none of the refused; None when there is none."""
        if not self.cost_table:
            return () if budget is None or budget >= 0 else None
        binary = np.zeros(len(objective))
        binary[: self.starts[-1]] = 1
        limits = [*self._one_each(), *self._both(), *(self._not(choice) for choice in refused)]
        if budget is not None:
            limits.append(LinearConstraint(self.costs[None], -np.inf, budget))
        found = milp(
            objective, integrality=binary, bounds=Bounds(0, 1), constraints=limits, options={"mip_rel_gap": 0.0}
        )
        if found.x is None:
            return None
        starts = self.starts
        return tuple(int(np.argmax(found.x[a:b])) for a, b in zip(starts, starts[1:]))

    def _one_each(self) -> Iterator[LinearConstraint]:
        for start, end in zip(self.starts, self.starts[1:]):
            yield LinearConstraint(self._row({i: 1.0 for i in range(start, end)}), 1, 1)

    def _both(self) -> Iterator[LinearConstraint]:
        for position, pair in enumerate(self.pairs, self.starts[-1]):
            first, other = (self.starts[layer] + option for layer, option in (pair.first, pair.other))
            yield LinearConstraint(self._row({position: 1.0, first: -1.0}), -np.inf, 0)
            yield LinearConstraint(self._row({position: 1.0, other: -1.0}), -np.inf, 0)
            yield LinearConstraint(self._row({position: 1.0, first: -1.0, other: -1.0}), -1, np.inf)

    def _not(self, choice: Choice) -> LinearConstraint:
        taken = {start + option: 1.0 for start, option in zip(self.starts, choice)}
        return LinearConstraint(self._row(taken), 0, len(choice) - 1)

    def _row(self, entries: dict[int, float]) -> npt.NDArray[np.float64]:
        row = np.zeros((1, self.starts[-1] + len(self.pairs)))
        row[0, list(entries)] = list(entries.values())
        return row
