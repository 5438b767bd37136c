"""Biases that make good what rounding shifts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewright.grids import Grid, encode
from edgewright.types import Arrays
from edgewright_plugins.qdq.correct import corrected, input_means
from edgewright_plugins.qdq.layers import captured, constant, layers_of, with_constants
from edgewright_plugins.qdq.prepare import prepare

GRAPHS = {
    "convolution": ("[layer] y = Conv(x, w, b)", "float[1, 8, 6, 6] x", (8, 8, 3, 3), 8),
    "two groups": ("[layer] y = Conv<group = 2>(x, w, b)", "float[1, 8, 6, 6] x", (8, 4, 3, 3), 8),
    "one channel each": ("[layer] y = Conv<group = 8>(x, w, b)", "float[1, 8, 6, 6] x", (8, 1, 3, 3), 8),
    "matrix": ("[layer] y = Gemm(x, w, b)", "float[1, 8] x", (8, 5), 5),
    "turned matrix": ("[layer] y = Gemm<transB = 1>(x, w, b)", "float[1, 8] x", (5, 8), 5),
}


def network(line: str, given: str, weight: tuple[int, ...], outputs: int) -> onnx.ModelProto:
    result = "float[1, 8, 4, 4] y" if given.endswith("6] x") else "float[1, 5] y"
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> net ({given}) => ({result}) {{ {line} }}"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w", weight), ("b", (outputs,))):
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    return prepare(proto)


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_mean_of_every_output_is_as_before(kind: str):
    proto = network(*GRAPHS[kind])
    rng = np.random.default_rng(1)
    shape = [int(d.dim_value) for d in proto.graph.input[0].type.tensor_type.shape.dim]
    # Values that are the same all over a channel: its mean is then that of every window.
    rows = [np.broadcast_to(rng.random((1, 8, *[1] * (len(shape) - 2))) + 1, shape) for _ in range(20)]
    feeds: list[Arrays] = [{"x": np.ascontiguousarray(row, np.float32)} for row in rows]
    (layer,) = layers_of(proto)
    encoding = encode(Grid(2), constant(proto, "w"), layer.axis)
    fixed = corrected(proto, {"w": encoding}, input_means(proto, [layer], lambda: feeds))
    rough = {"w": encoding.rounded(constant(proto, "w"))}
    found, plain, want = (
        captured(graph, ["y"], feeds)["y"].mean(axis=0)
        for graph in (with_constants(fixed, rough), with_constants(proto, rough), proto)
    )
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
    assert np.abs(plain - want).max() > 0.1


def test_a_bias_of_two_layers_is_left_alone():
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1, 4] x) => (float[1, 4] y) { [one] a = Gemm(x, w0, b) [two] y = Gemm(a, w1, b) }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w0", (4, 4)), ("w1", (4, 4)), ("b", (4,))):
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    encodings = {name: encode(Grid(2), constant(proto, name), 1) for name in ("w0", "w1")}
    found = corrected(proto, encodings, {"x": [1.0] * 4, "a": [1.0] * 4})
    np.testing.assert_array_equal(constant(found, "b"), constant(proto, "b"))
