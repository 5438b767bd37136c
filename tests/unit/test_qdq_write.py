"""Files with integers of 2 to 8 bits: what lies in them, and that onnxruntime computes what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright import onnxkit
from edgewright.errors import RecipeError
from edgewright.grids import Encoding, Grid, encode, encode_closest, encode_range
from edgewright.types import Array, Arrays
from edgewright_plugins.qdq.calibrate import find_ranges
from edgewright_plugins.qdq.layers import constant, layers_of, with_constants
from edgewright_plugins.qdq.place import Scheme, activations
from edgewright_plugins.qdq.prepare import prepare
from edgewright_plugins.qdq.ranges import Range
from edgewright_plugins.qdq.sensitivity import outputs, signal_to_noise
from edgewright_plugins.qdq.storage import holds_two_bits, stored_bits, with_room
from edgewright_plugins.qdq.weightonly import usual_encodings
from edgewright_plugins.qdq.write import write

INTEGERS = {
    TensorProto.INT2, TensorProto.UINT2, TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8, TensorProto.UINT8
}  # fmt: skip


def graph(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        values = rng.standard_normal(shape) / np.sqrt(max(1, int(np.prod(shape[1:]))))
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return prepare(proto)


def convolutions() -> onnx.ModelProto:
    return graph(
        """<ir_version: 8, opset_import: ["" : 17]>
        cnn (float[1, 3, 12, 12] x) => (float[1, 10] y) {
            [stem] a = Conv<pads = [1, 1, 1, 1]>(x, w0, b0)
            [relu0] r = Relu(a)
            [body] c = Conv<pads = [1, 1, 1, 1]>(r, w1, b1)
            [relu1] t = Relu(c)
            [pool] p = GlobalAveragePool(t)
            [flat] f = Flatten(p)
            [head] y = Gemm<transB = 1>(f, w2, b2)
        }""",
        w0=(16, 3, 3, 3), b0=(16,), w1=(32, 16, 3, 3), b1=(32,), w2=(10, 32), b2=(10,),
    )  # fmt: skip


def one_convolution() -> onnx.ModelProto:
    return graph(
        """<ir_version: 8, opset_import: ["" : 17]>
        one (float[1, 8, 10, 10] x) => (float[1, 16, 10, 10] y) { [conv] y = Conv<pads = [1, 1, 1, 1]>(x, w, b) }""",
        w=(16, 8, 3, 3), b=(16,),
    )  # fmt: skip


def matrices() -> onnx.ModelProto:
    return graph(
        """<ir_version: 8, opset_import: ["" : 17]>
        mlp (float[1, 40] x) => (float[1, 10] y) {
            [up] a = Gemm<transB = 1>(x, w0, b0)
            [relu] r = Relu(a)
            [down] y = Gemm(r, w1, b1)
        }""",
        w0=(64, 40), b0=(64,), w1=(64, 10), b1=(10,),
    )  # fmt: skip


def feeds_of(proto: onnx.ModelProto, count: int = 6) -> list[Arrays]:
    rng = np.random.default_rng(1)
    specs = [onnxkit.tensor_spec(value) for value in proto.graph.input]
    shapes = {spec.name: [int(size) for size in spec.shape] for spec in specs}
    return [{n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()} for _ in range(count)]


def ranges_of(proto: onnx.ModelProto) -> dict[str, Range]:
    return find_ranges(proto, activations(proto), lambda: feeds_of(proto), ("min-max",))["min-max"]


def encoded(proto: onnx.ModelProto, grid: Grid) -> dict[str, Encoding]:
    return {
        layer.weight: encode(grid, constant(proto, layer.weight), layer.across if grid.per == "group" else layer.axis)
        for layer in layers_of(proto)
    }


def rounded(proto: onnx.ModelProto, encodings: Mapping[str, Encoding]) -> onnx.ModelProto:
    """The float graph with the weights that the codes stand for."""
    return with_constants(proto, {name: each.rounded(constant(proto, name)) for name, each in encodings.items()})


def operators_run(proto: onnx.ModelProto, folder: Path) -> dict[str, int]:
    """What onnxruntime makes of the graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "run.onnx")
    ort.InferenceSession(onnxkit.pack(proto), options, providers=["CPUExecutionProvider"])
    return onnxkit.operators(onnx.load(folder / "run.onnx"))


def codes_in(proto: onnx.ModelProto) -> dict[str, Array]:
    """The integers in the file by weight, as int32."""
    found = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.data_type in INTEGERS}
    # onnxruntime's quantiser calls weights that it turned round `_Transposed` from 1.32 on.
    packing = ("_quantized_packed", "_quantized")
    ends = [f"{turned}{end}" for turned in ("_turned", "_Transposed", "") for end in packing]
    named = {name: next((name.removesuffix(end) for end in ends if name.endswith(end)), "") for name in found}
    return {weight: found[name].astype(np.int32) for name, weight in named.items() if weight}


GRIDS = [
    Grid(8), Grid(4), Grid(3), Grid(2), Grid(6), Grid(4, per="tensor"),
    Grid(4, symmetric=False, signed=False), Grid(4, symmetric=False), Grid(8, symmetric=False, signed=False),
    Grid(4, per="group", group=16), Grid(2, per="group", group=16),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["static", "static-layers", "dynamic", "weights"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_file_holds_the_codes_and_the_runtime_computes_with_them(grid: Grid, kind: str):
    proto = convolutions() if kind.startswith("static") else matrices()
    encodings, scheme = encoded(proto, grid), Scheme(kind)
    if kind == "dynamic" and grid.per == "group":
        with pytest.raises(RecipeError, match="scale per group, which dynamic int8 cannot use"):
            write(proto, scheme, {}, encodings)
        return
    reference = rounded(proto, encodings)
    found = write(proto, scheme, ranges_of(reference), encodings)
    onnx.checker.check_model(onnxkit.pack(found))
    codes = codes_in(found)
    for name, encoding in encodings.items():
        want = encoding.codes(constant(proto, name))
        np.testing.assert_array_equal(codes[name] if codes[name].shape == want.shape else codes[name].T, want)
    feeds = feeds_of(proto)
    assert signal_to_noise(outputs(found, feeds), outputs(reference, feeds)) > 30


@pytest.mark.parametrize("activations", ["u8", "s8"])
@pytest.mark.parametrize("grid", [Grid(8), Grid(4), Grid(2), Grid(4, per="tensor")], ids=str)
def test_an_integer_convolution_is_within_one_step_of_arithmetic(grid: Grid, activations: str):
    proto = one_convolution()
    weights, feeds = encoded(proto, grid), feeds_of(proto)
    signed = activations == "s8"
    around = {
        name: encode_range(Grid(8, symmetric=False, signed=signed, per="tensor"), low, high)
        for name, (low, high) in ranges_of(rounded(proto, weights)).items()
    }
    found = outputs(write(proto, Scheme("static", activations), {}, {**weights, **around}), feeds)[0]
    given: list[Arrays] = [{"x": around["x"].rounded(feed["x"])} for feed in feeds]
    want = around["y"].rounded(outputs(rounded(proto, weights), given)[0])
    assert np.max(np.abs(found - want)) <= float(around["y"].scale) * 1.001


def test_activations_of_four_bits_take_their_sixteen_values(tmp_path: Path):
    proto = convolutions()
    weights = encoded(proto, Grid(4))
    low, high = ranges_of(proto)["r"]
    few = encode_range(Grid(4, symmetric=False, signed=False, per="tensor"), low, high)
    found = write(proto, Scheme("static"), ranges_of(proto), {**weights, "r": few})
    onnx.checker.check_model(onnxkit.pack(found))
    found.graph.output.append(helper.make_empty_tensor_value_info("r_DequantizeLinear_Output"))
    seen = outputs(found, feeds_of(proto))[-1]
    assert set(np.unique(seen)) <= set(few.values(np.arange(16)).tolist())
    del found.graph.output[-1]
    assert operators_run(found, tmp_path)["com.microsoft::QLinearConv"] == 2


def test_a_signed_activation_after_a_relu_keeps_the_relu():
    proto = convolutions()
    _, high = ranges_of(proto)["r"]
    signed = encode_range(Grid(8, per="tensor"), -high, high)
    found = write(proto, Scheme("static"), ranges_of(proto), {"r": signed})
    assert signal_to_noise(outputs(found, feeds_of(proto)), outputs(proto, feeds_of(proto))) > 25


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_fewer_bits_make_a_smaller_file_and_run_the_same_integer_kernels(bits: int, tmp_path: Path):
    proto = graph(
        """<ir_version: 8, opset_import: ["" : 17]>
        wide (float[1, 64, 6, 6] x) => (float[1, 64, 6, 6] y) {
            [one] a = Conv<pads = [1, 1, 1, 1]>(x, w0) r = Relu(a) [two] y = Conv<pads = [1, 1, 1, 1]>(r, w1)
        }""",
        w0=(64, 64, 3, 3), w1=(64, 64, 3, 3),
    )  # fmt: skip
    found = write(proto, Scheme("static"), ranges_of(proto), encoded(proto, Grid(bits)))
    assert operators_run(found, tmp_path)["com.microsoft::QLinearConv"] == 2
    weights = 2 * 64 * 64 * 9
    stored = 4 if bits == 2 and not holds_two_bits() else bits
    assert weights * stored / 8 < len(onnxkit.pack(found)) < weights * stored / 8 + 6000


@pytest.mark.parametrize("bits", [8, 4])
def test_weight_only_convolutions_are_exact_and_cost_nothing_at_run_time(bits: int, tmp_path: Path):
    proto = one_convolution()
    encodings = encoded(proto, Grid(bits))
    found, feeds = write(proto, Scheme("weights"), {}, encodings), feeds_of(proto)
    np.testing.assert_array_equal(outputs(found, feeds)[0], outputs(rounded(proto, encodings), feeds)[0])
    assert operators_run(found, tmp_path) == operators_run(proto, tmp_path)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weight_only_matrices_are_multiplied_by_blocks(bits: int, tmp_path: Path):
    proto = matrices()
    found = write(proto, Scheme("weights"), {}, usual_encodings(proto, bits, group=16))
    # 40 values are no whole number of groups of 16.
    assert operators_run(found, tmp_path)["com.microsoft::MatMulNBits"] == 1


def test_kept_nodes_and_values_without_an_encoding_stay_as_they_were():
    proto = convolutions()
    encodings = {"w1": encoded(proto, Grid(4))["w1"]}
    mixed = write(proto, Scheme("static", kept=frozenset({"head"})), ranges_of(proto), encodings)
    kinds = {tensor.name: tensor.data_type for tensor in mixed.graph.initializer}
    assert kinds["w1_quantized_packed"] == TensorProto.INT4
    assert kinds["w0_quantized"] == TensorProto.INT8
    assert kinds["w2"] == TensorProto.FLOAT


@pytest.mark.parametrize("kind", ["static", "weights"])
def test_a_channel_of_zeros_with_a_bias(kind: str):
    proto = convolutions()
    weight = constant(proto, "w0").copy()
    weight[3] = 0.0
    proto = with_constants(proto, {"w0": weight})
    encodings = encoded(proto, Grid(4))
    found = write(proto, Scheme(kind), ranges_of(proto), encodings)
    feeds = feeds_of(proto)
    assert signal_to_noise(outputs(found, feeds), outputs(rounded(proto, encodings), feeds)) > 25


@pytest.mark.parametrize("grid", [Grid(4), Grid(8), Grid(8, per="tensor")], ids=str)
def test_a_bias_that_is_huge_beside_its_channel_survives(grid: Grid):
    proto = convolutions()
    weight = constant(proto, "w0") * (np.float32(1e-11) if grid.per == "tensor" else channels(1e-11))
    proto = with_constants(proto, {"w0": weight})
    encodings = encoded(proto, grid)
    reference = rounded(proto, encodings)
    feeds = feeds_of(proto)
    found = write(proto, Scheme("static"), ranges_of(reference), encodings)
    assert signal_to_noise(outputs(found, feeds), outputs(reference, feeds)) > 30


def channels(third: float) -> Array:
    """A factor for 16 channels that changes one of them."""
    factor = np.ones((16, 1, 1, 1), np.float32)
    factor[3] = third
    return factor


def test_two_layers_that_share_a_bias_each_get_their_own_scale():
    proto = graph(
        """<ir_version: 8, opset_import: ["" : 17]>
        twins (float[1, 8] x) => (float[1, 4] y, float[1, 4] z) { [a] y = Gemm(x, w0, b) [b] z = Gemm(x, w1, b) }""",
        w0=(8, 4), w1=(8, 4), b=(4,),
    )  # fmt: skip
    proto = with_constants(proto, {"w1": 100 * constant(proto, "w1")})
    found = write(proto, Scheme("static"), ranges_of(proto), encoded(proto, Grid(8)))
    feeds = feeds_of(proto)
    assert signal_to_noise(outputs(found, feeds), outputs(proto, feeds)) > 30


def test_a_graph_below_the_first_opset_with_four_bits_keeps_bytes():
    assert [stored_bits(Grid(2), opset) for opset in (20, 21, 24, 25)] == [8, 4, 4, 2]
    assert [stored_bits(Grid(bits), 25) for bits in (2, 3, 4, 5, 8)] == [2, 4, 4, 8, 8]


@pytest.mark.skipif(not holds_two_bits(), reason="this onnxruntime has no integers of two bits")
def test_the_opset_rises_as_far_as_the_codes_need():
    proto = one_convolution()
    assert [onnxkit.opsets(with_room(proto, [Grid(bits)]))["ai.onnx"] for bits in (8, 4, 2)] == [17, 21, 25]
    assert with_room(proto, [Grid(8)]) is proto
    found = with_room(proto, [Grid(4)])
    np.testing.assert_array_equal(outputs(found, feeds_of(proto))[0], outputs(proto, feeds_of(proto))[0])
    assert [onnxkit.lowest_ir(with_room(proto, [Grid(bits)])) for bits in (4, 2)] == [10, 13]


def test_the_closest_encoding_of_four_bits_serves_better_than_the_whole_range():
    proto, feeds = convolutions(), feeds_of(convolutions())
    closest = {name: encode_closest(Grid(2), constant(proto, name)) for name in ("w0", "w1")}
    whole = {name: encode(Grid(2), constant(proto, name)) for name in ("w0", "w1")}
    found = [
        signal_to_noise(outputs(write(proto, Scheme("weights"), {}, each), feeds), outputs(proto, feeds))
        for each in (closest, whole)
    ]
    assert found[0] > found[1]
