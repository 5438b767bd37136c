"""Images in blocks of channels as values of a graph, see `kernels.window`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Blocks:
    """What images in blocks of `lanes` channels are called, and their shape."""

    lanes: int

    def name(self, value: str) -> str:
        """The name of the image `value` in blocks."""
        return f"{value}:blocks"

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """[batch, blocks, height, width, lanes] of an image [batch, channels, height, width], or [batch, channels]."""
        batch, channels, *image = shape
        return (batch, ceil(channels / self.lanes), *(image or (1, 1)), self.lanes)
