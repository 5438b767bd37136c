"""What is done with vectors beside arithmetic: rows that end inside one, results across lanes, transposed blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgewright_exporters.tir import builder


def fitting(lanes: int, size: int) -> int:
    """The most lanes, a power of two and at most `lanes`, that a row of `size` elements fills at least once."""
    while lanes > size:
        lanes //= 2
    return lanes


def along(size: int, lanes: int, step: Callable[[Any, int, int], None], *, unroll: int = 4) -> None:
    """Writes `step(at, slot, fresh)` for vectors that cover a row of `size` elements, of which there are >= `lanes`.

    `slot` counts the vectors of one turn of the loop (0 to `unroll` - 1), for accumulators of their own. The last
    vector may overlap the one before it: only its `fresh` last lanes are new.
    """
    turn = unroll * lanes
    whole = size // turn * turn
    if whole:
        with builder.loop(0, size // turn) as turns:
            for slot in range(unroll):
                step(turns * turn + slot * lanes, slot, lanes)
    for slot, at in enumerate(range(whole, size, lanes)):
        fresh = min(lanes, size - at)
        step(at - (lanes - fresh), slot, fresh)


def freshly(value: Any, other: Any, lanes: int, fresh: int) -> Any:
    """`value` in the last `fresh` lanes, `other` in those that an earlier vector covered already."""
    if fresh == lanes:
        return value
    return builder.choose([lane >= lanes - fresh for lane in range(lanes)], value, other)


def folded(parts: Sequence[Any], combine: Callable[[Any, Any], Any]) -> Any:
    """All of `parts` combined to one, two by two, so that few wait for one another."""
    while len(parts) > 1:
        odd = parts[len(parts) // 2 * 2 :]
        parts = [*(combine(left, right) for left, right in zip(parts[::2], parts[1::2])), *odd]
    return parts[0]


def across(vector: Any, lanes: int, combine: Callable[[Any, Any], Any]) -> Any:
    """One number: the lanes of `vector` combined two by two. A scratch of `lanes` floats is allocated."""
    if lanes == 1:
        return vector
    spread = builder.registers(lanes, "float32")
    builder.store(spread, 0, vector, lanes)
    half = lanes // 2
    while half:
        both = combine(builder.load(spread, 0, half), builder.load(spread, half, half))
        builder.store(spread, 0, both, half)
        half //= 2
    return spread[0]


def zipped(first: Any, second: Any, count: int, block: int) -> Sequence[Any]:
    """The lower, then the upper halves of all blocks of two vectors of `count` lanes, element by element."""
    first, second = builder.held(first), builder.held(second)
    halves = [range(half, half + block // 2) for half in (0, block // 2)]
    places = [[start + at for start in range(0, count, block) for at in half] for half in halves]
    return [
        builder.held(builder.shuffle((first, second), [at + off for at in each for off in (0, count)]))
        for each in places
    ]


def transposed(block: Any, lanes: int) -> None:
    """Writes the transposition, in place, of a buffer of `lanes` vectors of `lanes` floats.

    log2(lanes) rounds: in each, two vectors `distance` apart swap the groups of `distance` lanes off the diagonal.
    """
    distance = lanes // 2
    while distance:
        first, second = _swapped(lanes, distance)
        for row in range(lanes):
            if row & distance == 0:
                low, high = row * lanes, (row + distance) * lanes
                pair = [builder.load(block, low, lanes), builder.load(block, high, lanes)]
                _store_both(block, (low, high), (builder.shuffle(pair, first), builder.shuffle(pair, second)), lanes)
        distance //= 2


def _swapped(lanes: int, distance: int) -> tuple[Sequence[int], Sequence[int]]:
    """Which lanes of two vectors, counted through both, the two results take."""
    first = [lane if lane & distance == 0 else lane - distance + lanes for lane in range(lanes)]
    return first, [lane + distance if lane & distance == 0 else lane + lanes for lane in range(lanes)]


def _store_both(block: Any, places: tuple[int, int], values: tuple[Any, Any], lanes: int) -> None:
    """Stores two values, both of which are computed before either is stored."""
    held = [builder.held(value) for value in values]
    for place, value in zip(places, held):
        builder.store(block, place, value, lanes)
