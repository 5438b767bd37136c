"""Products between codes: which become kernels, and that they give the bytes that the graph stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.grids import SHIFTS
from edgewright.numerics import worst
from edgewright.toolchain.ortheader import headers_place
from edgewright_exporters.onnx_kernels.choose import first_guess
from edgewright_exporters.onnx_kernels.library import library_of
from edgewright_exporters.onnx_kernels.rewrite import packed, rewrite
from edgewright_exporters.onnx_kernels.running import run_files
from edgewright_exporters.tir.isa import Isa, isa_named

RNG = np.random.default_rng(3)
COLUMNS = 2.0 ** RNG.integers(-9, -6, 19)
CONSTANTS: Mapping[str, Any] = {
    "w": RNG.integers(-127, 128, (13, 19)).astype(np.int8),
    "wt": RNG.integers(-127, 128, (19, 13)).astype(np.int8),
    "wu": RNG.integers(0, 256, (13, 19)).astype(np.uint8),
    "ws": COLUMNS.astype(np.float32),
    "ws1": np.float32(0.125),
    "rows_s": np.ones(13, np.float32),
    "wz": np.zeros(19, np.int8),
    "wz1": np.ones(19, np.int8),
    "b": RNG.integers(-5000, 5000, 19).astype(np.int32),
    "bs": (COLUMNS / 8).astype(np.float32),
    "bz": np.zeros(19, np.int32),
    "xs": np.float32(0.125),
    "xz": np.uint8(131),
    "xzs": np.int8(-7),
    "ys": np.float32(0.5),
    "yz": np.uint8(120),
    "yzs": np.int8(3),
    "back": np.array([1, 7, 19]),
    "numbers": RNG.integers(0, 16, (13, 19)).astype(ml_dtypes.uint4),
    "table": np.array(SHIFTS, np.int8),
}
"""Scales are powers of two, so that float32 holds every sum exactly and no rounding is a matter of taste."""

HEAD = "xf = DequantizeLinear(x, xs, xz) wf = DequantizeLinear<axis=1>(w, ws, wz)"
BIAS = "bf = DequantizeLinear<axis=0>(b, bs, bz)"
FLOATS = "float[7,19] y"


@dataclass(frozen=True)
class Sample:
    """A graph, and what its product becomes: the fields of the case that matter, or nothing."""

    body: str
    case: Mapping[str, Any] | None
    inputs: str = "uint8[7,13] x"
    outputs: str = "uint8[7,19] y"
    opset: int = 20

    def proto(self) -> Any:
        head = f'<ir_version: 10, opset_import: ["" : {self.opset}]>'
        text = f"{head} g ({self.inputs}) => ({self.outputs}) {{ {self.body} }}"
        proto = parser.parse_model(text)
        given = {value.name for value in proto.graph.input} | {n for node in proto.graph.node for n in node.output}
        used = {name for node in proto.graph.node for name in node.input} - given
        proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(CONSTANTS[n]), n) for n in sorted(used))
        return proto


SAMPLES = {
    "bytes": Sample(
        f"{HEAD} {BIAS} f = Gemm(xf, wf, bf) y = QuantizeLinear(f, ys, yz)",
        {"takes": "uint8", "gives": "uint8"},
    ),
    "no bias": Sample(f"{HEAD} f = MatMul(xf, wf) y = QuantizeLinear(f, ys, yz)", {"gives": "uint8"}),
    "signed": Sample(
        f"{HEAD.replace('xz', 'xzs')} f = Gemm(xf, wf) y = QuantizeLinear(f, ys, yzs)",
        {"takes": "int8", "gives": "int8"},
        "int8[7,13] x",
        "int8[7,19] y",
    ),
    "turned weight": Sample(
        f"""xf = DequantizeLinear(x, xs, xz) wf = DequantizeLinear<axis=0>(wt, ws, wz) {BIAS}
            f = Gemm<transB=1>(xf, wf, bf) y = QuantizeLinear(f, ys, yz)""",
        {"gives": "uint8"},
    ),
    "one scale": Sample(
        "xf = DequantizeLinear(x, xs, xz) wf = DequantizeLinear(w, ws1) y = MatMul(xf, wf)",
        {"gives": "float32", "activation": "none"},
        outputs=FLOATS,
    ),
    "shifts in four bits": Sample(
        f"""places = Cast<to=6>(numbers) w = Gather(table, places) {HEAD} {BIAS}
            f = Gemm(xf, wf, bf) y = QuantizeLinear(f, ys, yz)""",
        {"gives": "uint8", "codes": SHIFTS, "gentle": True},
        opset=21,
    ),
    "gelu": Sample(f"{HEAD} {BIAS} f = Gemm(xf, wf, bf) y = Gelu(f)", {"activation": "gelu"}, outputs=FLOATS),
    "residual behind a new shape": Sample(
        f"{HEAD} {BIAS} f = Gemm(xf, wf, bf) g = Reshape(f, back) y = Add(r, g)",
        {"gives": "float32", "residual": True},
        "uint8[7,13] x, float[1,7,19] r",
        "float[1,7,19] y",
    ),
    "rounded, and used before": Sample(
        f"{HEAD} f = MatMul(xf, wf) y = QuantizeLinear(f, ys, yz) z = Neg(f)",
        {"gives": "float32"},
        outputs="uint8[7,19] y, float[7,19] z",
    ),
    # onnxruntime moves this rounding to the other side of the Transpose, and renames what the kernel gives
    "rounded behind a transpose": Sample(
        f"""{HEAD} {BIAS} f = Gemm(xf, wf, bf) t = Transpose<perm=[1,0]>(f) q = QuantizeLinear(t, ys, yz)
            y = DequantizeLinear(q, ys, yz)""",
        {"gives": "float32"},
        outputs="float[19,7] y",
    ),
    "weight with a zero point": Sample(f"{HEAD.replace('wz', 'wz1')} y = MatMul(xf, wf)", None, outputs=FLOATS),
    "unsigned weight": Sample(
        "xf = DequantizeLinear(x, xs, xz) wf = DequantizeLinear(wu, ws1) y = MatMul(xf, wf)", None, outputs=FLOATS
    ),
    "scales along the depth": Sample(
        "xf = DequantizeLinear(x, xs, xz) wf = DequantizeLinear<axis=0>(w, rows_s) y = MatMul(xf, wf)",
        None,
        outputs=FLOATS,
    ),
    "bias of another scale": Sample(
        f"{HEAD} bf = DequantizeLinear<axis=0>(b, ws, bz) y = Gemm(xf, wf, bf)", None, outputs=FLOATS
    ),
    "scale from outside": Sample(
        f"{HEAD.replace('xs', 's')} y = MatMul(xf, wf)", None, "uint8[7,13] x, float s", outputs=FLOATS
    ),
    "free rows": Sample(f"{HEAD} y = MatMul(xf, wf)", None, "uint8[n,13] x", "float[n,19] y"),
}
FOUND = {name: sample for name, sample in SAMPLES.items() if sample.case is not None}


@pytest.mark.parametrize("name", SAMPLES)
def test_exactly_these_products_become_kernels(name: str):
    result = rewrite(SAMPLES[name].proto(), isa_named("x86-64-v3"), first_guess)
    cases = [kernel.job.case for kernel in result.kernels.values()]
    assert [case == replace(case, **SAMPLES[name].case or {}) for case in cases] == [True] * (name in FOUND)


@pytest.mark.parametrize("name", ["xz", "yz"])
def test_zero_points_need_no_kernels_of_their_own(name: str):
    protos = [SAMPLES["no bias"].proto() for _ in range(2)]
    next(t for t in protos[1].graph.initializer if t.name == name).CopyFrom(numpy_helper.from_array(np.uint8(5), name))
    first, second = (rewrite(proto, isa_named("x86-64-v3"), first_guess).kernels for proto in protos)
    assert list(first) == list(second)


@pytest.fixture(scope="session")
def isa(here: Sequence[Isa]) -> Isa:
    return here[0]


@pytest.fixture(scope="session")
def library(tvm: ModuleType, isa: Isa, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One library with the kernels of every sample."""
    folder = tmp_path_factory.mktemp("quantised")
    kernels = {s: k for each in FOUND.values() for s, k in rewrite(each.proto(), isa, first_guess).kernels.items()}
    try:
        content = library_of(kernels, isa, folder, headers=headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    place = folder / "kernels.so"
    place.write_bytes(content)
    return place


@pytest.mark.parametrize("name", FOUND)
def test_it_gives_what_the_graph_stands_for(name: str, library: Path, isa: Isa, tmp_path: Path):
    proto = FOUND[name].proto()
    feed = {value.name: noise(onnxkit.tensor_spec(value)) for value in proto.graph.input}
    names = [value.name for value in proto.graph.output]
    file = tmp_path / "model.onnx"
    file.write_bytes(packed(rewrite(proto, isa, first_guess)))
    (made,) = run_files([file], library, [feed])
    want, got = as_it_stands(proto, feed), [made[name] for name in names]
    if all(array.dtype != np.float32 for array in want):
        assert all(map(np.array_equal, want, got))
    assert worst(names, want, got).max_rel <= 1e-5


def noise(spec: Any) -> Any:
    rng = np.random.default_rng(5)
    if spec.dtype == "float32":
        return rng.standard_normal(spec.shape).astype(np.float32)
    limits = np.iinfo(spec.dtype)
    return rng.integers(limits.min, limits.max + 1, spec.shape).astype(spec.dtype)


def as_it_stands(proto: Any, feed: Mapping[str, Any]) -> list[Any]:
    """Node by node: what onnxruntime fuses for itself may round otherwise."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(None, dict(feed))]
