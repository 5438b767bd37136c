"""Convolutions of bytes in quantised graphs: what becomes kernels, what stays, and that every byte is the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.toolchain.ortheader import headers_place
from edgewright_exporters.onnx_kernels.choose import first_guess
from edgewright_exporters.onnx_kernels.library import library_of
from edgewright_exporters.onnx_kernels.rewrite import Kernelised, packed, rewrite
from edgewright_exporters.onnx_kernels.running import run_files
from edgewright_exporters.tir.isa import Isa, isa_named

RNG = np.random.default_rng(5)
FILTERS = 2.0 ** RNG.integers(-6, -2, 16)
CONSTANTS: Mapping[str, Any] = {
    "w": RNG.integers(-127, 128, (16, 5, 3, 3)).astype(np.int8),
    "w1": RNG.integers(-127, 128, (16, 16, 1, 1)).astype(np.int8),
    "thin": RNG.integers(-127, 128, (16, 1, 3, 3)).astype(np.int8),
    "unsigned": RNG.integers(0, 256, (16, 5, 3, 3)).astype(np.uint8),
    "ws": FILTERS.astype(np.float32),
    "ws1": np.float32(0.125),
    "wz": np.zeros(16, np.int8),
    "off": np.ones(16, np.int8),
    "b": RNG.integers(-5000, 5000, 16).astype(np.int32),
    "bs": (FILTERS / 8).astype(np.float32),
    "b1s": (FILTERS * 16).astype(np.float32),
    "bz": np.zeros(16, np.int32),
    "xs": np.float32(0.125),
    "xz": np.uint8(131),
    "xzs": np.int8(-7),
    "ms": np.float32(16.0),
    "mz": np.uint8(117),
    "ys": np.float32(32.0),
    "yz": np.uint8(20),
    "y0": np.uint8(0),
    "yzs": np.int8(3),
    "zero": np.float32(0.0),
    "six": np.float32(1000.0),
    "from": np.array([0, 0]),
    "until": np.array([99, 99]),
    "axes": np.array([2, 3]),
    "skip": np.array([2, 2]),
}
"""Scales are powers of two, so that float32 holds every sum exactly and no rounding is a matter of taste."""

SAME = "pads=[1,1,1,1]"
HEAD = (
    "xf = DequantizeLinear(x, xs, xz) wf = DequantizeLinear<axis=0>(w, ws, wz) bf = DequantizeLinear<axis=0>(b, bs, bz)"
)
CONV = f"{HEAD} c = Conv<{SAME}>(xf, wf, bf)"
MIDDLE = f"{CONV} m = QuantizeLinear(c, ms, mz) mf = DequantizeLinear(m, ms, mz)"
ONE = "vf = DequantizeLinear<axis=0>(w1, ws, wz) df = DequantizeLinear<axis=0>(b, b1s, bz) d = Conv(mf, vf, df)"
END = "y = QuantizeLinear(e, ys, yz)"


@dataclass(frozen=True)
class Sample:
    """A graph, and the calls and the nodes that it must have after the rewrite."""

    body: str
    calls: Mapping[str, int]
    stays: Mapping[str, int]
    outputs: str = "uint8[1,16,9,11] y"
    inputs: str = "uint8[1,5,9,11] x"

    def proto(self, **changed: Any) -> Any:
        text = f'<ir_version: 10, opset_import: ["" : 21]> g ({self.inputs}) => ({self.outputs}) {{ {self.body} }}'
        proto = parser.parse_model(text)
        read = sorted({name for node in proto.graph.node for name in node.input} & set(CONSTANTS))
        held = {**CONSTANTS, **changed}
        proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(held[name]), name) for name in read)
        return proto


ALONE = {"qconv": 1, "reorder": 2}
SAMPLES = {
    "bytes": Sample(f"{CONV} {END.replace('e,', 'c,')}", ALONE, {}),
    "relu": Sample(f"{CONV} e = Relu(c) {END}", ALONE, {}),
    "clipped": Sample(f"{CONV} e = Clip(c, zero, six) {END}", ALONE, {}),
    "signed": Sample(
        f"{CONV.replace('xz', 'xzs')} y = QuantizeLinear(c, ys, yzs)",
        ALONE,
        {},
        "int8[1,16,9,11] y",
        "int8[1,5,9,11] x",
    ),
    "no bias, one scale": Sample(
        f"xf = DequantizeLinear(x, xs, xz) wf = DequantizeLinear(w, ws1) e = Conv<strides=[2,2]>(xf, wf) {END}",
        ALONE,
        {},
        "uint8[1,16,4,5] y",
    ),
    "floats": Sample(f"{CONV} y = Relu(c)", ALONE, {}, "float[1,16,9,11] y"),
    "depthwise": Sample(
        f"""{MIDDLE} vf = DequantizeLinear<axis=0>(thin, ws, wz) df = DequantizeLinear<axis=0>(b, b1s, bz)
            e = Conv<group=16,{SAME}>(mf, vf, df) {END}""",
        {"qconv": 1, "qdepthwise": 1, "reorder": 2},
        {},
    ),
    "depthwise to floats": Sample(
        f"""{MIDDLE} vf = DequantizeLinear<axis=0>(thin, ws, wz) df = DequantizeLinear<axis=0>(b, b1s, bz)
            e = Conv<group=16,{SAME}>(mf, vf, df) y = Relu(e)""",
        {"qconv": 1, "qdepthwise": 1, "reorder": 2},
        {},
        "float[1,16,9,11] y",
    ),
    "residual": Sample(
        f"""{MIDDLE} {ONE} n = QuantizeLinear(d, ms, mz) nf = DequantizeLinear(n, ms, mz)
            s = Add(nf, mf) e = Relu(s) {END}""",
        {"qconv": 2, "reorder": 2},
        {},
    ),
    "residual after a clip": Sample(
        f"""{MIDDLE} {ONE} k = Clip(d, zero, six) n = QuantizeLinear(k, ms, mz) nf = DequantizeLinear(n, ms, mz)
            e = Add(nf, mf) {END}""",
        {"qconv": 2, "reorder": 2},
        {},
    ),
    "two branches": Sample(
        f"""{MIDDLE} {ONE} n = QuantizeLinear(d, ms, mz) nf = DequantizeLinear(n, ms, mz)
            d2 = Conv(mf, vf) n2 = QuantizeLinear(d2, ms, mz) nf2 = DequantizeLinear(n2, ms, mz)
            e = Add(nf2, nf) {END}""",
        {"qconv": 3, "reorder": 2},
        {},
    ),
    "largest": Sample(
        f"""{MIDDLE} p = MaxPool<kernel_shape=[3,3],strides=[2,2],{SAME}>(mf) q = QuantizeLinear(p, ms, mz)
            qf = DequantizeLinear(q, ms, mz) {ONE.replace("mf", "qf")} {END.replace("e,", "d,")}""",
        {"pool": 1, "qconv": 2, "reorder": 2},
        {},
        "uint8[1,16,5,6] y",
    ),
    "mean": Sample(
        f"{MIDDLE} g = GlobalAveragePool(mf) y = QuantizeLinear(g, ms, mz)",
        {"pool": 1, "qconv": 1, "reorder": 2},
        {"DequantizeLinear": 1, "QuantizeLinear": 1},
        "uint8[1,16,1,1] y",
    ),
    "cut between codes": Sample(
        f"{MIDDLE} t = Slice(mf, from, until, axes, skip) y = QuantizeLinear(t, ms, mz)",
        ALONE,
        {"DequantizeLinear": 1, "QuantizeLinear": 1, "Slice": 1},
        "uint8[1,16,5,6] y",
    ),
    "weight with a zero point": Sample(
        f"{CONV.replace('wz)', 'off)')} {END.replace('e,', 'c,')}",
        {},
        {"Conv": 1, "DequantizeLinear": 3, "QuantizeLinear": 1},
    ),
    "unsigned weight": Sample(
        f"xf = DequantizeLinear(x, xs, xz) wf = DequantizeLinear(unsigned, ws1) e = Conv<{SAME}>(xf, wf) {END}",
        {},
        {"Conv": 1, "DequantizeLinear": 2, "QuantizeLinear": 1},
    ),
    "bias of another scale": Sample(
        f"{CONV.replace('bs', 'ws')} {END.replace('e,', 'c,')}",
        {},
        {"Conv": 1, "DequantizeLinear": 3, "QuantizeLinear": 1},
    ),
}


@pytest.fixture(scope="session")
def isa(here: Sequence[Isa]) -> Isa:
    return here[0]


def rewritten(proto: Any, isa: Isa) -> Kernelised:
    return rewrite(proto, isa, first_guess)


def narrow() -> Any:
    """The first sample with weights of four bits, which a `Cast` widens."""
    proto = SAMPLES["bytes"].proto()
    (weight,) = (tensor for tensor in proto.graph.initializer if tensor.name == "w")
    codes = (numpy_helper.to_array(weight) // 16).astype(np.int8)
    weight.CopyFrom(helper.make_tensor("w4", TensorProto.INT4, codes.shape, codes.ravel()))
    proto.graph.node.insert(0, helper.make_node("Cast", ["w4"], ["w"], to=TensorProto.INT8))
    return proto


PROTOS = {**{name: sample.proto for name, sample in SAMPLES.items() if sample.calls}, "four bits": narrow}


@pytest.mark.parametrize("name", SAMPLES)
def test_exactly_these_nodes_become_kernels(name: str):
    sample = SAMPLES[name]
    result = rewritten(sample.proto(), isa_named("x86-64-v3"))
    assert result.replaced == sample.calls
    left = onnxkit.operators(result.proto)
    calls = left.pop("edgewright::Kernel", 0) + left.pop("edgewright::FloatKernel", 0)
    assert (calls, left) == (sum(sample.calls.values()), sample.stays)


def test_weights_of_few_bits_are_weights():
    assert rewritten(narrow(), isa_named("x86-64-v3")).replaced == ALONE


@pytest.mark.parametrize("changed", [{"xz": np.uint8(5)}, {"mz": np.uint8(9)}, {"yz": np.uint8(0)}])
@pytest.mark.parametrize("name", ["residual after a clip", "depthwise", "clipped"])
def test_zero_points_need_no_kernels_of_their_own(name: str, changed: Mapping[str, Any]):
    isa = isa_named("x86-64-v3")
    first, second = (rewritten(SAMPLES[name].proto(**each), isa).kernels for each in ({}, changed))
    assert list(first) == list(second)


@pytest.fixture(scope="session")
def library(tvm: ModuleType, isa: Isa, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One library with the kernels of every sample."""
    folder = tmp_path_factory.mktemp("qimages")
    kernels = {symbol: k for proto in PROTOS.values() for symbol, k in rewritten(proto(), isa).kernels.items()}
    try:
        content = library_of(kernels, isa, folder, headers=headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    place = folder / "kernels.so"
    place.write_bytes(content)
    return place


@pytest.mark.parametrize("name", PROTOS)
def test_it_computes_the_same(name: str, library: Path, isa: Isa, tmp_path: Path):
    proto = PROTOS[name]()
    dtype = onnxkit.tensor_spec(proto.graph.input[0]).dtype
    feed = {"x": np.random.default_rng(1).integers(0, 256, (1, 5, 9, 11)).astype(np.uint8).view(dtype)}
    file = tmp_path / "model.onnx"
    file.write_bytes(packed(rewritten(proto, isa)))
    (got,) = run_files([file], library, [feed])
    (wanted,) = _as_written(proto).run(["y"], feed)
    assert len(np.unique(wanted)) > 4
    assert np.array_equal(got["y"], wanted)


def _as_written(proto: Any) -> ort.InferenceSession:
    """Without onnxruntime's own kernels of bytes, which may round their sums."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
