"""Fused attention: equal to its reference for any number of tokens, heads and keys a block, within its buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_exporters.kernels import attention
from edgewright_exporters.kernels.attention_panel import AttentionCase, AttentionTile
from edgewright_exporters.tir.compiler import compile_object
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names

Build = Callable[..., Any]


def _check(build: Build, case: AttentionCase, tile: AttentionTile, isa: Isa, cuts: Sequence[int] = ()) -> None:
    """Raises unless every number is within 1e-5 of the largest that V has."""
    rng = np.random.default_rng(case.keys)
    row = case.heads * case.size
    q, k, v = (
        rng.normal(0.0, 2.0, (case.batch, tokens, row)).astype(np.float32)
        for tokens in (case.queries, case.keys, case.keys)
    )
    values = {"qkv": np.concatenate((q, k, v), axis=-1)} if case.packed else {"q": q, "k": k, "v": v}
    found = build(attention, case, tile, isa)(values, cuts).reshape(q.shape)
    assert np.abs(found - attention.reference(case, q=q, k=k, v=v)).max() <= 1e-5 * np.abs(v).max()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    queries=st.sampled_from((1, 5, 16, 29)),
    keys=st.sampled_from((1, 7, 31, 50)),
    size=st.sampled_from((5, 20, 32, 64)),
    shape=st.sampled_from(((1, 6, 512), (2, 5, 10), (3, 8, 512))),
    narrow=st.booleans(),
)
def test_equals_its_reference(
    build: Build, here: Sequence[Isa], queries: int, keys: int, size: int, shape: tuple[int, int, int], narrow: bool
) -> None:
    isa = here[-1] if narrow else here[0]
    _check(build, AttentionCase(2, queries, keys, 2, size, size**-0.5), AttentionTile(*shape), isa)


@pytest.mark.parametrize("size", [32, 64])
def test_packed_heads_of_197_tokens_in_any_division_of_the_work(build: Build, here: Sequence[Isa], size: int) -> None:
    case = AttentionCase(1, 197, 197, 3, size, size**-0.5, packed=True)
    tile = attention.tiles(case, here[0])[0]
    count = attention.items(case, tile, here[0])
    assert count > 3
    _check(build, case, tile, here[0])
    _check(build, case, tile, here[0], cuts=(1, 4, count - 1))


def test_scores_in_the_hundreds_do_not_overflow_between_blocks(build: Build, here: Sequence[Isa]) -> None:
    case = AttentionCase(1, 20, 97, 1, 32, 30.0)
    _check(build, case, AttentionTile(2, 8, 24), here[0])


@pytest.mark.parametrize("name", isa_names())
def test_compiles_for_every_instruction_set(tvm: ModuleType, name: str) -> None:
    isa = isa_named(name)
    case = AttentionCase(1, 19, 19, 2, 32, 1.0, packed=True)
    function = attention.function(case, attention.tiles(case, isa)[0], isa, "kernel")
    assert compile_object({"kernel": function}, isa)[:4] == b"\x7fELF"
