"""Convolutions of bytes, dense and depthwise: exact for any shape, padding, zero point and instruction set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_exporters.kernels import dot, qconv, qdepthwise, window
from edgewright_exporters.kernels.qconv_cut import QConvCase, QConvTile
from edgewright_exporters.kernels.qdepthwise import QDepthwiseCase, QDepthwiseTile
from edgewright_exporters.kernels.requantise import LIMITS
from edgewright_exporters.kernels.window import Window
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
TYPES = ("uint8", "int8")


@st.composite
def cases(draw: st.DrawFn) -> QConvCase:
    takes, gives = draw(st.sampled_from(TYPES)), draw(st.sampled_from((*TYPES, *TYPES, "float32")))
    codes = gives != "float32"
    return QConvCase(
        2,
        draw(st.sampled_from((1, 3, 16, 20, 37))),
        draw(st.sampled_from((1, 16, 33, 40))),
        draw(st.sampled_from(WINDOWS)),
        takes=takes,
        gives=gives,
        activation="none" if codes else draw(st.sampled_from(("none", "relu", "relu6"))),
        clip=codes and draw(st.booleans()),
        residual=draw(st.sampled_from(("", *TYPES))) if codes else "",
        gentle=draw(st.booleans()),
    )


def _zero(rng: np.random.Generator, dtype: str) -> int:
    """A zero point: often one at the limits, where results saturate on one side only."""
    low, high = LIMITS[dtype]
    return int(rng.choice((low, high, (low + high + 1) // 2, rng.integers(low, high))))


def _values(case: Any, filters: int, depth: int, *, seed: int = 0, extreme: bool = False) -> dict[str, Any]:
    """Random inputs over the whole range of their types; `extreme` leaves only its two ends."""
    rng = np.random.default_rng((seed, case.channels, filters))
    low, high = LIMITS[case.takes]
    most = 64 if getattr(case, "gentle", False) else 127
    x = rng.integers(low, high + 1, (case.batch, case.channels, *case.window.image))
    weight = rng.integers(-most, most + 1, (filters, depth, *case.window.kernel))
    if extreme:
        x, weight = np.where(x > (low + high) / 2, high, low), np.where(weight > -most * 3 // 4, most, -most)
    size = depth * case.window.kernel[0] * case.window.kernel[1]
    values: dict[str, Any] = {
        "x": x.astype(case.takes),
        "weight": weight.astype(np.int8),
        "scale": (rng.uniform(0.2, 1.0, filters) / (30 * size**0.5)).astype(np.float32),
        "x_zero": _zero(rng, case.takes),
    }
    if case.gives != "float32":
        values["y_zero"] = _zero(rng, case.gives)
    if case.clip:
        low, high = LIMITS[case.gives]
        values["clip"] = (low + 20, high - 30)
    if rng.integers(2):
        values["bias"] = rng.integers(-(2**20), 2**20, filters).astype(np.int32)
    if residual := getattr(case, "residual", None):
        shape = (case.batch, filters, *case.window.output)
        values["residual"] = rng.integers(*LIMITS[residual], shape, endpoint=True).astype(residual)
        values |= {"mid_scale": 0.043, "mid_low": -100, "mid_high": 155, "r_scale": 0.021, "y_scale": 0.037}
        values["r_zero"] = _zero(rng, residual)
    return values


def _found(build: Build, template: Any, case: Any, tile: Any, isa: Isa, values: Any, cuts: Sequence[int] = ()) -> Any:
    """The result in plain layout."""
    images = {name: window.blocked(values[name], isa.lanes) for name in ("x", "residual") if name in values}
    constants = {name: value for name, value in values.items() if name not in images}
    taken = [each.name for each in template.arguments(case, tile, isa)[:-1] if each.name not in images]
    packed = dict(zip(taken, template.pack(case, tile, isa, **constants), strict=True))
    found = build(template, case, tile, isa)(images | packed, cuts)
    filters = values["weight"].shape[0]
    return window.unblocked(found.reshape(case.batch, -1, *case.window.output, isa.lanes), filters)


def _check(build: Build, template: Any, case: Any, tile: Any, isa: Isa, values: Any, cuts: Sequence[int] = ()) -> None:
    found, wanted = _found(build, template, case, tile, isa, values, cuts), template.reference(case, **values)
    if case.gives == "float32":
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    else:
        np.testing.assert_array_equal(found, wanted)


@settings(max_examples=36, deadline=None, derandomize=True)
@given(case=cases(), choice=st.integers(0, 3), which=st.integers(0, 3), seed=st.integers(0, 9), extreme=st.booleans())
def test_convolution_equals_its_reference(
    build: Build, here: Sequence[Isa], case: QConvCase, choice: int, which: int, seed: int, extreme: bool
) -> None:
    isa = here[which % len(here)]
    tiles = qconv.tiles(case, isa)
    values = _values(case, case.filters, case.channels, seed=seed, extreme=extreme)
    _check(build, qconv, case, tiles[min(choice, len(tiles) - 1)], isa, values)


@st.composite
def thin_cases(draw: st.DrawFn) -> QDepthwiseCase:
    takes, gives = draw(st.sampled_from(TYPES)), draw(st.sampled_from((*TYPES, "float32")))
    codes = gives != "float32"
    return QDepthwiseCase(
        2,
        draw(st.sampled_from((1, 16, 20, 37))),
        draw(st.sampled_from(WINDOWS)),
        takes=takes,
        gives=gives,
        activation="none" if codes else draw(st.sampled_from(("none", "relu6"))),
        clip=codes and draw(st.booleans()),
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(case=thin_cases(), pixels=st.sampled_from((1, 3, 8)), which=st.integers(0, 3), seed=st.integers(0, 19))
def test_depthwise_equals_its_reference(
    build: Build, here: Sequence[Isa], case: QDepthwiseCase, pixels: int, which: int, seed: int
) -> None:
    values = _values(case, case.channels, 1, seed=seed, extreme=seed > 9)
    _check(build, qdepthwise, case, QDepthwiseTile(pixels), here[which % len(here)], values)


def test_any_division_of_the_work_gives_the_same(build: Build, here: Sequence[Isa]) -> None:
    isa, moving = here[0], Window((64, 70), (3, 3), padding=(1, 1, 1, 1))
    case, tile = QConvCase(1, 67, 40, moving, residual="uint8"), QConvTile(4, 2)
    assert qconv.items(case, tile, isa) > 5
    _check(build, qconv, case, tile, isa, _values(case, 40, 67), cuts=(1, 2, qconv.items(case, tile, isa) - 1))
    thin = QDepthwiseCase(1, 20, moving)
    count = qdepthwise.items(thin, QDepthwiseTile(8), isa)
    assert count > 5
    _check(build, qdepthwise, thin, QDepthwiseTile(8), isa, _values(thin, 20, 1), cuts=(1, 2, count - 1))


def test_sums_beyond_every_code_saturate(build: Build, here: Sequence[Isa]) -> None:
    """Products that leave int32 when they are rounded go to the code at their end."""
    case = QConvCase(1, 4, 2, Window((1, 1), (1, 1)), gives="int8")
    weight = np.array([[100] * 4, [-100] * 4], np.int8).reshape(2, 4, 1, 1)
    values = {"x": np.full((1, 4, 1, 1), 255, np.uint8), "weight": weight, "scale": np.full(2, 1e9, np.float32)}
    values["y_zero"] = -128
    found = _found(build, qconv, case, qconv.tiles(case, here[0])[0], here[0], values)
    assert found.ravel().tolist() == [127, -128]


def test_gentle_weights_are_those_whose_pairs_fit_int16() -> None:
    assert dot.gentle(np.array([[64, 64, -64, -64], [127, -128, 1, -1]], np.int8))
    assert not dot.gentle(np.array([[1, 2, 100, 29]], np.int8))
    assert not dot.gentle(np.array([[-65, -64, 5]], np.int8))
    assert dot.gentle(np.array([[5, 100, 100]], np.int8))


def test_weights_that_are_not_gentle_are_refused(here: Sequence[Isa]) -> None:
    case = QConvCase(1, 2, 1, WINDOWS[0], gentle=True)
    weight, scale = np.full((1, 2, 1, 1), 100, np.int8), np.ones(1, np.float32)
    with pytest.raises(ValueError, match="weights are not gentle"):
        qconv.pack(case, qconv.tiles(case, here[0])[0], here[0], weight=weight, scale=scale)


@pytest.mark.parametrize("name", isa_names())
def test_compiles_for_every_instruction_set(tvm: Any, name: str) -> None:
    isa = isa_named(name)
    case = QConvCase(1, 20, 40, WINDOWS[4], takes="int8", residual="uint8")
    thin = QDepthwiseCase(1, 20, WINDOWS[3])
    functions = {
        "dense": qconv.function(case, qconv.tiles(case, isa)[0], isa, "dense"),
        "thin": qdepthwise.function(thin, qdepthwise.tiles(thin, isa)[0], isa, "thin"),
    }
    assert compile_object(functions, isa)[:4] == b"\x7fELF"
