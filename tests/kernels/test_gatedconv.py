"""Convolutions that compute some channels: equal to their reference for any mask, within their buffers, and found."""

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
from edgewright_exporters.kernels import gatedconv, window
from edgewright_exporters.kernels.gatedconv import GatedConvCase
from edgewright_exporters.kernels.window import Window, correlate
from edgewright_exporters.onnx_kernels.choose import first_guess
from edgewright_exporters.onnx_kernels.library import library_of
from edgewright_exporters.onnx_kernels.rewrite import packed, rewrite
from edgewright_exporters.onnx_kernels.running import run_files
from edgewright_exporters.tir.compiler import compile_object
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names

Build = Callable[..., Any]
WINDOWS = (
    Window((5, 33), (1, 1)),
    Window((11, 13), (3, 3), (1, 1), (1, 1, 1, 1)),
    Window((9, 8), (3, 3), (2, 2), (0, 0, 1, 1)),
    Window((2, 2), (3, 3), (1, 1), (1, 1, 1, 1)),
)


def _given(case: GatedConvCase, seed: int, fires: float, empty: float) -> dict[str, Any]:
    """Logits of which about `fires` are above 0, and an image of whose channels about `empty` are."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, case.channels, *case.window.image), np.float32)
    if case.signless:
        x = np.abs(x) * (rng.random((1, case.channels, 1, 1)) >= empty).astype(np.float32)
    logits = (rng.random((1, -(-case.filters // case.block))) - (1 - fires)).astype(np.float32)
    return {
        "x": x,
        "weight": rng.standard_normal((case.filters, case.channels, *case.window.kernel), np.float32),
        "bias": rng.standard_normal(case.filters, np.float32),
        "logits": logits,
        "means": x.mean((2, 3)) if case.signless else None,
    }


def _run(build: Build, case: GatedConvCase, isa: Isa, plain: dict[str, Any], cuts: Sequence[int] = ()) -> np.ndarray:
    """Raises unless it is within 1e-5 of the sum of absolute products, and 0 where nothing is wanted; which is."""
    tile = gatedconv.tiles(case, isa)[-1]
    packed = gatedconv.pack(case, tile, isa, weight=plain["weight"], bias=plain["bias"])
    values = dict(zip(("w", "bias"), packed), x=window.blocked(plain["x"], isa.lanes), logits=plain["logits"])
    values |= {"means": plain["means"]} if case.signless else {}
    found = build(gatedconv, case, tile, isa)(values, cuts).reshape(1, -1, *case.window.output, isa.lanes)
    got, wanted = window.unblocked(found, case.filters), gatedconv.reference(case, **plain)
    scale = correlate(case.window, np.abs(plain["x"]), np.abs(plain["weight"])) + 10.0
    assert (np.abs(got - wanted) <= 1e-5 * scale).all()
    fires = np.repeat(plain["logits"].ravel() >= min(plain["logits"].max(), 0), case.block)[: case.filters]
    assert not got[:, ~fires].any()
    return fires


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    channels=st.sampled_from((16, 48)),
    filters=st.sampled_from((16, 32, 80)),
    moving=st.sampled_from(WINDOWS),
    block=st.sampled_from((1, 4, 8, 24)),
    signless=st.booleans(),
    activation=st.sampled_from(("none", "relu", "gelu")),
    fires=st.sampled_from((0.0, 0.3, 1.0)),
    empty=st.sampled_from((0.0, 0.9, 1.0)),
    narrow=st.booleans(),
)
def test_it_equals_its_reference_for_any_mask(
    build: Build, here: Sequence[Isa], narrow: bool, fires: float, empty: float, **drawn: Any
) -> None:
    case = GatedConvCase(window=drawn.pop("moving"), **drawn)
    for seed in range(2):
        _run(build, case, here[-1] if narrow else here[0], _given(case, seed, fires, empty))


def test_any_division_of_the_work_gives_the_same(build: Build, here: Sequence[Isa]) -> None:
    case = GatedConvCase(16, 80, WINDOWS[1], 8, True)
    count = gatedconv.items(case, gatedconv.tiles(case, here[0])[-1], here[0])
    assert count > 10
    fires = _run(build, case, here[0], _given(case, 3, 0.5, 0.5), cuts=(1, 2, count - 3))
    assert 0 < fires.sum() < 80


@pytest.mark.parametrize("name", isa_names())
def test_compiles_for_every_instruction_set(tvm: ModuleType, name: str) -> None:
    isa = isa_named(name)
    case = GatedConvCase(32, 48, WINDOWS[1], 8, True, "relu")
    functions = {"gated": gatedconv.function(case, gatedconv.tiles(case, isa)[0], isa, "gated")}
    assert compile_object(functions, isa)[:4] == b"\x7fELF"


def test_what_lower_writes_of_a_network_with_predictors_is_found_and_computes_the_same(
    tvm: ModuleType, here: Sequence[Isa], tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    graph = lowered_gates(torch)
    result = rewrite(graph, here[0], first_guess)
    assert result.replaced["gatedconv"] == 2
    assert not {"NonZero", "ScatterND"} & onnxkit.operators(result.proto).keys()
    try:
        content = library_of(result.kernels, here[0], tmp_path, headers=headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    library, model = tmp_path / "kernels.so", tmp_path / "model.onnx"
    library.write_bytes(content)
    model.write_bytes(packed(result))
    feeds = [{"image": 3 * np.random.default_rng(n).standard_normal((1, 3, 8, 8), np.float32)} for n in range(4)]
    wanted = list(onnxkit.run(onnxkit.pack(graph), feeds))
    assert len({tuple(each[0].ravel() == 0) for each in wanted}) > 1, "what is skipped depends on the input"
    for (want,), got in zip(wanted, run_files([model], library, feeds), strict=True):
        np.testing.assert_allclose(got["y"], want, rtol=1e-4, atol=1e-5)


def lowered_gates(torch: Any) -> Any:
    """Three convolutions of which two have predictors, with answers that depend on the image."""
    from torch import nn

    from edgewright_plugins.ftwt.find import units_of
    from edgewright_plugins.ftwt.gates import gate_, gates
    from edgewright_plugins.lower.export import lower_module

    torch.manual_seed(0)
    layers = [nn.Conv2d(wide, out, 3, padding=1) for wide, out in ((3, 16), (16, 32), (32, 16))]
    net = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU()))).eval()
    image = torch.randn(1, 3, 8, 8)
    gate_(net, units_of(net, [image], 8))
    for each in gates(net):
        nn.init.normal_(each.predict.weight)
        with torch.no_grad():  # what they see is around 1
            each.predict.bias.copy_(-each.predict.weight.sum(1))
    return lower_module(net, {"image": image.numpy()}, ["y"])
