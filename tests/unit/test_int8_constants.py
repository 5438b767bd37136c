"""Int8 weights and zero points that several nodes share: onnxruntime opens the graph, and its answers are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

from edgewright import onnxkit
from edgewright_runtime import ort_session

RNG = np.random.default_rng(0)
CONSTANTS: dict[str, Any] = {
    "w": RNG.integers(-127, 128, (8, 8)).astype(np.int8),
    "v": RNG.integers(-127, 128, (8, 8)).astype(np.int8),
    "s": np.float32(2**-7),
    "z": np.int8(0),
    "xs": np.float32(2**-3),
    "xz": np.uint8(3),
    "ss": np.full(8, 2**-7, np.float32),
    "zs": np.zeros(8, np.int8),
}
HEAD = "xf = DequantizeLinear(x, xs, xz) wf = DequantizeLinear(w, s, z) a = MatMul(xf, wf)"
MORE = "q = QuantizeLinear(a, xs, xz) af = DequantizeLinear(q, xs, xz)"
GRAPHS = {
    "one weight read twice": f"{HEAD} {MORE} y = MatMul(af, wf)",
    "one weight, two nodes": f"{HEAD} {MORE} vf = DequantizeLinear(w, s, z) y = MatMul(af, vf)",
    "one zero point": f"{HEAD} {MORE} vf = DequantizeLinear(v, s, z) y = MatMul(af, vf)",
    "nothing shared": f"{HEAD} y = Relu(a)",
    "products of bytes": """
        xf = DequantizeLinear(x, xs, xz)
        q, qs, qz = DynamicQuantizeLinear(xf)
        n = MatMulInteger(q, w, qz, zs) m = Cast <to = 1> (n) f = Mul(qs, ss) a = Mul(m, f)
        p, ps, pz = DynamicQuantizeLinear(a)
        o = MatMulInteger(p, v, pz, zs) l = Cast <to = 1> (o) e = Mul(ps, ss) y = Mul(l, e)""",
}


def graph(name: str) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : 21]> g (uint8[4,8] x) => (float[4,8] y) {{ {GRAPHS[name]} }}'
    proto = parser.parse_model(text)
    read = sorted({each for node in proto.graph.node for each in node.input} & set(CONSTANTS))
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(CONSTANTS[each]), each) for each in read)
    return proto


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_with_shared_int8_constants_opens_and_answers_the_same(name: str):
    proto = graph(name)
    before = proto.SerializeToString(deterministic=True)
    feed = {"x": RNG.integers(0, 256, (4, 8)).astype(np.uint8)}
    exact = ort.SessionOptions()
    exact.add_session_config_entry(*onnxkit.EXACT_PRODUCTS)
    (found,) = ort.InferenceSession(onnxkit.pack(proto), exact, providers=["CPUExecutionProvider"]).run(None, feed)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    (wanted,) = ort.InferenceSession(before, options, providers=["CPUExecutionProvider"]).run(None, feed)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", GRAPHS)
def test_each_int8_constant_has_one_reader_on_every_cpu(name: str):
    packed = onnx.load_from_string(onnxkit.pack(graph(name))).graph
    small = {tensor.name for tensor in packed.initializer if tensor.data_type == onnx.TensorProto.INT8}
    read = [each for node in packed.node for each in node.input]
    assert small
    assert all(read.count(constant) == 1 for constant in small)
    dequantised = [node.output[0] for node in packed.node if small.intersection(node.input)]
    assert all(read.count(value) == 1 for value in dequantised)


def test_what_shares_nothing_stays_as_it_is():
    proto = graph("nothing shared")
    assert onnx.load_from_string(onnxkit.pack(proto)).graph == proto.graph


@pytest.mark.parametrize(
    ("features", "asked"), [(("avx2",), "1"), ((), "1"), (("avx512_vnni",), None), (("avx2", "avx_vnni"), None)]
)
def test_exact_kernels_are_asked_for_where_the_usual_ones_are_not_exact(
    features: tuple[str, ...], asked: str | None, monkeypatch: pytest.MonkeyPatch
):
    """With VNNI they would take the place of quicker ones that are exact as well."""
    monkeypatch.setattr(onnxkit, "listed_features", lambda _: frozenset(features))
    monkeypatch.setattr(ort_session, "find_features", lambda *_: frozenset(features))
    host = ort.SessionOptions()
    onnxkit.ask_for_exact_products(host)
    for options in (host, ort_session._session_options({})):
        try:
            found = options.get_session_config_entry(onnxkit.EXACT_PRODUCTS[0])
        except RuntimeError:
            found = None
        assert found == asked
