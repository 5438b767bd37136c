"""The exact GELU, element by element, for where it follows no kernel of ours; one work item is a block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, erfc, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright_exporters.kernels import lanes as across_lanes
from edgewright_exporters.kernels import vectormath
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa


@dataclass(frozen=True)
class GeluCase:
    """What is computed: y = x * Phi(x) for `size` elements, Phi being the normal distribution."""

    size: int


@dataclass(frozen=True)
class GeluTile:
    """How: `block` elements an item, `vectors` at a time."""

    block: int
    vectors: int


def tiles(case: GeluCase, isa: Isa) -> Sequence[GeluTile]:
    """Tiles worth trying, the likely best first."""
    return GeluTile(4096, 4), GeluTile(4096, 2), GeluTile(4096, 8)


def items(case: GeluCase, tile: GeluTile, isa: Isa) -> int:
    """How many pieces of work there are: one per block."""
    return ceil(case.size / tile.block)


def arguments(case: GeluCase, tile: GeluTile, isa: Isa) -> tuple[Argument, ...]:
    """The pointers the kernel takes: X, Y."""
    return Argument("x", "float32", case.size), Argument("y", "float32", case.size)


def function(case: GeluCase, tile: GeluTile, isa: Isa, symbol: str) -> Any:
    """The kernel as a PrimFunc called `symbol`."""
    whole, rest = divmod(case.size, tile.block)

    def body(x: Any, y: Any, begin: Any, end: Any) -> None:
        def block(start: Any, size: int) -> None:
            lanes = across_lanes.fitting(isa.lanes, size)

            def step(at: Any, slot: int, fresh: int) -> None:
                builder.store(y, start + at, vectormath.gelu(builder.load(x, start + at, lanes), lanes), lanes)

            across_lanes.along(size, lanes, step, unroll=tile.vectors)

        with builder.loop(begin, end) as item:
            if whole:
                with builder.when(item < whole):
                    block(item * tile.block, tile.block)
            if rest:
                with builder.when(item >= whole):
                    block(whole * tile.block, rest)

    return builder.function(symbol, arguments(case, tile, isa), body)


def reference(case: GeluCase, *, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """What the kernel computes, in float64: x [size] gives y [size]."""
    wide = x.astype(np.float64)
    return 0.5 * wide * np.vectorize(erfc)(-wide / sqrt(2.0))
