"""The product of bytes: exact, whatever the types, the zero points and the instruction set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.grids import SHIFTS
from edgewright_exporters.kernels import dot, qgemm
from edgewright_exporters.kernels.codebook import INT4, encode
from edgewright_exporters.kernels.qgemm import QGemmCase
from edgewright_exporters.kernels.requantise import LIMITS
from edgewright_exporters.kernels.tiles import Tile
from edgewright_exporters.tir.isa import Isa, isa_named

Build = Callable[..., Any]
TYPES = ("uint8", "int8")
GENTLE_CODES = {"codes": INT4, "gentle": True}
GENTLE_SHIFTS = {"codes": SHIFTS, "gentle": True}


@st.composite
def cases(draw: st.DrawFn) -> QGemmCase:
    takes, gives = draw(st.sampled_from(TYPES)), draw(st.sampled_from((*TYPES, "float32")))
    floats = gives == "float32"
    return QGemmCase(
        rows=draw(st.sampled_from((1, 2, 7, 13, 29))),
        depth=draw(st.sampled_from((1, 2, 3, 16, 37, 64))),
        columns=draw(st.sampled_from((1, 5, 16, 31, 47, 101))),
        takes=takes,
        gives=gives,
        activation=draw(st.sampled_from(("none", "relu", "gelu"))) if floats else "none",
        residual=floats and draw(st.booleans()),
        **draw(
            st.sampled_from(({}, {"gentle": True}, {"codes": INT4}, {"codes": SHIFTS}, GENTLE_CODES, GENTLE_SHIFTS))
        ),
    )


def _values(case: QGemmCase, *, seed: int = 0, extreme: bool = False) -> dict[str, Any]:
    """Random inputs over the whole range of their types; `extreme` leaves only its two ends."""
    rng = np.random.default_rng((seed, case.rows, case.columns))
    low, high = LIMITS[case.takes]
    x = rng.integers(low, high + 1, (case.rows, case.depth))
    weight = rng.integers(-127, 128, (case.depth, case.columns))
    if extreme:
        x, weight = np.where(x > (low + high) / 2, high, low), np.where(weight > -100, 127, -127)
    if case.gentle:
        weight = weight // 2
    if case.codes:
        ends = (min(case.codes), max(case.codes))
        weight = rng.choice(ends if extreme else case.codes, weight.shape)
    values: dict[str, Any] = {
        "x": x.astype(case.takes),
        "weight": weight.astype(np.int8),
        "scale": (rng.uniform(0.2, 1.0, case.columns) / (40 * case.depth**0.5)).astype(np.float32),
        "x_zero": int(rng.integers(low, high + 1)),
    }
    if case.gives != "float32":
        values["y_zero"] = int(rng.integers(*LIMITS[case.gives], endpoint=True))
    if rng.integers(2):
        values["bias"] = rng.integers(-(2**20), 2**20, case.columns).astype(np.int32)
    if case.residual:
        values["residual"] = rng.standard_normal((case.rows, case.columns), np.float32)
    return values


def _found(
    build: Build, case: QGemmCase, tile: Tile, isa: Isa, *, values: dict[str, Any], cuts: Sequence[int] = ()
) -> npt.NDArray[Any]:
    constants = {name: value for name, value in values.items() if name not in ("x", "residual")}
    packed = dict(zip(("w", "bias", "scale", "codes"), qgemm.pack(case, tile, isa, **constants)))
    inputs = {"x": values["x"], "residual": values.get("residual")} | packed
    return build(qgemm, case, tile, isa)(inputs, cuts).reshape(case.rows, case.columns)


def _check(build: Build, case: QGemmCase, tile: Tile, isa: Isa, *, seed: int = 0, extreme: bool = False) -> None:
    values = _values(case, seed=seed, extreme=extreme)
    found, wanted = _found(build, case, tile, isa, values=values), qgemm.reference(case, **values)
    if case.gives == "float32":
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 if case.activation == "gelu" else 1e-7)
    else:
        np.testing.assert_array_equal(found, wanted)


def test_weights_that_are_not_gentle_are_refused() -> None:
    case, isa = QGemmCase(1, 2, 1, gentle=True), isa_named("x86-64-v3")
    with pytest.raises(ValueError, match="not gentle"):
        qgemm.pack(case, Tile(1, 1), isa, weight=np.full((2, 1), 127, np.int8), scale=np.ones(1, np.float32))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases(), choice=st.integers(0, 3), which=st.integers(0, 3), seed=st.integers(0, 9), extreme=st.booleans())
def test_equals_its_reference(
    build: Build, here: Sequence[Isa], case: QGemmCase, choice: int, which: int, seed: int, extreme: bool
) -> None:
    isa = here[which % len(here)]
    tiles = qgemm.tiles(case, isa)
    _check(build, case, tiles[min(choice, len(tiles) - 1)], isa, seed=seed, extreme=extreme)


def test_primes_everywhere_on_every_instruction_set(build: Build, here: Sequence[Isa]) -> None:
    for isa in here:
        case = QGemmCase(197, 191, 193, codes=INT4 if isa == here[0] else ())
        _check(build, case, qgemm.tiles(case, isa)[0], isa)


def test_sums_of_shifts_are_those_of_shifting_and_adding(build: Build, here: Sequence[Isa]) -> None:
    """Against x shifted left by the power, and subtracted where the sign says so: no product at all."""
    rng = np.random.default_rng(0)
    for isa, takes in zip(here * 2, TYPES * len(here)):
        case = QGemmCase(13, 67, 59, takes=takes, gives="float32", codes=SHIFTS, gentle=True)
        codes = rng.integers(0, 16, (67, 59))
        values = _values(case) | {"weight": np.array(SHIFTS, np.int8)[codes], "scale": np.ones(59, np.float32)}
        values |= {"bias": np.zeros(59, np.int32), "x_zero": 0}
        powers, negative, some = np.maximum((codes & 7) - 1, 0), codes & 8, codes & 7
        moved = values["x"].astype(np.int64)[:, :, None] << powers[None]
        wanted = np.where(some, np.where(negative, -moved, moved), 0).sum(1)
        found = _found(build, case, qgemm.tiles(case, isa)[0], isa, values=values)
        np.testing.assert_array_equal(found, wanted)


def test_every_weight_of_shifts_is_gentle() -> None:
    assert dot.gentle(np.array([[64, 64], [-64, -64]], np.int8))


def test_any_division_of_the_work_gives_the_same(build: Build, here: Sequence[Isa]) -> None:
    case = QGemmCase(29, 37, 101)
    tile, values = qgemm.tiles(case, here[0])[0], _values(case)
    count = qgemm.items(case, tile, here[0])
    found = _found(build, case, tile, here[0], values=values, cuts=(1, 2, count - 1))
    np.testing.assert_array_equal(found, qgemm.reference(case, **values))


def test_halves_go_to_the_even_code(build: Build, here: Sequence[Isa]) -> None:
    case = QGemmCase(1, 1, 9, takes="int8", gives="int8")
    x, weight, scale = np.ones((1, 1), np.int8), np.arange(-4, 5, dtype=np.int8)[None], np.full(9, 0.5, np.float32)
    values = {"x": x, "weight": weight, "scale": scale}
    found = _found(build, case, qgemm.tiles(case, here[0])[0], here[0], values=values)
    assert found[0].tolist() == [-2, -2, -1, 0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize(("name", "instruction"), [("x86-64-v4-vnni", "vpdpbusd"), ("armv8.2-a-dot", "sdot")])
def test_the_dot_product_instruction_is_used(tvm: Any, name: str, instruction: str) -> None:
    from edgewright_exporters.tir.compiler import assembly

    isa = isa_named(name)
    case = QGemmCase(8, 64, 64)
    text = assembly({"kernel": qgemm.function(case, qgemm.tiles(case, isa)[0], isa, "kernel")}, isa)
    assert instruction in text


def test_a_weight_outside_the_codebook_is_named() -> None:
    with pytest.raises(ValueError, match="the weight 9 is not in the codebook"):
        encode(INT4, np.array([[1, 9]], np.int8))
    with pytest.raises(ValueError, match="16 values"):
        encode((1, 2), np.array([[1]], np.int8))


def test_four_bit_weights_take_half_the_bytes(here: Sequence[Isa]) -> None:
    isa = here[0]
    sizes = []
    for codes in ((), INT4):
        case = QGemmCase(1, 64, 64, codes=codes)
        sizes.append(qgemm.arguments(case, Tile(1, 2), isa)[1].size)
    assert sizes[0] == 2 * sizes[1]
