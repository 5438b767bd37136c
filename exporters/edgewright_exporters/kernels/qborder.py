"""Where a window of bytes meets the padding of its image: which taps are left, and what sums start from there.

A padded pixel counts as the zero point, so that it adds nothing. The zero point is folded into the bias, times the
weights of the taps that lie in the image. These are few patterns: sums start from a table that has a row for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels.window import Window
from edgewright_exporters.tir import builder

Array = npt.NDArray[Any]
Taps = tuple[int, ...]


@dataclass(frozen=True)
class Border:
    """The patterns of taps in the image, along rows and along columns, in the order in which they first occur."""

    rows: Sequence[Taps]
    columns: Sequence[Taps]
    first_clear: int
    last_clear: int

    @property
    def count(self) -> int:
        """How many starts there are for each filter."""
        return len(self.rows) * len(self.columns)

    def pattern(self, row: Any, columns: Taps) -> Any:
        """The number of the start for a row of the result (of the function being written) and the columns left."""
        number = builder.least(row, self.first_clear) + builder.largest(row - self.last_clear, 0)
        return (number if len(self.rows) > 1 else 0) * len(self.columns) + self.columns.index(columns)

    def starts(self, offset: int, weight: Array, bias: Array | None) -> Array:
        """int32 [rows, columns, filters]: `bias` less `offset` times the weights [filters, depth, ...] of the taps."""
        taps = weight.sum(axis=1, dtype=np.int64)
        found = [[taps[:, rows][:, :, columns].sum(axis=(1, 2)) for columns in self.columns] for rows in self.rows]
        return ((0 if bias is None else bias.astype(np.int64)) - offset * np.array(found)).astype(np.int32)


def border_of(window: Window) -> Border:
    """The border of `window`. Every row that is not clear has a pattern of its own, the clear ones share theirs."""
    rows = [_inside(window, 0, row) for row in range(window.output[0])]
    columns = [_inside(window, 1, column) for column in range(window.output[1])]
    clear = [row for row, taps in enumerate(rows) if len(taps) == window.kernel[0]] or [len(rows)]
    return Border(list(dict.fromkeys(rows)), list(dict.fromkeys(columns)), clear[0], clear[-1])


def _inside(window: Window, axis: int, at: int) -> Taps:
    start = at * window.stride[axis] - window.padding[axis]
    return tuple(tap for tap in range(window.kernel[axis]) if 0 <= start + tap < window.image[axis])
