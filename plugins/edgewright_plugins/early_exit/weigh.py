"""Decides where exits stand: the user says it, or what it costs to get behind each block does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from edgewright.errors import RefusedError
from edgewright.protocols import Context
from edgewright.torchkit.anatomy import Anatomy, Block
from edgewright.types import Model
from edgewright_plugins.early_exit.build import cut
from edgewright_plugins.early_exit.choice import Choice
from edgewright_plugins.early_exit.place import checked_blocks, placed, shares_of, thinned, usual_exits
from edgewright_plugins.early_exit.side import Cut

Places = tuple[tuple[int, ...], tuple[float, ...]]
"""Numbers of blocks, from 1, and the share of the whole cost up to the end of each, where it is known."""


def places(model: Model, anatomy: Anatomy, choice: Choice, context: Context) -> Places:
    """The blocks to leave behind.

    Raises: RefusedError when the network has no block to leave behind; RecipeError when the user names one that is not.
    """
    blocks, params = anatomy.blocks, choice.params
    possible = [number for number, block in enumerate(blocks[:-1], 1) if block.calls == 1]
    if not possible or blocks[-1].calls > 1:
        raise RefusedError(f"{model.name} has no block to leave behind: it has {len(blocks)}, or runs one repeatedly")
    if params.at:
        return checked_blocks(params.at, possible, len(blocks)), ()
    exits = params.exits or usual_exits(len(blocks))
    if exits >= len(possible):
        return tuple(possible), ()
    numbers = thinned(possible)
    shares = _shares(model, replace(choice, family="linear", cuts=cuts_behind(blocks, numbers)), context)
    chosen = placed(shares, exits, [_ends_resolution(blocks, number) for number in numbers])
    return tuple(numbers[index] for index in chosen), tuple(round(shares[index], 3) for index in chosen)


def cuts_behind(blocks: Sequence[Block], numbers: Sequence[int]) -> tuple[Cut, ...]:
    """The cuts behind the blocks of these numbers, from 1."""
    return tuple(Cut(blocks[number - 1].end) for number in numbers)


def _shares(model: Model, everywhere: Choice, context: Context) -> tuple[float, ...]:
    """The share of the cost up to each of the cuts, in the running chain that has plain exits at all of them."""

    def measured() -> list[float]:
        context.progress(f"finding what it costs to get behind each of {len(everywhere.cuts)} blocks")
        return [cost.median_ms for cost in context.stage_costs(cut(model, everywhere))]

    costs = context.remember(f"costs of {everywhere.cuts}", lambda: [*measured()])
    return shares_of(cast("Sequence[float]", costs))


def _ends_resolution(blocks: Sequence[Block], number: int) -> bool:
    block = blocks[number - 1]
    return block.kind == "conv" and blocks[number].stage != block.stage
