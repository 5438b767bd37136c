"""LayerNorm, softmax, GELU and the exponential: as exact as promised, at every size, within their buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erfc, sqrt
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_exporters.kernels import gelu, norm, softmax, vectormath
from edgewright_exporters.kernels.gelu import GeluCase, GeluTile
from edgewright_exporters.kernels.norm import NormCase
from edgewright_exporters.kernels.softmax import SoftmaxCase
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.compiler import compile_object
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names

Build = Callable[..., Any]
COLUMNS = (1, 2, 5, 7, 16, 17, 31, 64, 127, 192, 197, 769)


@settings(max_examples=16, deadline=None, derandomize=True)
@given(columns=st.sampled_from(COLUMNS), residual=st.booleans(), choice=st.integers(0, 2), narrow=st.booleans())
def test_layernorm_equals_its_reference(
    build: Build, here: Sequence[Isa], columns: int, residual: bool, choice: int, narrow: bool
) -> None:
    isa = here[-1] if narrow else here[0]
    case = NormCase(7, columns, residual=residual)
    tile = norm.tiles(case, isa)[choice]
    rng = np.random.default_rng(columns)
    x, more = (rng.normal(1.0, 3.0, (7, columns)).astype(np.float32) for _ in range(2))
    scale, bias = norm.pack(case, tile, isa, scale=rng.normal(1, 1, columns), bias=rng.normal(0, 1, columns))
    values = {"x": x, "scale": scale, "bias": bias, **({"residual": more} if residual else {})}
    found = build(norm, case, tile, isa).outputs(values, cuts=(1, 3))
    wanted = norm.reference(case, x=x, scale=scale, bias=bias, residual=more if residual else None)
    assert np.abs(found["y"].reshape(7, columns) - wanted[-1]).max() <= 1e-5 * max(1.0, np.abs(wanted[-1]).max())
    if residual:
        assert np.array_equal(found["sum"].reshape(7, columns), x + more)


def test_layernorm_far_from_zero_loses_no_digits_to_cancellation(build: Build, here: Sequence[Isa]) -> None:
    case = NormCase(3, 197)
    x = (1000.0 + np.random.default_rng(0).standard_normal((3, 197))).astype(np.float32)
    scale, bias = np.ones(197, np.float32), np.zeros(197, np.float32)
    found = build(norm, case, norm.tiles(case, here[0])[0], here[0])({"x": x, "scale": scale, "bias": bias})
    assert np.abs(found.reshape(3, 197) - norm.reference(case, x=x, scale=scale, bias=bias)[0]).max() < 1e-3


@settings(max_examples=12, deadline=None, derandomize=True)
@given(columns=st.sampled_from(COLUMNS), factor=st.sampled_from((1.0, 0.125)), narrow=st.booleans())
def test_softmax_equals_its_reference(
    build: Build, here: Sequence[Isa], columns: int, factor: float, narrow: bool
) -> None:
    isa = here[-1] if narrow else here[0]
    case = SoftmaxCase(7, columns, factor)
    x = np.random.default_rng(columns).normal(0, 10, (7, columns)).astype(np.float32)
    found = build(softmax, case, softmax.tiles(case, isa)[0], isa)({"x": x}, cuts=(2, 6)).reshape(7, columns)
    wanted = softmax.reference(case, x=x)
    assert (np.abs(found - wanted) <= 1e-5 * wanted + 1e-30).all()


def test_softmax_of_huge_scores_is_finite(build: Build, here: Sequence[Isa]) -> None:
    case = SoftmaxCase(1, 20)
    x = np.full((1, 20), -3e38, np.float32)
    x[0, 3] = 3e38
    found = build(softmax, case, softmax.tiles(case, here[0])[0], here[0])({"x": x})
    assert found[3] == pytest.approx(1.0)
    assert found.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("size", [1, 7, 4096, 9001])
def test_gelu_is_exact_to_a_millionth(build: Build, here: Sequence[Isa], size: int) -> None:
    case, tile = GeluCase(size), GeluTile(2048, 4)
    x = np.linspace(-12, 12, size, dtype=np.float32)
    count = gelu.items(case, tile, here[0])
    found = build(gelu, case, tile, here[0])({"x": x}, cuts=range(1, count))
    wanted = gelu.reference(case, x=x)
    assert (np.abs(found - wanted) <= 5e-7 + 1e-7 * np.abs(wanted)).all()


def test_the_gaussian_tail_stands_alone_at_its_ends() -> None:
    assert sum(vectormath.GELU_TERMS) == pytest.approx(0.5 * erfc(vectormath.GELU_END / sqrt(2)), abs=1e-7)
    assert sum(term * (-1) ** power for power, term in enumerate(vectormath.GELU_TERMS)) == pytest.approx(0.5, abs=1e-4)


def test_exponential_to_two_units_in_the_last_place(build: Build, here: Sequence[Isa]) -> None:
    size = 1 << 16
    template = ModuleType("exponential")

    def function(case: str, tile: str, isa: Isa, symbol: str) -> Any:
        def body(x: Any, y: Any, begin: Any, end: Any) -> None:
            with builder.loop(begin, end) as item:
                at = item * isa.lanes
                builder.store(y, at, vectormath.exp(builder.load(x, at, isa.lanes), isa.lanes), isa.lanes)

        return builder.function(symbol, template.arguments(case, tile, isa), body)

    template.function = function
    template.arguments = lambda case, tile, isa: (Argument("x", "float32", size), Argument("y", "float32", size))
    template.items = lambda case, tile, isa: size // isa.lanes
    x = np.linspace(vectormath.EXP_LOWEST, vectormath.EXP_HIGHEST, size, dtype=np.float32)
    found = build(template, "case", "tile", here[0])({"x": x})
    assert np.abs(found / np.exp(x.astype(np.float64)) - 1).max() < 2 * 2.0**-24


@pytest.mark.parametrize("name", isa_names())
def test_compiles_for_every_instruction_set(tvm: ModuleType, name: str) -> None:
    isa = isa_named(name)
    cases = ((norm, NormCase(5, 17, residual=True)), (softmax, SoftmaxCase(5, 17)), (gelu, GeluCase(100)))
    functions = {
        f"kernel{number}": template.function(case, template.tiles(case, isa)[0], isa, f"kernel{number}")
        for number, (template, case) in enumerate(cases)
    }
    assert compile_object(functions, isa)[:4] == b"\x7fELF"
