"""Chooses the blocks that exits stand behind, by what it costs to get there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from edgewright.errors import RecipeError

SHARES = (0.3, 0.8)
"""Of the whole cost: where the first and the last exit are wanted."""
USUAL = 4
"""How many exits, where nobody says."""
SHALLOW = 6
"""Networks of fewer blocks get an exit for every second block."""
MOST = 12
"""Boundaries whose cost is measured; each is a graph to write and to run."""
WORTH = 0.05
"""What the end of a resolution is worth, as a share of the cost: maps there are small, and have seen most."""


def usual_exits(blocks: int) -> int:
    """How many exits a network of so many blocks gets, where nobody says."""
    return USUAL if blocks >= SHALLOW else max(1, blocks // 2)


def thinned(boundaries: Sequence[int]) -> tuple[int, ...]:
    """At most `MOST` of some boundaries, evenly; the ends stay."""
    if len(boundaries) <= MOST:
        return tuple(boundaries)
    step = (len(boundaries) - 1) / (MOST - 1)
    return tuple(boundaries[round(index * step)] for index in range(MOST))


def shares_of(costs: Sequence[float]) -> tuple[float, ...]:
    """What share of the whole it takes to get to the end of each piece but the last."""
    whole = sum(costs)
    return tuple(sum(costs[: stop + 1]) / whole for stop in range(len(costs) - 1))


def placed(shares: Sequence[float], exits: int, liked: Sequence[bool]) -> tuple[int, ...]:
    """The indices of `exits` of the boundaries whose `shares` of the cost lie closest to evenly spaced ones.

    Args:
        shares: of the whole cost, up to each boundary, rising.
        exits: how many are wanted; fewer come where there are fewer boundaries.
        liked: whether a boundary is worth a little more than its place says.
    """
    exits = min(exits, len(shares))
    low, high = SHARES
    wanted = [low + (high - low) * (index / (exits - 1) if exits > 1 else 0.5) for index in range(exits)]

    def distance(chosen: Sequence[int]) -> float:
        return sum(
            abs(shares[index] - share) - WORTH * liked[index] for index, share in zip(chosen, wanted, strict=True)
        )

    return min(combinations(range(len(shares)), exits), key=distance)


def checked_blocks(at: Sequence[int], possible: Sequence[int], blocks: int) -> tuple[int, ...]:
    """The numbers (from 1) of blocks that a user names, in order. Raises: RecipeError for others than `possible`."""
    for number in at:
        if number not in possible:
            allowed = ", ".join(map(str, possible))
            raise RecipeError(
                f"early-exit: at={number} is no block to leave behind; the network has {blocks} blocks, and exits "
                f"may stand after {allowed}"
            )
    return tuple(sorted(set(at)))
