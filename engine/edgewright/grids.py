"""The vocabulary of quantisation: which grid of integers values are rounded to, and with which scales.

A real value x and its integer q stand for one another by  q = clip(round(x / scale) + zero point, low, high)  and
x = (q - zero point) * scale, as ONNX defines QuantizeLinear and DequantizeLinear: halves round to even, all in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgewright.errors import RecipeError, suggest
from edgewright.types import Array

GRANULARITIES = ("tensor", "channel", "group")
SMALLEST = 1e-12
"""The least scale: that of a tensor of zeros."""


@dataclass(frozen=True)
class Grid:
    """Which integers a tensor is rounded to.

    Attributes:
        bits: 2 to 8.
        symmetric: the zero point is 0, and a signed grid has as many steps below it as above, so that a channel may
            change its sign without a change of its codes.
        signed: whether codes below zero exist.
        per: one scale for the `tensor`, for each `channel` (of the axis that the encoding names), or for each
            `group` of that many values along that axis.
        group: values that share a scale; 0 unless `per` is `group`.
        dynamic: the range is found anew at each run (activations only).
    """

    bits: int = 8
    symmetric: bool = True
    signed: bool = True
    per: str = "channel"
    group: int = 0
    dynamic: bool = False

    def __post_init__(self) -> None:
        """Raises: RecipeError when bits, granularity or group mean nothing."""
        if not 2 <= self.bits <= 8:
            raise RecipeError(f"a grid has 2 to 8 bits, not {self.bits}")
        if self.per not in GRANULARITIES:
            raise RecipeError(f"a grid has no scale per {self.per!r}; {suggest(self.per, GRANULARITIES)}")
        if (self.per == "group") != (self.group > 0):
            raise RecipeError(f"a grid with a scale per {self.per} cannot have groups of {self.group} values")

    def __str__(self) -> str:
        shared = f"group of {self.group}" if self.per == "group" else self.per
        kind = "" if self.symmetric else " asymmetric"
        return f"{'int' if self.signed else 'uint'}{self.bits}{kind} per {shared}{' dynamic' if self.dynamic else ''}"

    @property
    def low(self) -> int:
        """The lowest code."""
        if not self.signed:
            return 0
        return -(2 ** (self.bits - 1)) + (1 if self.symmetric else 0)

    @property
    def high(self) -> int:
        """The highest code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def stored_bits(self) -> int:
        """What a code takes in a file: ONNX has 2, 4 and 8 bits."""
        return 2 if self.bits == 2 else 4 if self.bits <= 4 else 8


SHIFTS = (0, *(2**power for power in range(7)), 0, *(-(2**power) for power in range(7)))
"""What the four bits of a shift code stand for: bit 3 is the sign, the others are 0 for zero, else the power plus 1."""

WEIGHTS = Grid(8, symmetric=True, signed=True, per="channel")
ACTIVATIONS = Grid(8, symmetric=False, signed=False, per="tensor")


def are_shifts(codes: Array) -> bool:
    """Whether every integer is 0 or a sign times a power of two that a shift code has."""
    return bool(np.isin(codes, SHIFTS).all())


@dataclass(frozen=True, eq=False)
class Encoding:
    """A grid with its scales: how one tensor is quantised.

    `scale` (float32) and `zero_point` (int32) have the shape that ONNX wants: () for a tensor, [n] for the n channels
    of `axis`, and the tensor's own shape with axis `axis` divided by the group's size for groups.
    """

    grid: Grid
    scale: Array
    zero_point: Array
    axis: int = 0

    def codes(self, values: Array) -> Array:
        """The integers, int32, of real values."""
        scale, zero = self.beside(self.scale, values.shape), self.beside(self.zero_point, values.shape)
        rounded = np.rint(np.asarray(values, np.float32) / scale).astype(np.float64) + zero
        return np.clip(rounded, self.grid.low, self.grid.high).astype(np.int32)

    def values(self, codes: Array) -> Array:
        """The real values, float32, of integers."""
        scale, zero = self.beside(self.scale, codes.shape), self.beside(self.zero_point, codes.shape)
        return (codes - zero).astype(np.float32) * scale

    def rounded(self, values: Array) -> Array:
        """The nearest real values that the grid has."""
        return self.values(self.codes(values))

    def scaled(self, factor: Array) -> Encoding:
        """The same codes for values multiplied by `factor` per channel (grids per channel, symmetric).

        A negative factor cannot be taken up by a scale: multiply the values by its sign first.
        """
        return replace(self, scale=np.asarray(self.scale * np.abs(factor), np.float32))

    def beside(self, parameter: Array, shape: tuple[int, ...]) -> Array:
        """A scale or zero point (or any of their shape), ready to meet an array of `shape`."""
        if self.grid.per == "tensor":
            return np.asarray(parameter).reshape(())
        if self.grid.per == "channel":
            ones = [1] * len(shape)
            ones[self.axis] = shape[self.axis]
            return np.asarray(parameter).reshape(ones)
        spread = np.repeat(parameter, self.grid.group, axis=self.axis)
        return np.take(spread, np.arange(shape[self.axis]), axis=self.axis)


def encode_range(grid: Grid, low: Array | float, high: Array | float, axis: int = 0) -> Encoding:
    """The encoding whose codes reach from `low` to `high`, arrays for channels or groups; 0 is among the values."""
    low = np.minimum(np.asarray(low, np.float64), 0)
    high = np.maximum(np.asarray(high, np.float64), 0)
    if grid.symmetric:
        reach = np.maximum(-low, high) if grid.signed else high
        scale = np.maximum(reach / grid.high, SMALLEST).astype(np.float32)
        return Encoding(grid, scale, np.zeros(scale.shape, np.int32), axis)
    scale = np.maximum((high - low) / (grid.high - grid.low), SMALLEST).astype(np.float32)
    zero = np.clip(np.rint(grid.low - low / scale), grid.low, grid.high).astype(np.int32)
    return Encoding(grid, scale, zero, axis)


def encode(grid: Grid, values: Array, axis: int = 0, *, clip: float = 1.0) -> Encoding:
    """The encoding of a tensor by its lowest and highest values, times `clip`.

    `axis` is the channels' for a grid per channel, and the one that groups run along for a grid per group.
    """
    low, high = _extremes(grid, values, axis)
    return encode_range(grid, low * clip, high * clip, axis)


def encode_closest(grid: Grid, values: Array, axis: int = 0, *, steps: int = 24) -> Encoding:
    """The encoding with the least squared error among ranges from 100 % of the extremes down to 28 %.

    Chosen anew for each channel (or group), since their tails differ.
    """
    best = encode(grid, values, axis)
    error = _errors(best, values)
    for clip in np.linspace(1.0, 0.28, steps)[1:]:
        tried = encode(grid, values, axis, clip=float(clip))
        found = _errors(tried, values)
        better = found < error
        error = np.where(better, found, error)
        scale = np.where(better, tried.scale, best.scale).astype(np.float32)
        best = replace(best, scale=scale, zero_point=np.where(better, tried.zero_point, best.zero_point))
    return best


def _extremes(grid: Grid, values: Array, axis: int) -> tuple[Array, Array]:
    if grid.per == "tensor":
        return np.min(values), np.max(values)
    if grid.per == "channel":
        others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
        return np.min(values, axis=others), np.max(values, axis=others)
    groups, inside = _grouped(values, grid.group, axis), axis % values.ndim + 1
    return np.min(groups, axis=inside), np.max(groups, axis=inside)


def _errors(encoding: Encoding, values: Array) -> Array:
    """The squared error of each channel (group, tensor)."""
    wrong = np.square(encoding.rounded(values).astype(np.float64) - values)
    if encoding.grid.per == "tensor":
        return np.sum(wrong)
    if encoding.grid.per == "channel":
        return np.sum(wrong, axis=tuple(i for i in range(values.ndim) if i != encoding.axis % values.ndim))
    return np.sum(_grouped(wrong, encoding.grid.group, encoding.axis, "constant"), axis=encoding.axis % values.ndim + 1)


def _grouped(values: Array, group: int, axis: int, mode: str = "edge") -> Array:
    """[.., n, ..] to [.., n / group, group, ..]; the last group is filled up as numpy.pad's `mode` says."""
    axis %= values.ndim
    missing = [(0, -values.shape[i] % group if i == axis else 0) for i in range(values.ndim)]
    filled = np.pad(values, missing, mode=mode)  # type: ignore[call-overload]
    return filled.reshape(*values.shape[:axis], -1, group, *values.shape[axis + 1 :])
