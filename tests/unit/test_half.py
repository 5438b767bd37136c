"""`half`: 16-bit floats that keep their values, and float32 where they would not."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright_plugins.half import HALF, Params
from edgewright_plugins.half.convert import convert
from edgewright_plugins.half.floats import TYPES, fits
from edgewright_plugins.half.peaks import measure_peaks

FP16, BF16 = TYPES["fp16"], TYPES["bf16"]


def build(text: str, weights: dict[str, np.ndarray], opset: int = 17) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> net {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return proto


def random(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * scale).astype(np.float32)


def conv_net(opset: int = 17) -> onnx.ModelProto:
    text = """(float[1, 3, 8, 8] x) => (float[1, 5] y) {
        c = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
        r = Relu(c)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        y = Gemm(f, w2, b2)
    }"""
    weights = {"w1": random(16, 3, 3, 3), "b1": random(16), "w2": random(16, 5), "b2": random(5)}
    return build(text, weights, opset)


def feed(proto: onnx.ModelProto, scale: float = 1.0) -> dict[str, np.ndarray]:
    return {
        v.name: random(*(d.dim_value for d in v.type.tensor_type.shape.dim), scale=scale) for v in proto.graph.input
    }


def error(before: onnx.ModelProto, after: onnx.ModelProto, given: dict[str, np.ndarray]) -> float:
    """The largest error of any output, as a share of the output's largest value."""
    onnx.checker.check_model(onnx.load_from_string(onnxkit.pack(after)), full_check=True)
    (want,), (got,) = (onnxkit.run(onnxkit.pack(proto), [given]) for proto in (before, after))
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(want, got, strict=True))


def weight_types(proto: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in proto.graph.initializer}


# ------------------------------------------------------------------ what comes out


def test_fp16_halves_the_file_and_keeps_the_outputs():
    before = conv_net()
    after, islands = convert(before, [feed(before)], Params())
    assert len(islands.halved) == 5
    assert not islands.ranges
    assert not islands.lacking
    assert set(weight_types(after).values()) == {TensorProto.FLOAT16}
    assert onnxkit.operators(after)["Cast"] == 2
    assert 0 < error(before, after, feed(before)) < 2e-3


def test_inputs_and_outputs_stay_as_they_were():
    before = conv_net()
    after, _ = convert(before, [feed(before)], Params())
    described = [[onnxkit.tensor_spec(v) for v in (*p.graph.input, *p.graph.output)] for p in (before, after)]
    assert described[0] == described[1]


def test_bf16_keeps_weights_small_and_runs_where_the_runtime_has_no_bf16():
    before = conv_net()
    after, islands = convert(before, [feed(before)], Params(dtype="bf16"))
    assert "Conv" in islands.lacking.values()
    stored = [kind for name, kind in weight_types(after).items() if name.startswith("w")]
    assert stored == [TensorProto.BFLOAT16] * 2
    assert 0 < error(before, after, feed(before)) < 2e-2
    assert any("has no bfloat16 form" in note for note in islands.notes(BF16))


def test_old_opset_is_raised_first():
    before = conv_net(opset=11)
    after, _ = convert(before, [feed(before)], Params(dtype="bf16"))
    assert onnxkit.opsets(after)["ai.onnx"] == 17
    assert error(before, after, feed(before)) < 2e-2


def test_opset_that_cannot_be_raised_is_refused():
    text = """<ir_version: 8, opset_import: ["": 11, "acme": 1]>
    net (float[1, 4] x) => (float[1, 4] y) { y = acme.Twice(x) }
    <domain: "acme", opset_import: ["": 11]> Twice (a) => (b) { b = Add(a, a) }"""
    with pytest.raises(RefusedError, match="needs opset 13"):
        convert(onnx.parser.parse_model(text), [], Params())


def test_same_graph_gives_the_same_bytes():
    first, second = (onnxkit.pack(convert(conv_net(), [feed(conv_net())], Params())[0]) for _ in range(2))
    assert first == second


# ------------------------------------------------------------------ islands


def loud() -> onnx.ModelProto:
    """Values of about 1e6 in the middle, small ones again at the end."""
    text = """(float[1, 8] x) => (float[1, 8] y) {
        h = MatMul(x, w1)
        big = Mul(h, gain)
        calm = Mul(big, loss)
        y = MatMul(calm, w2)
    }"""
    weights = {"w1": random(8, 8), "gain": np.float32([1e6]), "loss": np.float32([1e-6]), "w2": random(8, 8)}
    return build(text, {name: np.asarray(array) for name, array in weights.items()})


def squares() -> onnx.ModelProto:
    """No constant is large, but the sum of squares is: a norm written out in primitive operators."""
    text = """(float[1, 64] x) => (float[1, 64] y) {
        scaled = MatMul(x, w)
        square = Mul(scaled, scaled)
        sum = ReduceMean <axes = [1], keepdims = 1> (square)
        root = Sqrt(sum)
        y = Div(scaled, root)
    }"""
    return build(text, {"w": random(64, 64, scale=100.0)})


def in_true_half(proto: onnx.ModelProto, data: dict[str, np.ndarray]) -> np.ndarray:
    """The first output when every 16-bit operator really works in 16 bits; onnxruntime's CPU rounds fewer of them."""
    with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ReferenceEvaluator(onnx.load_from_string(onnxkit.pack(proto))).run(None, data)[0]


def test_values_that_overflow_stay_in_float32():
    before, data = squares(), feed(squares())
    after, islands = convert(before, [data], Params())
    assert any("square reaches" in reason for reason in islands.ranges.values())
    assert error(before, after, data) < 5e-3
    np.testing.assert_allclose(in_true_half(after, data), in_true_half(before, data), rtol=0.02, atol=0.01)


def test_without_islands_the_same_graph_is_wrong():
    before, data = squares(), feed(squares())
    blind, islands = convert(before, [], Params())
    assert not islands.ranges
    outputs = in_true_half(blind, data)
    assert not np.isfinite(outputs).all() or not outputs.any()


def test_weights_that_overflow_stay_in_float32():
    before, data = loud(), feed(loud())
    after, islands = convert(before, [data], Params())
    assert "constant gain does not fit" in islands.ranges.values()
    assert weight_types(after)["gain"] == TensorProto.FLOAT
    assert weight_types(after)["w2_float16"] == TensorProto.FLOAT16
    assert error(before, after, data) < 5e-3


def test_epsilon_that_would_vanish_stays_in_float32():
    text = """(float[1, 4] x) => (float[1, 4] y) {
        zero = Sub(x, x)
        safe = Add(zero, epsilon)
        y = Div(x, safe)
    }"""
    before = build(text, {"epsilon": np.float32([1e-12])})
    after, islands = convert(before, [feed(before, 1e-12)], Params())
    assert "constant epsilon does not fit" in islands.ranges.values()
    assert error(before, after, feed(before, 1e-12)) < 5e-3


def test_less_headroom_makes_more_islands():
    before = conv_net()
    data = [feed(before, 1000.0)]
    counts = [len(convert(before, data, Params(headroom=h))[1].ranges) for h in (1.0, 0.1, 0.02)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_quantised_nodes_and_sizes_are_left_alone():
    text = """(float[1, 1, 4, 4] x) => (float[1, 1, 9, 9] y) {
        q = QuantizeLinear(x, scale, zero)
        d = DequantizeLinear(q, scale, zero)
        y = Resize <mode = "linear"> (d, , factors)
    }"""
    weights = {"scale": np.float32(0.01), "zero": np.uint8(128), "factors": np.float32([1, 1, 2.3, 2.3])}
    before = build(text, {name: np.asarray(array) for name, array in weights.items()})
    after, islands = convert(before, [feed(before)], Params())
    assert set(islands.lacking.values()) == {"QuantizeLinear", "DequantizeLinear"}
    assert weight_types(after) == {"scale": 1, "zero": 2, "factors": 1}
    assert error(before, after, feed(before)) < 2e-3


def test_values_used_inside_a_branch_are_float32_there():
    text = """(float[1, 4] x, bool c) => (float[1, 4] y) {
        h = MatMul(x, w)
        y = If (c) <then_branch = then () => (float[1, 4] t) { t = Relu(h) },
                    else_branch = other () => (float[1, 4] e) { e = Neg(h) }>
    }"""
    before = build(text, {"w": random(4, 4)})
    data = {"x": random(1, 4), "c": np.array(True)}
    after, islands = convert(before, [data], Params())
    assert len(islands.halved) == 1
    assert error(before, after, data) < 2e-3


def test_value_that_is_output_and_input_of_another_node():
    text = """(float[1, 4] x) => (float[1, 4] h, float[1, 4] y) { h = MatMul(x, w)  y = Relu(h) }"""
    before = build(text, {"w": random(4, 4)})
    after, _ = convert(before, [feed(before)], Params())
    assert [v.name for v in after.graph.output] == ["h", "y"]
    assert error(before, after, feed(before)) < 2e-3


def test_integer_parts_pass_untouched():
    text = """(int64[1, 6] ids) => (float[1, 6, 8] y) { e = Gather(table, ids)  y = Relu(e) }"""
    before = build(text, {"table": random(10, 8)})
    data = {"ids": np.arange(6, dtype=np.int64)[None]}
    after, _ = convert(before, [data], Params())
    assert error(before, after, data) < 2e-3


def test_peaks_are_the_largest_magnitudes():
    typed = onnx.shape_inference.infer_shapes(
        build("(float[1, 2] x) => (float[1, 2] y) { n = Neg(x) y = Relu(n) }", {})
    )
    feeds = [{"x": np.float32([[1, -5]])}, {"x": np.float32([[7, 2]])}]
    assert measure_peaks(typed, feeds) == {"x": 7.0, "n": 7.0, "y": 5.0}


@given(arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32)))
def test_what_fits_stays_finite(array: np.ndarray):
    if fits(array, FP16):
        with np.errstate(over="raise"):
            halved = array.astype(np.float16)
        assert np.isfinite(halved[np.isfinite(array)]).all()


@pytest.mark.parametrize(
    ("array", "half", "answer"),
    [
        ([65504.0], FP16, True),
        ([7e4], FP16, False),
        ([7e4], BF16, True),
        ([np.inf, 1.0], FP16, True),
        ([1e-12], FP16, False),
        ([1e-12, 1.0], FP16, True),
        ([0.0], FP16, True),
        ([1e-12], BF16, True),
    ],
)
def test_constants_that_survive(array: list[float], half, answer: bool):
    assert fits(np.array(array, np.float32), half) is answer


def test_transform_states_what_it_takes():
    assert (HALF.takes, HALF.gives, HALF.needs) == ("onnx", "onnx", "nothing")
    assert Params() == Params(dtype="fp16", headroom=0.5, examples=32)
    assert helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT16) == FP16.numpy
