"""Means and deviations of integer layers moved back to the float ones, and how far outputs are apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgewright.grids import Grid, encode
from edgewright.types import Array, Arrays
from edgewright_plugins.qdq.calibrate import find_ranges
from edgewright_plugins.qdq.layers import captured, constant, layers_of
from edgewright_plugins.qdq.place import Scheme, activations
from edgewright_plugins.qdq.prepare import prepare
from edgewright_plugins.qdq.ranges import Range
from edgewright_plugins.qdq.sensitivity import divergence, divergence_of
from edgewright_plugins.qdq.tune import Adapted, tune_norms

STATIC = Scheme("static")


def net() -> onnx.ModelProto:
    """Two convolutions with a dead channel in the first, and a linear layer."""
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        cnn (float[1, 3, 8, 8] x) => (float[1, 5] y) {
            [one] a = Conv<pads = [1, 1, 1, 1]>(x, w0, b0)
            [relu] r = Relu(a)
            [two] c = Conv<pads = [1, 1, 1, 1]>(r, w1, b1)
            [pool] p = GlobalAveragePool(c)
            [flat] f = Flatten(p)
            [head] y = Gemm(f, w2, b2)
        }""")
    rng = np.random.default_rng(0)
    shapes = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 8, 3, 3), "b1": (8,), "w2": (8, 5), "b2": (5,)}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32) / 3
        if name == "w0":
            values[2] = 0
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return prepare(proto)


def examples(count: int) -> list[Arrays]:
    return [{"x": x[None]} for x in np.random.default_rng(1).standard_normal((count, 3, 8, 8)).astype(np.float32)]


def shifted(proto: onnx.ModelProto) -> tuple[Adapted, Mapping[str, Range]]:
    """The net in 4 bits with the weights of `two` too small and its bias off."""
    ranges = find_ranges(proto, activations(proto), lambda: examples(32), ("min-max",))["min-max"]
    encodings = {each.weight: encode(Grid(4), constant(proto, each.weight), each.axis) for each in layers_of(proto)}
    values = {"w1": encodings["w1"].rounded(constant(proto, "w1")) * np.float32(0.7), "b1": constant(proto, "b1") + 0.5}
    encodings["w1"] = encodings["w1"].scaled(np.full(8, 0.7, np.float32))
    return Adapted(values, encodings), ranges


def moments(proto: onnx.ModelProto, node: str) -> tuple[Array, Array]:
    name = next(each.output[0] for each in proto.graph.node if each.name == node)
    values = captured(proto, [name], examples(64))[name]
    return values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))


def silent(done: int, total: int) -> None:
    """Nobody watches."""


def test_norm_tuning_restores_means_and_deviations_and_keeps_codes() -> None:
    proto = net()
    adapted, ranges = shifted(proto)
    tuned = tune_norms(proto, STATIC, ranges, adapted, examples(64), progress=silent)
    wanted, before, after = (
        moments(graph, "two")
        for graph in (proto, adapted.written(proto, STATIC, ranges), tuned.written(proto, STATIC, ranges))
    )
    assert np.abs(before[0] - wanted[0]).max() > 0.1
    assert np.allclose(after[0], wanted[0], atol=0.01)
    assert np.allclose(after[1], wanted[1], rtol=0.02)
    codes = [each.encodings["w1"].codes(each.values["w1"]) for each in (adapted, tuned)]
    assert np.array_equal(codes[0], codes[1])
    assert divergence_of(tuned.written(proto, STATIC, ranges), proto, examples(64)) < 0.5 * divergence_of(
        adapted.written(proto, STATIC, ranges), proto, examples(64)
    )


def test_a_channel_that_does_not_vary_keeps_its_scale() -> None:
    proto = net()
    adapted, ranges = shifted(proto)
    tuned = tune_norms(proto, STATIC, ranges, adapted, examples(64), progress=silent)
    assert tuned.encodings["w0"].scale[2] == adapted.encodings["w0"].scale[2]


@given(arrays(np.float32, (4, 3), elements=st.floats(-20, 20, width=32)), st.floats(-5, 5))
def test_divergence_of_logits_is_that_of_their_probabilities(logits: Array, moved: float) -> None:
    other = logits[::-1].copy()
    shares = [np.exp(each - each.max(axis=1, keepdims=True)) for each in (other, logits)]
    shares = [each / each.sum(axis=1, keepdims=True) for each in shares]
    assert divergence([logits + np.float32(moved)], [logits]) == pytest.approx(0, abs=1e-5)
    found = divergence([other], [logits])
    assert found >= -1e-9
    # Probabilities in float32 end where logits go on.
    if min(each.min() for each in shares) > 1e-6:
        assert divergence(shares[:1], shares[1:]) == pytest.approx(found, rel=1e-3, abs=1e-5)


def test_divergence_of_other_outputs_is_the_share_of_their_energy() -> None:
    wanted = np.full((2, 3, 4), 2.0, np.float32)
    assert divergence([wanted + 1], [wanted]) == pytest.approx(0.25)
    assert divergence([wanted[..., 0, 0:1] * 1.5], [wanted[..., 0, 0:1]]) == pytest.approx(0.25)
