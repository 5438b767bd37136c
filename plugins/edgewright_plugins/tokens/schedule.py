"""Where tokens become fewer, and how many stay: said by the user, or one of a family that is searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from edgewright.errors import RecipeError
from edgewright_plugins.tokens.settings import Scheduled

if TYPE_CHECKING:
    from edgewright_plugins.tokens.shape import Shape

FEWEST = 4
"""Tokens that searched schedules keep at least."""
STAGES = 3
"""How often searched schedules halve the tokens at most, as in the paper's networks."""


@dataclass(frozen=True)
class Schedule:
    """After which blocks (numbers from 1, rising) how many tokens stay (falling); prefix tokens are not counted."""

    at: tuple[int, ...]
    keep: tuple[int, ...]

    def counts(self, tokens: int, blocks: int) -> list[int]:
        """How many tokens each block works on."""
        stay = dict(zip(self.at, self.keep, strict=True))
        found = [tokens]
        for number in range(1, blocks):
            found.append(stay.get(number, found[-1]))
        return found

    def work(self, tokens: int, blocks: int) -> int:
        """Tokens times blocks: by this schedules are ordered, from the mildest to the strongest."""
        return sum(self.counts(tokens, blocks))

    def told(self, tokens: int) -> str:
        """In words."""
        steps = (f"{count} after block {number}" for number, count in zip(self.at, self.keep, strict=True))
        return f"{tokens} tokens, {', '.join(steps)}"


def said(at: Sequence[int], keep: Sequence[int], tokens: int, blocks: int, method: str) -> Schedule:
    """The schedule of a user who names blocks, counts, or both: evenly spaced, or halved each time.

    Raises: RecipeError for blocks and counts that do not fit each other or the network.
    """
    at = tuple(at) or tuple(round(blocks * number / (len(keep) + 1)) for number in range(1, len(keep) + 1))
    keep = tuple(keep) or tuple(tokens >> number for number in range(1, len(at) + 1))
    if len(at) != len(keep):
        raise RecipeError(f"{method}: at names {len(at)} blocks and keep {len(keep)} counts; give one count per block")
    if not all(0 < one < other for one, other in pairwise((*at, blocks))) or at[0] < 1:
        raise RecipeError(
            f"{method}: at={'+'.join(map(str, at))} does not fit; the network has {blocks} blocks, and tokens may "
            f"become fewer after 1 to {blocks - 1}, in rising order"
        )
    if not all(one > other >= 1 for one, other in pairwise((tokens, *keep))):
        raise RecipeError(
            f"{method}: keep={'+'.join(map(str, keep))} does not fit; the network has {tokens} tokens beside those "
            "that stand for no part of the input, and fewer must stay each time, at least 1"
        )
    return Schedule(at, keep)


def named(method: str, params: Scheduled, shape: Shape) -> Schedule | None:
    """The schedule of a user who says something of it. Raises: RecipeError."""
    if not params.keep and not params.at:
        return None
    return said(params.at, params.keep, shape.tokens, len(shape.blocks), method)


def halving(tokens: int, blocks: int) -> list[Schedule]:
    """Schedules that halve the tokens up to `STAGES` times, at equal distances."""
    found: list[Schedule] = []
    for stages in range(1, STAGES + 1):
        keep = tuple(tokens >> number for number in range(1, stages + 1))
        if keep[-1] >= FEWEST:
            found += [Schedule(at, keep) for at in _spaced(stages, blocks)]
    return found


def _spaced(stages: int, blocks: int) -> Iterator[tuple[int, ...]]:
    for first in range(1, blocks):
        for step in range(1, (blocks - 1 - first) // (stages - 1) + 1 if stages > 1 else 2):
            yield tuple(first + step * number for number in range(stages))


def steady(tokens: int, blocks: int, choices: int = 10) -> list[Schedule]:
    """Schedules that leave out as many tokens after every block, or every second or third (ToMe: after every one)."""
    found: list[Schedule] = []
    for every in (1, 2, 3):
        at = tuple(range(every, blocks, every))
        most = (tokens - FEWEST) // max(len(at), 1)
        for share in range(1, choices + 1):
            fewer = most * share // choices
            if at and fewer:
                found.append(Schedule(at, tuple(tokens - fewer * number for number in range(1, len(at) + 1))))
    return list(dict.fromkeys(found))
