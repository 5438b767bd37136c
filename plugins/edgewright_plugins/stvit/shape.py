"""Which blocks of a network can work on semantic tokens: those of a global transformer, or of a stage of windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isqrt, prod
from typing import Any

from torch import Tensor, nn

from edgewright.errors import RefusedError
from edgewright.torchkit.anatomy import Anatomy, Block, TokenGrid, examine
from edgewright.torchkit.anatomy.record import record
from edgewright_plugins.stvit.instead import Form, forms_of
from edgewright_plugins.tokens.shape import Shape, shape_of


@dataclass(frozen=True)
class Semantic(Shape):
    """A shape, and in which forms its blocks give their tokens."""

    forms: Mapping[str, Form] = field(default_factory=dict[str, Form])

    @property
    def places(self) -> tuple[int, ...]:
        """The sizes along which the tokens lie."""
        return self.grid or (self.tokens,)

    @property
    def windows(self) -> int:
        """How many."""
        return self.tokens // prod(self.window or self.places)


def semantic_shape(module: nn.Module, example: Sequence[Tensor], said: Mapping[str, Any], name: str) -> Semantic:
    """The blocks that follow one another on equal tokens. Raises: RefusedError where no tokens can be left out."""
    shape = _shape(module, example, said, name)
    own = {each.name: getattr(shape, each.name) for each in fields(Shape)}
    return Semantic(**own, forms=forms_of(module, [block.path for block in shape.blocks], example))


def _shape(module: nn.Module, example: Sequence[Tensor], said: Mapping[str, Any], name: str) -> Shape:
    anatomy = examine(module, example, said)
    keys = keys_seen(module, example, anatomy.blocks)
    if len(anatomy.stages) == 1 and all(seen == anatomy.stages[0].count for seen in keys.values()):
        shape = shape_of(module, example, said, name)
        if any(block.path != block.end for block in shape.blocks):
            raise RefusedError(
                f"the blocks of {name} are no modules of their own, which others could stand in for; use token-slim"
            )
        return shape
    return _windowed(anatomy, keys, name)


def keys_seen(module: nn.Module, example: Sequence[Tensor], blocks: Sequence[Block]) -> dict[str, int]:
    """How many tokens each one looks at in a block, by the block's path."""
    attends = record(module, example).attends
    queries = {block.path: block.attention.query for block in blocks if block.attention}
    return {
        path: max(each.scores[-1] for each in attends if query in each.query)
        for path, query in queries.items()
        if any(query in each.query for each in attends)
    }


def _windowed(anatomy: Anatomy, keys: Mapping[str, int], name: str) -> Shape:
    """The longest stage of windows, the first of equals: what follows it gets all of its tokens again."""
    found: list[tuple[TokenGrid, tuple[Block, ...]]] = []
    for number, stage in enumerate(anatomy.stages):
        blocks = tuple(block for block in anatomy.blocks if block.stage == number)
        if stage.layout in ("tokens", "map_last") and stage.grid and not stage.prefix and _fit(blocks, keys):
            found.append((stage, blocks))
    if not found:
        sizes = ", ".join(f"{each.count} positions as {each.layout}" for each in anatomy.stages)
        raise RefusedError(
            f"no blocks of {name} can work on semantic tokens: there must be two or more in a row, each with an "
            f"attention, on tokens along a known grid ({sizes}); quantize and early-exit take such networks"
        )
    stage, blocks = max(found, key=lambda each: len(each[1]))
    grid = stage.grid or ()
    return Shape(blocks, stage.count, 0, stage.width, grid, "each", _window(grid, keys[blocks[0].path]))


def _fit(blocks: Sequence[Block], keys: Mapping[str, int]) -> bool:
    single = all(block.path in keys and block.calls == 1 and block.path == block.end for block in blocks)
    return len(blocks) > 1 and single


def _window(grid: Sequence[int], keys: int) -> tuple[int, ...]:
    """The sides of a window of so many tokens; the whole grid where such windows do not fill it."""
    side = isqrt(keys)
    return (side, side) if side * side == keys and all(size % side == 0 for size in grid) else tuple(grid)
