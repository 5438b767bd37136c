"""Pooling, and images put into blocks of channels and back: equal to their references, within their buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_exporters.kernels import pool, reorder, window
from edgewright_exporters.kernels.pool import PoolCase, PoolTile
from edgewright_exporters.kernels.reorder import ReorderCase, ReorderTile
from edgewright_exporters.kernels.window import Window
from edgewright_exporters.tir.compiler import compile_object
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names

Build = Callable[..., Any]
WINDOWS = (
    Window((7, 7), (7, 7)),
    Window((5, 33), (5, 33)),
    Window((12, 14), (2, 2), (2, 2)),
    Window((11, 13), (3, 3), (2, 2), (1, 1, 1, 1)),
    Window((11, 13), (3, 3), (2, 2), (0, 0, 1, 1)),
    Window((8, 9), (3, 2), (1, 1), (1, 0, 1, 1)),
    Window((6, 6), (1, 1), (2, 2)),
)


def _pooled(build: Build, case: PoolCase, tile: PoolTile, isa: Isa, cuts: Sequence[int] = ()) -> None:
    x = np.random.default_rng(case.channels).standard_normal(
        (case.batch, case.channels, *case.window.image), np.float32
    )
    found = build(pool, case, tile, isa)({"x": window.blocked(x, isa.lanes)}, cuts)
    shape = (case.batch, -1, *case.window.output, isa.lanes)
    wanted = pool.reference(case, x=x)
    assert np.allclose(window.unblocked(found.reshape(shape), case.channels), wanted, rtol=0, atol=1e-5)
    if case.kind == "max":
        assert np.array_equal(window.unblocked(found.reshape(shape), case.channels), wanted)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    channels=st.sampled_from((1, 16, 37)),
    moving=st.sampled_from(WINDOWS),
    kind=st.sampled_from(("max", "mean")),
    padded=st.booleans(),
    pixels=st.sampled_from((1, 4)),
    narrow=st.booleans(),
)
def test_pooling_equals_its_reference(
    build: Build, here: Sequence[Isa], pixels: int, moving: Window, narrow: bool, **drawn: Any
) -> None:
    _pooled(build, PoolCase(2, window=moving, **drawn), PoolTile(pixels), here[-1] if narrow else here[0])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    batch=st.sampled_from((1, 2)),
    channels=st.sampled_from((1, 3, 16, 37)),
    pixels=st.sampled_from((1, 3, 16, 31, 32, 131)),
    back=st.booleans(),
    narrow=st.booleans(),
)
def test_reordering_equals_its_reference(build: Build, here: Sequence[Isa], narrow: bool, **drawn: Any) -> None:
    case, isa = ReorderCase(**drawn), here[-1] if narrow else here[0]
    x = np.random.default_rng(0).standard_normal((case.batch, case.channels, case.pixels), np.float32)
    packed = reorder.reference(case, x=x, lanes=isa.lanes)
    given_, wanted = (packed, x) if case.back else (x, packed)
    found = build(reorder, case, ReorderTile(2), isa)({"x": given_})
    assert np.array_equal(found, wanted.ravel())


def test_any_division_of_the_work_gives_the_same(build: Build, here: Sequence[Isa]) -> None:
    _pooled(build, PoolCase(2, 20, WINDOWS[3], "mean"), PoolTile(3), here[0], cuts=(1, 2, 9))
    case, isa = ReorderCase(2, 20, 131), here[0]
    x = np.random.default_rng(0).standard_normal((2, 20, 131), np.float32)
    built = build(reorder, case, ReorderTile(2), isa)
    assert np.array_equal(
        built({"x": x}, (1, 4, built.items - 1)), reorder.reference(case, x=x, lanes=isa.lanes).ravel()
    )


@pytest.mark.parametrize("name", isa_names())
def test_compiles_for_every_instruction_set(tvm: ModuleType, name: str) -> None:
    isa = isa_named(name)
    pooling, there = PoolCase(1, 20, WINDOWS[3], "mean"), ReorderCase(1, 20, 131)
    functions = {
        "pooling": pool.function(pooling, pool.tiles(pooling, isa)[0], isa, "pooling"),
        "there": reorder.function(there, reorder.tiles(there, isa)[0], isa, "there"),
    }
    assert compile_object(functions, isa)[:4] == b"\x7fELF"
