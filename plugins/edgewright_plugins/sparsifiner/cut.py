"""How the tokens of an attention are cut: queries into tiles, keys into blocks, and how many blocks a tile sees."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from edgewright.errors import RecipeError

TILE, BLOCK = 16, 8
"""What fills vectors and registers of a kernel: 16 queries, 8 keys."""


@dataclass(frozen=True)
class Cut:
    """`tokens` in tiles of `tile` queries, each of which sees `kept` blocks of `block` keys.

    The first `prefix` tokens (class tokens) see all: the tiles they are in do. All see them: their blocks are among
    the kept ones.
    """

    tokens: int
    prefix: int
    tile: int
    block: int
    kept: int

    @property
    def tiles(self) -> int:
        """How many; the last one may be smaller."""
        return ceil(self.tokens / self.tile)

    @property
    def blocks(self) -> int:
        """How many; the last one may be smaller."""
        return ceil(self.tokens / self.block)

    @property
    def dense(self) -> int:
        """How many of the first tiles see all."""
        return ceil(self.prefix / self.tile)

    @property
    def seen(self) -> int:
        """How many of the first blocks all see."""
        return ceil(self.prefix / self.block)

    def share(self, kept: int) -> float:
        """Of all pairs of tokens, the most that tiles compute which see `kept` blocks."""
        whole = min(self.tokens, self.dense * self.tile)
        few = min(self.tokens, kept * self.block)
        return (whole * self.tokens + (self.tokens - whole) * few) / self.tokens**2


def cut_for(tokens: int, prefix: int, keep: float, tile: int = 0, block: int = 0) -> Cut:
    """The cut that computes as many pairs as `keep` allows.

    Raises: RecipeError where the least that can be computed is more.
    """
    tile, block = tile or min(TILE, max(1, tokens // 4)), block or min(BLOCK, max(1, tokens // 8))
    cut = Cut(tokens, prefix, min(tile, tokens), min(block, tokens), 0)
    least = max(1, cut.seen)
    fitting = [kept for kept in range(least, cut.blocks + 1) if cut.share(kept) <= keep]
    if not fitting:
        raise RecipeError(
            f"sparsifiner: keep={keep:g} cannot be met; of {tokens} tokens, {cut.share(least):.2f} of the pairs are "
            f"the least in tiles of {cut.tile} queries and blocks of {cut.block} keys: ask for more than that, or for "
            "smaller ones"
        )
    return Cut(cut.tokens, cut.prefix, cut.tile, cut.block, fitting[-1])
