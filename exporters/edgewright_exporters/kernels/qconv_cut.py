"""What a convolution of bytes is, and how its work is cut: panels of filters, strips of rows, steps of the depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from edgewright_exporters.kernels.dot import Dot, dot_of_gathered
from edgewright_exporters.kernels.tiles import Blocks, blocks_of
from edgewright_exporters.kernels.window import Window
from edgewright_exporters.tir.isa import Isa

STACK = 48 * 1024
"""Bytes of gathered rows that an item keeps on the stack, unless those of one row of the result are more."""

GROUP = 96 * 1024
"""Bytes of weights that an item goes through for each of its rows, unless one panel has more."""


@dataclass(frozen=True)
class QConvCase:
    """Everything that decides what code a kernel is; zero points and scales are constants that it reads.

    `takes` and `gives` are the types of x and y. Weights are int8, one scale per filter. Only float32 results have an
    activation (none, relu, relu6 or gelu). A relu before bytes is a matter of their zero point, or of a `clip`, which
    holds y between two codes. `residual` is the type of bytes that are added, empty where there are none. `gentle` says
    that `dot.gentle` holds for the weights along their channels, which x86 without a dot product multiplies faster;
    elsewhere it changes nothing.
    """

    batch: int
    channels: int
    filters: int
    window: Window
    takes: str = "uint8"
    gives: str = "uint8"
    activation: str = "none"
    clip: bool = False
    residual: str = ""
    gentle: bool = False


@dataclass(frozen=True)
class QConvTile:
    """How: `pixels` x `vectors` vectors of sums in registers; `wide` weights are stored as int16 for `dot.words`."""

    pixels: int
    vectors: int
    wide: bool = False


@dataclass(frozen=True)
class Cut:
    """How a case is cut: panels of blocks of filters, groups of panels, strips of rows.

    `way` is what multiplies, and `deep` how many channels of a pixel lie together where it reads them.
    """

    way: Dot
    window: Window
    channels: int
    deep: int
    panels: Blocks
    groups: Blocks
    strips: Blocks

    @classmethod
    def of(cls, case: QConvCase, tile: QConvTile, isa: Isa) -> Cut:
        way, window = dot_of_gathered(isa, gentle=case.gentle), flat(case.window, tile.pixels)
        panels = blocks_of(ceil(case.filters / isa.lanes), tile.vectors)
        line = 2 * ceil(case.channels / isa.lanes) * isa.lanes * window.image[1]
        rows = max(1, (STACK // line - window.kernel[0]) // window.stride[0] + 1)
        depth = case.channels * window.kernel[0] * window.kernel[1]
        panel = depth * tile.vectors * isa.lanes * (2 if tile.wide else 1)
        groups = blocks_of(panels.count, max(1, GROUP // panel))
        deep = isa.lanes if isa.dot else case.channels
        strips = blocks_of(window.output[0], min(rows, window.output[0]))
        return cls(way, window, case.channels, deep, panels, groups, strips)

    @property
    def gathered(self) -> str:
        """The type of rows that are gathered on the stack before they are multiplied; empty where they are not."""
        return {"words": "int16", "widen": "int16", "gentle": "uint8"}.get(self.way.kind, "")

    @property
    def kept(self) -> int:
        """How many rows of the image the largest strip needs."""
        rows = self.strips.rows + (self.strips.extra > 0)
        return min((rows - 1) * self.window.stride[0] + self.window.kernel[0], self.window.image[0])

    def steps(self, channels: int) -> int:
        """How many steps of the depth some channels of a pixel are."""
        return ceil(channels / self.way.step)

    @property
    def depth(self) -> int:
        """The products of one result, those on the padding of the last step with them."""
        steps = sum((end - begin) * self.steps(deep) for begin, end, deep in self.blocks)
        return steps * self.way.step * self.window.kernel[0] * self.window.kernel[1]

    @property
    def blocks(self) -> Sequence[tuple[int, int, int]]:
        """Runs (begin, end, channels) of blocks of the depth: the whole ones, then the one that has fewer channels."""
        whole, rest = divmod(self.channels, self.deep)
        return [(0, whole, self.deep)] * bool(whole) + [(whole, whole + 1, rest)] * bool(rest)


def flat(window: Window, pixels: int) -> Window:
    """A 1x1 kernel that skips nothing sees other rows: of the width, up to 128, that tiles fill best."""
    if window.kernel != (1, 1) or window.stride != (1, 1) or any(window.padding):
        return window
    size = window.image[0] * window.image[1]
    widths = [width for width in range(1, size + 1) if size % width == 0 and (width <= 128 or width == size)]
    best = min(widths, key=lambda width: (size // width * ceil(width / pixels), -width))
    return Window((size // best, best), (1, 1))
