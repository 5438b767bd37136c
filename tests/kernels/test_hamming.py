"""Products of signs: exact on random shapes, heads that fill no bytes, every division of the work, and at the bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgewright_exporters.kernels import hamming
from edgewright_exporters.kernels.hamming_cut import HammingCase
from edgewright_exporters.kernels.tiles import Tile
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names

Build = Callable[..., Any]
SPECIAL = (0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, 1.0)


def case_of(
    batch: int, heads: int, queries: int, keys: int, size: int, *, packed: bool = False, scaled: bool = True
) -> HammingCase:
    """Heads side by side in the rows of Q and K; `packed` has Q, K and V in one array, token by token."""
    width = heads * size
    row = 3 * width if packed else width
    q, k = ((batch * n * row, place, n * row, size, row) for n, place in ((queries, 0), (keys, width * packed)))
    return HammingCase(batch, heads, queries, keys, size, q, k, scaled)


@st.composite
def cases(draw: st.DrawFn) -> HammingCase:
    packed, queries = draw(st.booleans()), draw(st.sampled_from((1, 2, 7, 37, 70)))
    return case_of(
        draw(st.sampled_from((1, 2))),
        draw(st.sampled_from((1, 3))),
        queries,
        queries if packed else draw(st.sampled_from((1, 5, 31, 33, 65, 200))),
        draw(st.sampled_from((1, 5, 8, 20, 63, 64, 127, 128, 250))),
        packed=packed,
        scaled=draw(st.booleans()),
    )


def _values(case: HammingCase, seed: int) -> dict[str, Any]:
    """Inputs of which some lie at the bound, some beside it, and some are no numbers."""
    rng = np.random.default_rng((seed, case.queries, case.keys, case.size))
    q, k = (rng.choice((*SPECIAL, *rng.standard_normal(8)), about[0]).astype(np.float32) for about in (case.q, case.k))
    bounds = rng.choice((0.0, 1.0, 1e-45, -0.5), (2, case.heads, case.size)).astype(np.float32)
    scale = rng.standard_normal(case.heads).astype(np.float32)
    same = {"k": q} if case.q[0] == case.k[0] and case.k[1] else {"k": k}
    values = {"q": q, **same, "q_bounds": bounds[0], "k_bounds": bounds[1]}
    return values | {"scale": scale} if case.scaled else values


def _found(build: Build, case: HammingCase, tile: Tile, isa: Isa, *, values: Any, cuts: Sequence[int] = ()) -> Any:
    constants = {name: values[name] for name in ("q_bounds", "k_bounds", "scale") if name in values}
    packed = dict(zip((*constants, "tables"), hamming.pack(case, tile, isa, **constants)))
    found = build(hamming, case, tile, isa)({**values, **packed}, cuts)
    return found.reshape(case.batch, case.heads, case.queries, case.keys)


@settings(max_examples=16, deadline=None, derandomize=True)
@given(case=cases(), choice=st.integers(0, 3), which=st.integers(0, 4), seed=st.integers(0, 9))
@example(case=case_of(1, 1, 2, 1, 64), choice=0, which=0, seed=0)  # a single key: see Plan.counts
def test_equals_its_reference(
    build: Build, here: Sequence[Isa], case: HammingCase, choice: int, which: int, seed: int
) -> None:
    isa, values = here[which % len(here)], _values(case, seed)
    tiles = hamming.tiles(case, isa)
    found = _found(build, case, tiles[min(choice, len(tiles) - 1)], isa, values=values)
    np.testing.assert_array_equal(found, hamming.reference(case, **values))


def test_the_reference_counts_bits_that_differ() -> None:
    case = case_of(1, 1, 1, 2, 3)
    q, k = np.array([1.0, 0.0, -1.0], np.float32), np.array([[2.0, -1.0, 0.5], [-1.0, 1.0, 1.0]], np.float32)
    bounds, scale = np.zeros((1, 3), np.float32), np.full(1, 0.5, np.float32)
    found = hamming.reference(case, q=q, k=k, q_bounds=bounds, k_bounds=bounds, scale=scale)
    assert found.tolist() == [[[[0.5, -1.5]]]]


@pytest.mark.parametrize("keys", [197, 1100])
def test_any_division_of_the_work_gives_the_same(build: Build, here: Sequence[Isa], keys: int) -> None:
    """1100 keys are several blocks of them."""
    case = case_of(1, 2, 70, keys, 64)
    tile, values = hamming.tiles(case, here[0])[0], _values(case, 0)
    count = hamming.items(case, tile, here[0])
    found = _found(build, case, tile, here[0], values=values, cuts=(1, 2, count // 2, count - 1))
    np.testing.assert_array_equal(found, hamming.reference(case, **values))


def limits(size: int) -> npt.NDArray[Any]:
    return np.array([np.ones(size), -np.ones(size)], np.float32)


@pytest.mark.parametrize("size", [127, 128, 121])
def test_heads_that_agree_in_everything_or_in_nothing(build: Build, here: Sequence[Isa], size: int) -> None:
    case, bounds = case_of(1, 1, 2, 2, size), np.zeros((1, size), np.float32)
    values = {"q": limits(size), "k": limits(size), "q_bounds": bounds, "k_bounds": bounds, "scale": np.ones(1)}
    found = _found(build, case, hamming.tiles(case, here[0])[0], here[0], values=values)
    assert found[0, 0].tolist() == [[size, -size], [-size, size]]


@pytest.mark.parametrize("name", isa_names())
def test_the_instruction_that_looks_up_or_counts_is_used(tvm: Any, name: str) -> None:
    from edgewright_exporters.tir.compiler import assembly

    isa, case = isa_named(name), case_of(1, 1, 70, 70, 64)
    text = assembly({"kernel": hamming.function(case, hamming.tiles(case, isa)[0], isa, "kernel")}, isa)
    assert ("vpshufb" if not isa.counts else "cnt\t" if isa.machine == "aarch64" else "vpopcntb") in text
