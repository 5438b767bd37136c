"""Graphs that are compiled whole, as the exporter does it, all in one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from edgewright.errors import RefusedError
from edgewright.testing.samples import attention_net, conv_net
from edgewright_exporters.onnx_kernels.choose import first_guess, made, object_place
from edgewright_exporters.onnx_kernels.obstacles import without_tvm
from edgewright_exporters.onnx_kernels.rewrite import packed, rewrite
from edgewright_exporters.onnx_kernels.workers import perform
from edgewright_exporters.tir.isa import Isa, isas_of
from edgewright_exporters.tir.linking import find_compiler
from edgewright_exporters.whole_model.exporting import COMMAND
from edgewright_exporters.whole_model.preparing import prepared
from edgewright_runtime.device import find_device

RNG = np.random.default_rng(0)
TOKENS, WIDTH, HEADS = 7, 24, 3
BLOCK = """
  n{i} = LayerNormalization({x}, s{i}, t{i})
  q{i} = MatMul(n{i}, wq{i})  q3{i} = Reshape(q{i}, split)  qh{i} = Transpose<perm=[0, 2, 1, 3]>(q3{i})
  k{i} = MatMul(n{i}, wk{i})  k3{i} = Reshape(k{i}, split)  kh{i} = Transpose<perm=[0, 2, 3, 1]>(k3{i})
  v{i} = MatMul(n{i}, wv{i})  v3{i} = Reshape(v{i}, split)  vh{i} = Transpose<perm=[0, 2, 1, 3]>(v3{i})
  scores{i} = MatMul(qh{i}, kh{i})  scaled{i} = Mul(scores{i}, factor)  shares{i} = Softmax(scaled{i})
  mixed{i} = MatMul(shares{i}, vh{i})  turned{i} = Transpose<perm=[0, 2, 1, 3]>(mixed{i})
  joined{i} = Reshape(turned{i}, join)  out{i} = MatMul(joined{i}, wo{i})  a{i} = Add(out{i}, {x})
  m{i} = LayerNormalization(a{i}, s{i}, t{i})  up{i} = MatMul(m{i}, w1{i})  act{i} = Gelu(up{i})
  down{i} = MatMul(act{i}, w2{i})  b{i} = Add(down{i}, a{i})
"""
QDQ = """(float[3,64] x) => (float[3,8] y) {
  code = QuantizeLinear(x, xs, xz)  back = DequantizeLinear(code, xs, xz)
  weight = DequantizeLinear<axis=1>(w, ws, wz)  p = MatMul(back, weight)
  q = QuantizeLinear(p, ys, yz)  y = DequantizeLinear(q, ys, yz)
}"""
QCONV = """(float[1,3,8,8] x) => (float[1,4,6,6] y) {
  code = QuantizeLinear(x, xs, xz)  back = DequantizeLinear(code, xs, xz)
  weight = DequantizeLinear<axis=0>(w, ws, wz)  bias = DequantizeLinear<axis=0>(b, bs, bz)
  p = Conv(back, weight, bias)  r = Relu(p)  q = QuantizeLinear(r, ys, yz)  y = DequantizeLinear(q, ys, yz)
}"""
FRONT = """(float[N, 4] x) => (float[N, 4] y, float[N, 4] h, float[N] score)
<int64[1] zero = {0}, int64[1] one = {1}> {
  y = Neg(x)  h = Add(x, x)  column = Slice(x, zero, one, one)  score = Squeeze(column, one)
}"""
OLD = """(float[4,1,6] x) => (float[2,6] y) {
  rows = Slice<starts=[1], ends=[3]>(x)  flat = Squeeze<axes=[1]>(rows)  y = Clip<min=-1.0, max=2.0>(flat)
}"""


def graph(text: str, opset: int = 17, **weights: Any) -> onnx.ModelProto:
    """A graph as text, with `weights` for its initializers."""
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> g {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items())
    return proto


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32) / 4


def codes(*shape: int) -> Any:
    return RNG.integers(-7, 8, shape)


def transformer() -> onnx.ModelProto:
    """Two blocks of a vision transformer."""
    weights: dict[str, Any] = {"factor": np.float32((WIDTH // HEADS) ** -0.5)}
    weights |= {"split": np.array([1, TOKENS, HEADS, WIDTH // HEADS]), "join": np.array([1, TOKENS, WIDTH])}
    for i in range(2):
        weights |= {f"{name}{i}": floats(WIDTH, WIDTH) for name in ("wq", "wk", "wv", "wo")}
        weights |= {f"w1{i}": floats(WIDTH, 4 * WIDTH), f"w2{i}": floats(4 * WIDTH, WIDTH)}
        weights |= {f"s{i}": 1 + floats(WIDTH), f"t{i}": floats(WIDTH)}
    body = BLOCK.format(i=0, x="x") + BLOCK.format(i=1, x="b0")
    shape = f"float[1,{TOKENS},{WIDTH}]"
    return graph(f"({shape} x) => ({shape} b1) {{ {body} }}", 20, **weights)


def quantised() -> Mapping[str, onnx.ModelProto]:
    bytes_in = {"xs": np.float32(0.05), "xz": np.uint8(120), "ys": np.float32(0.25), "yz": np.uint8(120)}
    scales = np.full(8, 0.02, np.float32)
    narrow = codes(64, 8).astype(ml_dtypes.int4)
    bias = {"b": codes(4).astype(np.int32), "bs": np.full(4, 0.001, np.float32), "bz": np.zeros(4, np.int32)}
    each = {"ws": np.full(4, 0.02, np.float32), "wz": np.zeros(4, np.int8)}
    cast = "(float[3,64] x) => (float[3,8] y) { v = Cast<to=3>(w) f = DequantizeLinear<axis=1>(v, s) y = MatMul(x, f) }"
    plain = "(float[3,64] x) => (float[3,8] y) { f = DequantizeLinear<axis=1>(w, s) y = MatMul(x, f) }"
    return {
        "quantised product": graph(QDQ, w=codes(64, 8).astype(np.int8), ws=scales, wz=np.zeros(8, np.int8), **bytes_in),
        "quantised convolution": graph(QCONV, w=codes(4, 3, 3, 3).astype(np.int8), **each, **bias, **bytes_in),
        "4 bits with a cast": graph(cast, 21, w=narrow, s=scales),
        "4 bits": graph(plain, 21, w=narrow, s=scales),
    }


def compilable() -> Mapping[str, onnx.ModelProto]:
    """What compiles."""
    pairs = (
        "(float[2,8] a, float[2,8] b) => (float[2,5] y, float[2,8] z) { c = Add(a, b) y = MatMul(c, w) z = Mul(a, b) }"
    )
    kinds = ("bool", "int8", "uint8", "int32", "int64", "float16", "float", "double")
    names = [f"{kind}[2] x{at}, {kind} s{at}" for at, kind in enumerate(kinds)]
    same = [f"y{at} = Identity(x{at}) t{at} = Identity(s{at})" for at in range(len(kinds))]
    made = ", ".join(names).replace(" x", " y").replace(" s", " t")
    return {
        "convolutions": conv_net(),
        "attention": attention_net(),
        "transformer": transformer(),
        "one kernel, two shapes": graph(
            "(float[2,1,8] x, float[2,8] z) => (float[2,1,8] y, float[2,8] v) { y = MatMul(x, w) v = MatMul(z, w) }",
            w=floats(8, 8),
        ),
        "two in, two out": graph(pairs, w=floats(8, 5)),
        "free rows": graph(FRONT),
        "an old opset": graph(OLD, 9),
        "top k": graph("(float[2,9] x) => (float[2,3] y, int64[2,3] i) <int64[1] k = {3}> { y, i = TopK(x, k) }"),
        "types": graph(f"({', '.join(names)}, bool[2] c) => ({made}, bool[2] n) {{ {' '.join(same)} n = Not(c) }}"),
        **quantised(),
    }


BROKEN = {
    "no importer": graph("(float[3,3] x) => (float d) { d = Det(x) }"),
    "nothing to do": graph("(float[3] x) => (float[3] y) { y = Identity(x) }"),
}
"""What nobody refuses before it is tried."""


@pytest.fixture(scope="session")
def isa() -> Isa:
    """The best instruction set of this machine, or a skip where nothing can be compiled for it."""
    found = isas_of(find_device())
    refusal = without_tvm()
    if refusal is not None or not found:
        pytest.skip(refusal.reason if refusal else "there are no templates for this machine")
    try:
        find_compiler(found[0])
    except RefusedError as missing:
        pytest.skip(str(missing))
    return found[0]


def compile_all(protos: Mapping[str, onnx.ModelProto], isa: Isa, folder: Path) -> Mapping[str, Any]:
    """For each graph the path of its shared object, or the reason (text) why there is none."""
    kernelised = {name: rewrite(prepared(proto), isa, first_guess) for name, proto in protos.items()}
    lost = made([kernel for each in kernelised.values() for kernel in each.kernels.values()], isa, folder)
    assert not lost
    tasks = []
    for name, each in kernelised.items():
        file = folder / f"{name}.onnx"
        file.write_bytes(packed(each))
        objects = [str(object_place(kernel, isa, folder)) for kernel in each.kernels.values()]
        tasks.append({"do": "compile", "graph": str(file), "place": str(folder / f"{name}.so"), "objects": objects})
    outcomes = perform(tasks, isa, command=COMMAND)
    return {name: outcome.error or folder / f"{name}.so" for name, outcome in zip(protos, outcomes)}


@pytest.fixture(scope="session")
def graphs() -> Mapping[str, onnx.ModelProto]:
    """All graphs, by name."""
    return {**compilable(), **BROKEN}


@pytest.fixture(scope="session")
def compiled(
    isa: Isa, graphs: Mapping[str, onnx.ModelProto], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Any]:
    """For each graph the path of its shared object, or the reason (text) why there is none."""
    return compile_all(graphs, isa, tmp_path_factory.mktemp("whole"))
