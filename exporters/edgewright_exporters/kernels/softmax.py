"""Softmax over the last axis, with scores multiplied by a factor first; one work item is a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import lanes as across_lanes
from edgewright_exporters.kernels import vectormath
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa


@dataclass(frozen=True)
class SoftmaxCase:
    """What is computed: y[row] = exp(factor * x[row]), divided by its sum; `factor` is above zero."""

    rows: int
    columns: int
    factor: float = 1.0


@dataclass(frozen=True)
class SoftmaxTile:
    """How: `vectors` partial results at a time."""

    vectors: int


def tiles(case: SoftmaxCase, isa: Isa) -> Sequence[SoftmaxTile]:
    """Tiles worth trying, the likely best first."""
    return SoftmaxTile(4), SoftmaxTile(2)


def items(case: SoftmaxCase, tile: SoftmaxTile, isa: Isa) -> int:
    """How many pieces of work there are: one per row."""
    return case.rows


def arguments(case: SoftmaxCase, tile: SoftmaxTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers the kernel takes: X, Y."""
    size = case.rows * case.columns
    return Argument("x", "float32", size), Argument("y", "float32", size)


def function(case: SoftmaxCase, tile: SoftmaxTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""

    def body(x: Any, y: Any, begin: Any, end: Any) -> None:
        row = _Row(case, tile.vectors, across_lanes.fitting(isa.lanes, case.columns), x, y)
        with builder.loop(begin, end) as number:
            _write(row, number * case.columns)

    return builder.function(symbol, arguments(case, tile, isa), body)


@dataclass(frozen=True)
class _Row:
    """What every part of the function being written needs to know."""

    case: SoftmaxCase
    vectors: int
    lanes: int
    x: Any
    y: Any


def _write(row: _Row, start: Any) -> None:
    lanes = row.lanes
    factor = builder.splat(row.case.factor, lanes, "float32")
    top = _gathered(row, vectormath.LOWEST, builder.largest, lambda at: builder.load(row.x, start + at, lanes))
    highest = builder.held(builder.splat(top, lanes))

    def raised(at: Any) -> Any:
        value = builder.held(vectormath.exp((builder.load(row.x, start + at, lanes) - highest) * factor, lanes))
        builder.store(row.y, start + at, value, lanes)
        return value

    total = _gathered(row, 0.0, lambda left, right: left + right, raised)
    share = builder.held(builder.splat(builder.splat(1.0, 1, "float32") / total, lanes))

    def divided(at: Any, slot: int, fresh: int) -> None:
        value = builder.held(builder.load(row.y, start + at, lanes))
        builder.store(row.y, start + at, across_lanes.freshly(value * share, value, lanes, fresh), lanes)

    across_lanes.along(row.case.columns, lanes, divided, unroll=row.vectors)


def _gathered(row: _Row, neutral: float, combine: Callable[[Any, Any], Any], value: Callable[[Any], Any]) -> Any:
    """`value(at)` of every vector of a row, combined to one number."""
    lanes = row.lanes
    nothing = builder.splat(neutral, lanes, "float32")
    parts = builder.registers(row.vectors * lanes, "float32")
    for slot in range(row.vectors):
        builder.store(parts, slot * lanes, nothing, lanes)

    def step(at: Any, slot: int, fresh: int) -> None:
        new = across_lanes.freshly(value(at), nothing, lanes, fresh)
        builder.store(parts, slot * lanes, combine(builder.load(parts, slot * lanes, lanes), new), lanes)

    across_lanes.along(row.case.columns, lanes, step, unroll=row.vectors)
    held = [builder.load(parts, slot * lanes, lanes) for slot in range(row.vectors)]
    return across_lanes.across(across_lanes.folded(held, combine), lanes, combine)


def reference(case: SoftmaxCase, *, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """What the kernel computes, in float64: x [rows, columns] gives y of the same shape."""
    scores = case.factor * x.astype(np.float64)
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
