"""The float32 product: equal to its reference at every size, within its buffers, in any division of the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_exporters.kernels import gemm
from edgewright_exporters.kernels.gemm import GemmCase
from edgewright_exporters.kernels.tiles import Tile, blocks_of, tiles_of
from edgewright_exporters.tir.isa import Isa

Build = Callable[..., Any]
CASES = st.builds(
    GemmCase,
    rows=st.sampled_from((1, 2, 7, 13, 29)),
    depth=st.sampled_from((1, 3, 16, 37)),
    columns=st.sampled_from((1, 5, 16, 31, 47, 64, 101)),
    bias=st.booleans(),
    activation=st.sampled_from(("none", "relu", "gelu")),
    residual=st.booleans(),
)


def _check(build: Build, case: GemmCase, tile: Tile, isa: Isa, cuts: Sequence[int] = ()) -> None:
    """Raises unless the kernel is within 1e-5 of the sum of absolute products."""
    rng = np.random.default_rng(case.rows * 1000 + case.columns)
    x = rng.standard_normal((case.rows, case.depth), np.float32)
    weight = rng.standard_normal((case.depth, case.columns), np.float32)
    bias = rng.standard_normal(case.columns, np.float32) if case.bias else None
    residual = rng.standard_normal((case.rows, case.columns), np.float32) if case.residual else None
    constants = gemm.pack(case, tile, isa, weight=weight, bias=bias)
    values = {"x": x, **dict(zip(("w", "bias"), constants)), "residual": residual}
    found = build(gemm, case, tile, isa)(values, cuts).reshape(case.rows, case.columns)
    scale = np.abs(x).astype(np.float64) @ np.abs(weight) + sum(abs(a) for a in (bias, residual) if a is not None)
    wanted = gemm.reference(case, x=x, weight=weight, bias=bias, residual=residual)
    assert (np.abs(found - wanted) <= 1e-5 * scale + (1e-6 if case.activation == "gelu" else 0.0)).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=CASES, choice=st.integers(0, 3), narrow=st.booleans())
def test_equals_its_reference(build: Build, here: Sequence[Isa], case: GemmCase, choice: int, narrow: bool) -> None:
    isa = here[-1] if narrow else here[0]
    tiles = gemm.tiles(case, isa)
    _check(build, case, tiles[min(choice, len(tiles) - 1)], isa)


def test_primes_everywhere(build: Build, here: Sequence[Isa]) -> None:
    case = GemmCase(197, 191, 193, bias=True, activation="gelu", residual=True)
    _check(build, case, gemm.tiles(case, here[0])[0], here[0])


def test_any_division_of_the_work_gives_the_same(build: Build, here: Sequence[Isa]) -> None:
    case = GemmCase(29, 37, 101, bias=True)
    tile = gemm.tiles(case, here[0])[0]
    count = gemm.items(case, tile, here[0])
    assert count > 3
    _check(build, case, tile, here[0], cuts=(1, 2, count - 1))
    _check(build, case, tile, here[0], cuts=range(1, count))


def test_gelu_of_a_product_is_exact_to_a_millionth(build: Build, here: Sequence[Isa]) -> None:
    case = GemmCase(1, 1, 4096, activation="gelu")
    tile = gemm.tiles(case, here[0])[0]
    x, weight = np.ones((1, 1), np.float32), np.linspace(-12, 12, 4096, dtype=np.float32)[None]
    (packed,) = gemm.pack(case, tile, here[0], weight=weight)
    found = build(gemm, case, tile, here[0])({"x": x, "w": packed})
    wanted = gemm.reference(case, x=x, weight=weight)[0]
    assert (np.abs(found - wanted) <= 1e-6 + 1e-6 * np.abs(wanted)).all()


@pytest.mark.parametrize("rows", [1, 7, 196, 197])
@pytest.mark.parametrize("most", [1, 6, 14])
def test_rows_are_dealt_out_evenly(rows: int, most: int) -> None:
    blocks = blocks_of(rows, most)
    sizes = [blocks.rows + 1] * blocks.extra + [blocks.rows] * (blocks.count - blocks.extra)
    assert sum(sizes) == rows
    assert max(sizes) <= most
    assert blocks.count == -(-rows // most)


@pytest.mark.parametrize("columns", [1, 192, 1000])
def test_tiles_fit_the_registers(columns: int) -> None:
    tiles = tiles_of(197, columns, lanes=8, registers=16)
    assert 1 < len(tiles) <= 4
    assert all(tile.rows * tile.vectors + tile.vectors + 1 <= 16 for tile in tiles)
