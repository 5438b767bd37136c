"""What convolutions share: where windows lie over a padded image, images in blocks of channels, what follows.

Images are [batch, channel blocks, height, width, lanes]: a vector holds one pixel of a block of channels, so that
results leave as the next convolution reads them. A row's pixels lie side by side whatever the number of channels, so
that a tile reads one stretch of memory, and a depthwise kernel shares it between its taps. Channels that are missing
from the last block are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import epilogue
from edgewright_exporters.kernels.tiles import blocks_of
from edgewright_exporters.tir import builder

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A kernel moving over an image: sizes and strides (rows, columns), padding (top, left, bottom, right)."""

    image: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def output(self) -> Pair:
        """Rows and columns of the result."""
        top, left, bottom, right = self.padding
        height = (self.image[0] + top + bottom - self.kernel[0]) // self.stride[0] + 1
        return height, (self.image[1] + left + right - self.kernel[1]) // self.stride[1] + 1

    def rows(self, row: Any) -> tuple[Any, Any, Any]:
        """For a row of the result: its kernel's first row in the image, and the kernel's rows that lie in the image."""
        first = row * self.stride[0] - self.padding[0]
        low = builder.largest(-first, 0) if self.padding[0] else 0
        return first, low, builder.least(self.image[0] - first, self.kernel[0])

    def inside(self, pixel: int, tap: int) -> bool:
        """Whether column `tap` of the kernel over column `pixel` of the result lies in the image."""
        return 0 <= self.column(pixel) + tap < self.image[1]

    def column(self, pixel: Any) -> Any:
        """The column of the image under the kernel's first one, for a column of the result."""
        return pixel * self.stride[1] - self.padding[1]

    def runs(self, most: int) -> Iterator[Run]:
        """The columns of the result in runs of equal tiles of at most `most`; tiles over the padding stand alone."""
        blocks = blocks_of(self.output[1], most)
        sizes = [blocks.rows + (number < blocks.extra) for number in range(blocks.count)]
        run, start = None, 0
        for size in sizes:
            clear = self.inside(start, 0) and self.inside(start + size - 1, self.kernel[1] - 1)
            if run and run.clear and clear and run.pixels == size:
                run = Run(run.start, size, run.count + 1, True)
            else:
                if run:
                    yield run
                run = Run(start, size, 1, clear)
            start += size
        if run:
            yield run


@dataclass(frozen=True)
class Run:
    """`count` tiles of `pixels` columns each, from column `start` on; a `clear` one never touches the padding."""

    start: int
    pixels: int
    count: int
    clear: bool

    def each(self, write: Callable[[Any, Callable[[Window, int, int], bool]], None]) -> None:
        """Writes every tile: `write` gets its first column, and tells by the function what lies in the image."""
        if self.clear:
            with builder.loop(0, self.count) as number:
                write(self.start + number * self.pixels, lambda window, pixel, tap: True)
        else:
            write(self.start, lambda window, pixel, tap: window.inside(self.start + pixel, tap))


def blocked(image: Array, lanes: int) -> Array:
    """[batch, channels, height, width] as kernels read it: [batch, blocks, height, width, lanes]."""
    batch, channels, height, width = image.shape
    blocks = ceil(channels / lanes)
    padded = np.pad(image, ((0, 0), (0, blocks * lanes - channels), (0, 0), (0, 0)))
    return np.ascontiguousarray(padded.reshape(batch, blocks, lanes, height, width).transpose(0, 1, 3, 4, 2))


def unblocked(image: Array, channels: int) -> Array:
    """[batch, blocks, height, width, lanes] back to [batch, channels, height, width]."""
    batch, blocks, height, width, lanes = image.shape
    return image.transpose(0, 1, 4, 2, 3).reshape(batch, blocks * lanes, height, width)[:, :channels]


def finished(activation: str, value: Any, lanes: int) -> Any:
    """`value` after "none", "relu", "relu6" or "gelu"."""
    if activation != "relu6":
        return epilogue.activated(activation, value, lanes)
    return builder.least(epilogue.activated("relu", value, lanes), builder.splat(6.0, lanes, "float32"))


def finished_reference(activation: str, value: Doubles) -> Doubles:
    """What `finished` computes, in float64."""
    return np.clip(value, 0.0, 6.0) if activation == "relu6" else epilogue.activation_reference(activation, value)


def correlate(window: Window, image: Floats, weight: Floats) -> Doubles:
    """The convolution of [batch, channels, height, width] with [filters, channels / groups, ...], in float64."""
    top, left, bottom, right = window.padding
    padded = np.pad(image.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    view = np.lib.stride_tricks.sliding_window_view(padded, window.kernel, (2, 3))
    view = view[:, :, :: window.stride[0], :: window.stride[1]]
    if weight.shape[1] == 1 and image.shape[1] > 1:
        return np.einsum("bchwij,cij->bchw", view, weight[:, 0].astype(np.float64))
    return np.einsum("bchwij,fcij->bfhw", view, weight.astype(np.float64), optimize=True)


def padded_channels(values: Sequence[float] | Floats, lanes: int) -> Floats:
    """One number per channel, with zeros up to whole blocks."""
    numbers = np.asarray(values, np.float32)
    return np.pad(numbers, (0, -len(numbers) % lanes))
