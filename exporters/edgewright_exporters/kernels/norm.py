"""LayerNorm over the last axis, also with the sum of a residual connection before it.

Two passes over a row that is in the first cache by then: mean, then squared deviations; no cancellation. One work
item is a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import lanes as across_lanes
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NormCase:
    """What is computed: y = (s - mean(s)) / sqrt(var(s) + epsilon) * scale + bias per row, s being x [+ residual]."""

    rows: int
    columns: int
    epsilon: float = 1e-5
    residual: bool = False


@dataclass(frozen=True)
class NormTile:
    """How: `vectors` partial sums at a time."""

    vectors: int


def tiles(case: NormCase, isa: Isa) -> Sequence[NormTile]:
    """Tiles worth trying, the likely best first."""
    return NormTile(4), NormTile(8), NormTile(2)


def items(case: NormCase, tile: NormTile, isa: Isa) -> int:
    """How many pieces of work there are: one per row."""
    return case.rows


def pack(case: NormCase, tile: NormTile, isa: Isa, *, scale: Floats, bias: Floats) -> tuple[Floats, ...]:
    """Scale [columns] and bias [columns], as they are."""
    return np.ascontiguousarray(scale, np.float32), np.ascontiguousarray(bias, np.float32)


def arguments(case: NormCase, tile: NormTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers the kernel takes, in order: X, [residual], scale, bias, [the sum,] Y."""
    size = case.rows * case.columns
    chosen = [Argument("x", "float32", size)]
    if case.residual:
        chosen.append(Argument("residual", "float32", size))
    chosen += [Argument("scale", "float32", case.columns), Argument("bias", "float32", case.columns)]
    if case.residual:
        chosen.append(Argument("sum", "float32", size))
    return (*chosen, Argument("y", "float32", size))


def function(case: NormCase, tile: NormTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    pointers = arguments(case, tile, isa)

    def body(*parts: Any) -> None:
        *buffers, begin, end = parts
        kernel = _Kernel(case, tile.vectors, across_lanes.fitting(isa.lanes, case.columns), _named(pointers, buffers))
        with builder.loop(begin, end) as row:
            _row(kernel, row * case.columns)

    return builder.function(symbol, pointers, body)


@dataclass(frozen=True)
class _Kernel:
    """What every part of the function being written needs to know."""

    case: NormCase
    vectors: int
    lanes: int
    buffers: dict[str, Any]


def _named(pointers: Sequence[Argument], buffers: Sequence[Any]) -> dict[str, Any]:
    return dict(zip((pointer.name for pointer in pointers), buffers))


def _row(kernel: _Kernel, start: Any) -> None:
    share = builder.splat(1.0 / kernel.case.columns, 1, "float32")
    mean = builder.held(_summed(kernel, lambda at, fresh: _source(kernel, start, at, fresh)) * share)
    middle = builder.held(builder.splat(mean, kernel.lanes))
    read = kernel.buffers["sum" if kernel.case.residual else "x"]

    def squared(at: Any, fresh: int) -> Any:
        away = builder.held(builder.load(read, start + at, kernel.lanes) - middle)
        return away * away

    one, epsilon = (builder.splat(number, 1, "float32") for number in (1.0, kernel.case.epsilon))
    variance = _summed(kernel, squared) * share
    spread = builder.held(one / builder.root(variance + epsilon))
    _write(kernel, start, read, (middle, builder.held(builder.splat(spread, kernel.lanes))))


def _source(kernel: _Kernel, start: Any, at: Any, fresh: int) -> Any:
    """What is normalised; where it is a sum, it is also written down."""
    value = builder.load(kernel.buffers["x"], start + at, kernel.lanes)
    if kernel.case.residual:
        value = builder.held(value + builder.load(kernel.buffers["residual"], start + at, kernel.lanes))
        builder.store(kernel.buffers["sum"], start + at, value, kernel.lanes)
    return value


def _summed(kernel: _Kernel, value: Any) -> Any:
    """The sum over a row of `value(at, fresh)`, in as many partial sums as the tile has vectors."""
    lanes = kernel.lanes
    zero = builder.splat(0.0, lanes, "float32")
    sums = builder.registers(kernel.vectors * lanes, "float32")
    for slot in range(kernel.vectors):
        builder.store(sums, slot * lanes, zero, lanes)

    def step(at: Any, slot: int, fresh: int) -> None:
        new = across_lanes.freshly(value(at, fresh), zero, lanes, fresh)
        builder.store(sums, slot * lanes, builder.load(sums, slot * lanes, lanes) + new, lanes)

    across_lanes.along(kernel.case.columns, lanes, step, unroll=kernel.vectors)
    parts = [builder.load(sums, slot * lanes, lanes) for slot in range(kernel.vectors)]
    return across_lanes.across(across_lanes.folded(parts, _plus), lanes, _plus)


def _plus(left: Any, right: Any) -> Any:
    return left + right


def _write(kernel: _Kernel, start: Any, read: Any, about: tuple[Any, Any]) -> None:
    """y = (value - mean) / deviation * scale + bias, `about` being the mean and one over the deviation."""
    lanes, buffers = kernel.lanes, kernel.buffers
    mean, spread = about

    def step(at: Any, slot: int, fresh: int) -> None:
        away = (builder.load(read, start + at, lanes) - mean) * spread
        value = away * builder.load(buffers["scale"], at, lanes) + builder.load(buffers["bias"], at, lanes)
        builder.store(buffers["y"], start + at, value, lanes)

    across_lanes.along(kernel.case.columns, lanes, step, unroll=kernel.vectors)


def reference(
    case: NormCase, *, x: Floats, scale: Floats, bias: Floats, residual: Floats | None = None
) -> tuple[Doubles, ...]:
    """What the kernel computes, in float64: x [rows, columns] gives ([the sum,] y), each of x's shape.

    Ba, Kiros and Hinton, "Layer Normalization", 2016, equation 4, with epsilon inside the root.
    """
    total = x.astype(np.float64) + (0.0 if residual is None else residual.astype(np.float64))
    away = total - total.mean(axis=-1, keepdims=True)
    y = away / np.sqrt((away**2).mean(axis=-1, keepdims=True) + case.epsilon) * scale + bias
    return (y,) if residual is None else (total, y)
