"""What products of signs are computed, and how they are cut into blocks, planes and tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from edgewright_exporters.kernels.tiles import Blocks, Tile, blocks_of
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.isa import Isa

CACHE = 16 * 1024
"""Bytes of packed keys in a block: half of a small first cache."""

MOST = 127
"""Numbers of a head whose sum of signs always fits a signed byte; longer ones are summed in pieces."""

WORD = 32
"""Numbers whose bits are packed together. They need not lie in order: those of queries and keys lie alike."""

PIECE = 3 * WORD
"""Numbers in a piece."""

TOGETHER = 64
"""Queries that are packed before the first of them is multiplied: one alone would wait for its bits."""


@dataclass(frozen=True)
class HammingCase:
    """What is computed, for `batch` sequences of `queries` and `keys` tokens and `heads` heads of `size` each.

    Element i of a token is number `offset + b * batch + h * head + t * token + i` of an array of `values` float32, and
    `q` and `k` say (values, offset, batch, head, token) of theirs. The result is [batch, heads, queries, keys]. Without
    `scaled`, scales are ones.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    size: int
    q: tuple[int, int, int, int, int]
    k: tuple[int, int, int, int, int]
    scaled: bool = False

    @property
    def words(self) -> Sequence[int]:
        """How many numbers each word of a token holds."""
        return [min(WORD, self.size - start) for start in range(0, self.size, WORD)]

    @property
    def pieces(self) -> Sequence[range]:
        """The words of each piece of a head."""
        count, most = len(self.words), PIECE // WORD
        return [range(count)] if self.size <= MOST else [range(count)[at : at + most] for at in range(0, count, most)]


@dataclass(frozen=True)
class Plan:
    """How a case is cut: `width` keys are a vector, and each byte of a word is one plane, or two of four bits."""

    case: HammingCase
    tile: Tile
    isa: Isa

    @property
    def width(self) -> int:
        return 4 * self.isa.lanes

    @property
    def counts(self) -> bool:
        """Whether bits are counted, not looked up.

        Those of a single key are looked up on x86: TVM 0.27's LLVM leaves out a zero where of 64 counts one is used.
        """
        return self.isa.counts and (self.case.keys > 1 or self.isa.machine != "x86_64")

    @property
    def halves(self) -> int:
        """How many planes a byte is: half of it is the place in a table."""
        return 1 if self.counts else 2

    @property
    def slots(self) -> int:
        """How many bytes of planes are set aside for each token."""
        return 4 * self.halves * len(self.case.words)

    @property
    def rows(self) -> Blocks:
        """Blocks of queries."""
        return blocks_of(self.case.queries, max(TOGETHER, self.tile.rows))

    @property
    def blocks(self) -> Blocks:
        """Blocks of vectors of keys."""
        fitting = max(2 * self.tile.vectors, CACHE // (self.slots * self.width))
        return blocks_of(self.vectors, fitting)

    @property
    def vectors(self) -> int:
        """Vectors of all keys."""
        return ceil(self.case.keys / self.width)

    @property
    def overlap(self) -> int:
        """How many keys of the last vector are also in the one before it."""
        return self.vectors * self.width - self.case.keys if self.vectors > 1 else 0

    def slot(self, word: Any, byte: int, half: int) -> Any:
        """Where a plane lies among those of a token."""
        return (word * self.halves + half) * 4 + byte

    def start(self, vector: Any) -> Any:
        """The first key of a vector. The last one ends with the last key, and may overlap the one before it."""
        return builder.least(vector * self.width, max(0, self.case.keys - self.width))


@dataclass(frozen=True)
class Kernel:
    """What every part of the function being written needs to know; `keys` and `queries` are the packed ones.

    Planes of keys lie as [vector][slot][key], in the order of keys in which `hamming_signs.parted` leaves them, bytes
    of queries as [query][slot].
    """

    plan: Plan
    buffers: dict[str, Any]
    keys: Any
    queries: Any


@dataclass(frozen=True)
class Spot:
    """`rows` queries of a `head`, counted through all sequences, from `row` on, and `vectors` of keys from `first`."""

    head: Any
    row: Any
    rows: int
    first: Any
    vectors: int
