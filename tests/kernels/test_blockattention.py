"""Attention of some blocks of keys: equal to its reference for any mask, within its buffers, and found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.toolchain.ortheader import headers_place
from edgewright_exporters.kernels import blockattention
from edgewright_exporters.kernels.attention_panel import AttentionTile
from edgewright_exporters.kernels.blockattention import BlockAttentionCase
from edgewright_exporters.onnx_kernels.choose import first_guess
from edgewright_exporters.onnx_kernels.library import library_of
from edgewright_exporters.onnx_kernels.rewrite import packed, rewrite
from edgewright_exporters.onnx_kernels.running import run_files
from edgewright_exporters.tir.compiler import compile_object
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names

Build = Callable[..., Any]


def _check(
    build: Build, case: BlockAttentionCase, tile: AttentionTile, isa: Isa, density: float, cuts: Sequence[int] = ()
) -> None:
    """Raises unless every number is within 1e-5 of the largest that V has."""
    rng = np.random.default_rng(case.keys)
    row = case.heads * case.size
    q, k, v = (
        rng.normal(0.0, 2.0, (case.batch, tokens, row)).astype(np.float32)
        for tokens in (case.queries, case.keys, case.keys)
    )
    mask = (rng.random((case.batch, case.heads, case.tiles, case.blocks)) < density).astype(np.float32)
    np.put_along_axis(mask, rng.integers(0, case.blocks, (*mask.shape[:3], 1)), 1, 3)  # each tile sees something
    values = {"qkv": np.concatenate((q, k, v), axis=-1)} if case.packed else {"q": q, "k": k, "v": v}
    found = build(blockattention, case, tile, isa)({**values, "mask": mask}, cuts).reshape(q.shape)
    wanted = blockattention.reference(case, mask=mask, q=q, k=k, v=v)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(v).max()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    queries=st.sampled_from((1, 16, 29, 64)),
    keys=st.sampled_from((1, 7, 31, 64)),
    size=st.sampled_from((5, 32)),
    tile=st.sampled_from((16, 32)),
    block=st.sampled_from((1, 3, 8)),
    density=st.sampled_from((0.0, 0.3, 1.0)),
    guess=st.booleans(),
    narrow=st.booleans(),
)
def test_equals_its_reference_for_any_mask(
    build: Build, here: Sequence[Isa], density: float, *, guess: bool, narrow: bool, **sizes: Any
) -> None:
    isa = here[-1] if narrow else here[0]
    case = BlockAttentionCase(2, heads=2, factor=sizes["size"] ** -0.5, **sizes)
    _check(build, case, blockattention.tiles(case, isa)[0 if guess else -1], isa, density)


def test_packed_heads_of_197_tokens_in_any_division_of_the_work(build: Build, here: Sequence[Isa]) -> None:
    case = BlockAttentionCase(1, 197, 197, 3, 64, 0.125, packed=True)
    tile = blockattention.tiles(case, here[0])[0]
    count = blockattention.items(case, tile, here[0])
    assert count > 3
    _check(build, case, tile, here[0], 0.5)
    _check(build, case, tile, here[0], 0.5, cuts=(1, 4, count - 1))


@pytest.mark.parametrize("name", isa_names())
def test_compiles_for_every_instruction_set(tvm: ModuleType, name: str) -> None:
    isa, case = isa_named(name), BlockAttentionCase(1, 37, 37, 2, 32, 1.0, packed=True)
    for tile in blockattention.tiles(case, isa):
        function = blockattention.function(case, tile, isa, "kernel")
        assert compile_object({"kernel": function}, isa)[:4] == b"\x7fELF"


def test_a_block_that_nobody_sees_is_not_read(build: Build, here: Sequence[Isa]) -> None:
    case = BlockAttentionCase(1, 16, 24, 1, 32, 1.0)
    tile = blockattention.tiles(case, here[0])[0]
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, tokens, 32), np.float32) for tokens in (16, 24, 24))
    k[:, 8:16], v[:, 8:16] = np.nan, np.nan
    mask = np.array([1, 0, 1], np.float32)
    found = build(blockattention, case, tile, here[0])({"q": q, "k": k, "v": v, "mask": mask})
    keep = np.r_[0:8, 16:24]
    wanted = blockattention.reference(
        BlockAttentionCase(1, 16, 16, 1, 32, 1.0), mask=np.ones(2, np.float32), q=q, k=k[:, keep], v=v[:, keep]
    )
    np.testing.assert_allclose(found.reshape(q.shape), wanted, atol=1e-5)


def test_what_lower_writes_of_a_network_with_predictors_is_found_and_computes_the_same(
    tvm: ModuleType, here: Sequence[Isa], tmp_path: Path
) -> None:
    graph = lowered_predictors(pytest.importorskip("torch"))
    result = rewrite(graph, here[0], first_guess)
    assert result.replaced["blockattention"] == 2
    assert not {"Where", "Softmax", "Greater"} & onnxkit.operators(result.proto).keys()
    try:
        content = library_of(result.kernels, here[0], tmp_path, headers=headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    library, model = tmp_path / "kernels.so", tmp_path / "model.onnx"
    library.write_bytes(content)
    model.write_bytes(packed(result))
    feeds = [{"image": np.random.default_rng(n).standard_normal((1, 3, 8, 8), np.float32)} for n in range(3)]
    for (want,), got in zip(onnxkit.run(onnxkit.pack(graph), feeds), run_files([model], library, feeds), strict=True):
        np.testing.assert_allclose(got["y"], want, rtol=1e-4, atol=1e-5)


def lowered_predictors(torch: Any) -> Any:
    """A transformer of two blocks on 65 tokens whose attentions are sparse, with masks that depend on the image."""
    from edgewright_plugins.lower.export import lower_module
    from edgewright_plugins.sparsifiner import Params
    from edgewright_plugins.sparsifiner.job import planned, sparse
    from vit import ViT

    torch.manual_seed(0)
    net, image = ViT(depth=2, cls=True).eval(), torch.randn(1, 3, 8, 8)
    sparse(net, planned(net, (image,), {}, Params(keep=0.6)), 0)
    return lower_module(net, {"image": image.numpy()}, ["y"])
