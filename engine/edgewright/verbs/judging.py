"""Conditions on a comparison, such as `latency>+3%`: held against the whole interval, so that noise fails nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgewright.errors import RecipeError, suggest

QUANTITIES = ("latency", "energy", "memory", "size", "accuracy")

FAILED, HELD, UNDECIDED = "failed", "held", "undecided"

Interval = tuple[float, float]


@dataclass(frozen=True)
class Condition:
    """`latency>+3%`: fails when the second is more than 3 % above the first, at every point of the interval.

    `change` is a share of the first; of accuracy it is a share of the metric's full scale.
    """

    text: str
    quantity: str
    above: bool
    change: float

    def outcome(self, change: Interval) -> str:
        """FAILED or HELD where the whole interval lies on one side, else UNDECIDED."""
        low, high = change if self.above else (-change[1], -change[0])
        limit = self.change if self.above else -self.change
        return FAILED if low > limit else HELD if high <= limit else UNDECIDED


@dataclass(frozen=True)
class Judged:
    """What came of a condition, and a sentence with the change that was seen."""

    condition: str
    outcome: str
    sentence: str


def parse_condition(text: str) -> Condition:
    """Raises: RecipeError with an example that works."""
    match = re.fullmatch(r"\s*(\w+)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*%\s*", text)
    if not match:
        raise RecipeError(f'--fail-if {text!r} is no condition; write "latency>+3%"')
    if match[1] not in QUANTITIES:
        raise RecipeError(f"--fail-if {text!r}: no quantity {match[1]!r}; {suggest(match[1], QUANTITIES)}")
    return Condition(text.strip(), match[1], match[2] == ">", float(match[3]) / 100)


def judge(
    conditions: Iterable[Condition], changes: Mapping[str, Interval], reasons: Mapping[str, str]
) -> tuple[Judged, ...]:
    """What came of each condition; one whose quantity is not known is undecided, for the reason."""
    return tuple(_judged(each, changes.get(each.quantity), reasons.get(each.quantity, "")) for each in conditions)


def change_text(change: Interval) -> str:
    """`+1.2% to +2.0%`, or one value where there is no interval."""
    low, high = change
    return f"{low:+.1%}" if low == high else f"{low:+.1%} to {high:+.1%}"


def _judged(condition: Condition, change: Interval | None, reason: str) -> Judged:
    if change is None:
        why = f"{condition.quantity} is not known: {reason}" if reason else f"{condition.quantity} is not known"
        return Judged(condition.text, UNDECIDED, why)
    outcome = condition.outcome(change)
    seen = f"{condition.quantity} changed by {change_text(change)}"
    both = f": the limit of {100 * condition.change:+.4g}% lies inside, measure longer" if outcome == UNDECIDED else ""
    return Judged(condition.text, outcome, seen + both)
