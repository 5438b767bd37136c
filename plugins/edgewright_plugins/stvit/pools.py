"""Where semantic tokens begin: regions of a grid, and the windows that a grid is cut into."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn


def regions(grid: Sequence[int], count: int) -> list[list[int]]:
    """The positions of a grid, row by row, that each of `count` tokens stands for at first.

    Regions are those of an adaptive pooling to the sides that fit the grid best; runs of positions where `count` has
    no such sides.
    """
    sides = _sides(grid, count) if len(grid) == 2 else None
    if sides is None:
        total = prod(grid)
        return [list(range(total * i // count, -(-total * (i + 1) // count))) for i in range(count)]
    rows, columns = (_spans(size, side) for size, side in zip(grid, sides, strict=True))
    return [[y * grid[1] + x for y in row for x in column] for row in rows for column in columns]


def _sides(grid: Sequence[int], count: int) -> tuple[int, int] | None:
    """Two sides of product `count` within the grid, nearest to its form."""
    fitting = [
        (side, count // side) for side in range(1, grid[0] + 1) if count % side == 0 and count // side <= grid[1]
    ]
    return min(fitting, key=lambda sides: abs(sides[0] * grid[1] - sides[1] * grid[0]), default=None)


def _spans(size: int, parts: int) -> list[range]:
    return [range(size * i // parts, -(-size * (i + 1) // parts)) for i in range(parts)]


class Pool(nn.Module):
    """The mean of each region: where the clusters start (section 3.2). `owners` [n]: the region that each is in."""

    def __init__(self, grid: Sequence[int], count: int) -> None:
        super().__init__()
        groups = regions(grid, count)
        weights = torch.zeros(count, prod(grid))
        for row, members in enumerate(groups):
            weights[row, members] = 1 / len(members)
        owners = weights.argmax(0)
        self.means = nn.Buffer(weights, persistent=False)
        self.owners = nn.Buffer(owners, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, n, c] to [b, count, c]."""
        return self.means @ x


class Windows(nn.Module):
    """Cuts tokens [b, h * w, c] into windows [b * windows, size, c], and puts what is in them together again."""

    def __init__(self, grid: Sequence[int], window: Sequence[int]) -> None:
        super().__init__()
        self.grid, self.window = tuple(grid), tuple(window)
        self.count = prod(grid) // prod(window)

    def cut(self, x: Tensor) -> Tensor:
        """Tokens to windows."""
        if self.count == 1:
            return x
        (height, width), (rows, columns) = self.grid, self.window
        cut = x.reshape(x.shape[0], height // rows, rows, width // columns, columns, x.shape[2])
        return cut.transpose(2, 3).reshape(x.shape[0] * self.count, rows * columns, x.shape[2])

    def joined(self, x: Tensor) -> Tensor:
        """What is left in the windows [b * windows, s, c] in a row: [b, windows * s, c]."""
        return x if self.count == 1 else x.reshape(x.shape[0] // self.count, -1, x.shape[2])
