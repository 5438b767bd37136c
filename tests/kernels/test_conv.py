"""Convolutions, dense and depthwise: equal to their reference for any shape and padding, within their buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_exporters.kernels import conv, depthwise, window
from edgewright_exporters.kernels.conv import ConvCase, ConvTile
from edgewright_exporters.kernels.depthwise import DepthwiseCase, DepthwiseTile
from edgewright_exporters.kernels.window import Window, correlate
from edgewright_exporters.tir.compiler import compile_object
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names

Build = Callable[..., Any]
WINDOWS = (
    Window((7, 7), (1, 1)),
    Window((5, 33), (1, 1)),
    Window((8, 9), (1, 1), (2, 2)),
    Window((11, 13), (3, 3), (1, 1), (1, 1, 1, 1)),
    Window((11, 13), (3, 3), (2, 2), (1, 1, 1, 1)),
    Window((9, 8), (3, 3), (2, 2), (0, 0, 1, 1)),
    Window((2, 2), (3, 3), (1, 1), (1, 1, 1, 1)),
    Window((17, 19), (7, 7), (2, 2), (3, 3, 3, 3)),
    Window((6, 6), (1, 5), (1, 1), (0, 2, 0, 2)),
)
ACTIVATIONS = st.sampled_from(("none", "relu", "relu6", "gelu"))


def _run(build: Build, template: Any, case: Any, tile: Any, isa: Isa, cuts: Sequence[int] = ()) -> None:
    """Raises unless the kernel is within 1e-5 of the sum of absolute products."""
    rng = np.random.default_rng(case.channels)
    dense = isinstance(case, ConvCase)
    filters, depth = (case.filters, case.channels) if dense else (case.channels, 1)
    plain: dict[str, Any] = {
        "x": rng.standard_normal((case.batch, case.channels, *case.window.image), np.float32),
        "weight": rng.standard_normal((filters, depth, *case.window.kernel), np.float32),
        "bias": rng.standard_normal(filters, np.float32) if case.bias else None,
    }
    if dense and case.residual:
        plain["residual"] = rng.standard_normal((case.batch, filters, *case.window.output), np.float32)
    packed = template.pack(case, tile, isa, weight=plain["weight"], bias=plain["bias"])
    values = dict(zip(("w", "bias"), packed))
    values |= {name: window.blocked(plain[name], isa.lanes) for name in ("x", "residual") if name in plain}
    if dense and case.plain:
        values["x"] = plain["x"]
    found = build(template, case, tile, isa)(values, cuts)
    shape = (case.batch, -1, *case.window.output, isa.lanes)
    scale = correlate(case.window, np.abs(plain["x"]), np.abs(plain["weight"])) + 10.0
    wanted = template.reference(case, **plain)
    assert (np.abs(window.unblocked(found.reshape(shape), filters) - wanted) <= 1e-5 * scale).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    channels=st.sampled_from((1, 3, 16, 20, 37)),
    filters=st.sampled_from((1, 16, 33, 40)),
    moving=st.sampled_from(WINDOWS),
    bias=st.booleans(),
    activation=ACTIVATIONS,
    residual=st.booleans(),
    plain=st.booleans(),
    narrow=st.booleans(),
)
def test_convolution_equals_its_reference(build: Build, here: Sequence[Isa], narrow: bool, **drawn: Any) -> None:
    isa = here[-1] if narrow else here[0]
    case = ConvCase(2, window=drawn.pop("moving"), **drawn)
    _run(build, conv, case, conv.tiles(case, isa)[-1], isa)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    channels=st.sampled_from((1, 16, 20, 37)),
    moving=st.sampled_from(WINDOWS),
    bias=st.booleans(),
    activation=ACTIVATIONS,
    pixels=st.sampled_from((1, 3, 8)),
    narrow=st.booleans(),
)
def test_depthwise_equals_its_reference(
    build: Build, here: Sequence[Isa], pixels: int, narrow: bool, **drawn: Any
) -> None:
    case = DepthwiseCase(2, window=drawn.pop("moving"), **drawn)
    _run(build, depthwise, case, DepthwiseTile(pixels), here[-1] if narrow else here[0])


def test_any_division_of_the_work_gives_the_same(build: Build, here: Sequence[Isa]) -> None:
    case = ConvCase(1, 16, 40, WINDOWS[3], residual=True)
    tile = ConvTile(5, 2)
    count = conv.items(case, tile, here[0])
    assert count > 10
    _run(build, conv, case, tile, here[0], cuts=(1, 2, count - 3))
    thin = DepthwiseCase(1, 20, WINDOWS[3])
    _run(build, depthwise, thin, DepthwiseTile(4), here[0], cuts=(1, 7, 12))


@pytest.mark.parametrize("moving", WINDOWS)
def test_runs_cover_every_column_once(moving: Window) -> None:
    runs = list(moving.runs(4))
    columns = [run.start + i for run in runs for i in range(run.pixels * run.count)]
    assert columns == list(range(moving.output[1]))
    assert all(run.pixels <= 4 and (run.clear or run.count == 1) for run in runs)


def test_blocks_of_channels_come_back(here: Sequence[Isa]) -> None:
    image = np.random.default_rng(0).standard_normal((2, 20, 3, 4)).astype(np.float32)
    there = window.blocked(image, here[0].lanes)
    assert there.shape[-1] == here[0].lanes
    assert np.array_equal(window.unblocked(there, 20), image)


@pytest.mark.parametrize("name", isa_names())
def test_compiles_for_every_instruction_set(tvm: ModuleType, name: str) -> None:
    isa = isa_named(name)
    dense, thin = ConvCase(1, 20, 40, WINDOWS[4], activation="relu6"), DepthwiseCase(1, 20, WINDOWS[4])
    functions = {
        "dense": conv.function(dense, conv.tiles(dense, isa)[0], isa, "dense"),
        "thin": depthwise.function(thin, depthwise.tiles(thin, isa)[0], isa, "thin"),
    }
    assert compile_object(functions, isa)[:4] == b"\x7fELF"
