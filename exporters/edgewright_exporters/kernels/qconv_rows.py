"""Where a convolution of bytes reads pixels: in the image as it lies, or in rows gathered on the stack."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from edgewright_exporters.kernels.qborder import Border
from edgewright_exporters.kernels.qconv_cut import Cut, QConvCase, QConvTile
from edgewright_exporters.tir import builder


@dataclass(frozen=True)
class Kernel:
    """What every part of the function being written needs to know."""

    case: QConvCase
    tile: QConvTile
    cut: Cut
    lanes: int
    border: Border
    buffers: dict[str, Any]

    @property
    def blocks(self) -> int:
        """Of channels."""
        return ceil(self.case.channels / self.lanes)


@dataclass(frozen=True)
class Source:
    """Where pixels are read: channel c of column x, row y, block b: `start` + b * block + y * line + x * pixel + c."""

    buffer: Any
    dtype: str
    start: Any
    block: int
    line: int
    pixel: int


def source_of(kernel: Kernel, image: Any, rows: tuple[Any, Any]) -> Source:
    """The pixels under `rows` (first, end) of the result, gathered where that is how they are multiplied."""
    return _gathered(kernel, image, rows) if kernel.cut.gathered else _direct(kernel, image)


def _direct(kernel: Kernel, image: Any) -> Source:
    high, wide = kernel.cut.window.image
    line = wide * kernel.lanes
    start = image * (kernel.blocks * high * line)
    return Source(kernel.buffers["x"], kernel.case.takes, start, high * line, line, kernel.lanes)


def _gathered(kernel: Kernel, image: Any, rows: tuple[Any, Any]) -> Source:
    """Writes what is under `rows` of the result to the stack, all channels of a pixel side by side."""
    window, x, lanes, pixel = kernel.cut.window, kernel.buffers["x"], kernel.lanes, kernel.blocks * kernel.lanes
    high, wide = window.image
    top, low, _ = window.rows(rows[0])
    last, _, stop = window.rows(rows[1] - 1)
    first = builder.held(top + low)
    dtype = kernel.cut.gathered
    gathered = builder.registers(kernel.cut.kept * wide * pixel, dtype)
    with builder.loop(0, kernel.blocks) as block, builder.loop(first, last + stop) as row:
        source = ((image * kernel.blocks + block) * high + row) * wide
        with builder.loop(0, wide) as column:
            values = builder.load(x, (source + column) * lanes, lanes)
            place = ((row - first) * wide + column) * pixel + block * lanes
            if dtype == "uint8" and kernel.case.takes == "int8":
                values = values ^ builder.splat(-128, lanes, "int8")
            builder.store(gathered, place, builder.cast(values, f"{dtype}x{lanes}"), lanes)
    return Source(gathered, dtype, -first * (wide * pixel), 0, wide * pixel, pixel)
