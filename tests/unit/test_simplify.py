"""`simplify`: fewer nodes, the same function, names that users know."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright import onnxkit
from edgewright_plugins.simplify.graph import OPSET, largest_move, optimize, raise_opset, simplify


def build(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int], opset: int = 17):
    """A graph from `x` to `y`, whose output shape is left to inference."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def conv_norm(opset: int = 17) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, with names as torch's older exporter wrote them."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "layer1.conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], "layer1.bn"),
        helper.make_node("Relu", ["n"], ["y"], "layer1.relu"),
    ]
    weights = {"w": random(4, 3, 3, 3), "scale": random(4), "shift": random(4), "mean": random(4)}
    return build(nodes, weights | {"var": np.abs(random(4)) + 0.5}, [1, 3, 6, 6], opset)


def check_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    onnx.checker.check_model(onnx.load_from_string(onnxkit.pack(after)), full_check=True)
    assert [v.name for v in after.graph.input] == [v.name for v in before.graph.input]
    assert [v.name for v in after.graph.output] == [v.name for v in before.graph.output]
    names = [node.name for node in after.graph.node]
    assert all(names)
    assert len(names) == len(set(names))
    assert largest_move(before, after).max_rel < 1e-5


def test_batch_norm_is_folded_and_the_layer_keeps_its_name():
    before = conv_norm()
    after, _ = simplify(before)
    assert onnxkit.operators(after) == {"Conv": 1, "Relu": 1}
    assert [node.name for node in after.graph.node] == ["layer1.conv", "layer1.relu"]
    check_same(before, after)


def test_batch_norm_is_not_folded_when_the_convolution_is_read_elsewhere():
    before = conv_norm()
    before.graph.node.append(helper.make_node("Relu", ["c"], ["side"], "side"))
    before.graph.output.append(helper.make_tensor_value_info("side", TensorProto.FLOAT, [1, 4, 6, 6]))
    after, _ = simplify(before)
    assert "BatchNormalization" in onnxkit.operators(after)
    check_same(before, after)


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("order", [["c", "bias"], ["bias", "c"]])
def test_constant_added_to_a_convolution_becomes_its_bias(shape: tuple[int, ...], order: list[str]):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Add", order, ["y"], "bias"),
    ]
    before = build(nodes, {"w": random(4, 3, 3, 3), "bias": random(*shape)}, [1, 3, 6, 6])
    after, _ = simplify(before)
    assert [(node.op_type, node.name) for node in after.graph.node] == [("Conv", "conv")]
    check_same(before, after)


@pytest.mark.parametrize("shape", [(1, 3), (3, 3), (1,), (1, 4, 3, 3)])
def test_other_constants_stay_an_addition(shape: tuple[int, ...]):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Add", ["c", "bias"], ["y"], "bias"),
    ]
    before = build(nodes, {"w": random(4, 3, 3, 3), "bias": random(*shape)}, [1, 3, 5, 5])
    after, _ = simplify(before)
    assert onnxkit.operators(after) == {"Add": 1, "Conv": 1}
    check_same(before, after)


def test_constants_dead_and_repeated_nodes_go():
    nodes = [
        helper.make_node("Add", ["a", "b"], ["ab"], "constant"),
        helper.make_node("Relu", ["x"], ["dead"], "dead"),
        helper.make_node("Identity", ["x"], ["same"], "idle"),
        helper.make_node("Mul", ["same", "ab"], ["m1"], "first"),
        helper.make_node("Mul", ["same", "ab"], ["m2"], "twice"),
        helper.make_node("Add", ["m1", "m2"], ["y"], "sum"),
    ]
    before = build(nodes, {"a": random(4), "b": random(4)}, [2, 4])
    after, _ = simplify(before)
    assert onnxkit.operators(after) == {"Add": 1, "Mul": 1}
    check_same(before, after)


def test_shape_arithmetic_is_folded():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Unsqueeze", ["rows", "axes"], ["rows1"]),
        helper.make_node("Concat", ["rows1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    weights = {"first": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    before = build(nodes, weights, [2, 3, 4])
    after, _ = simplify(before)
    assert onnxkit.operators(after) == {"Reshape": 1}
    assert after.graph.node[0].name == "Reshape_y"
    check_same(before, after)


def test_large_constant_is_transposed_once_but_the_file_does_not_grow():
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "wt"], ["product"], "matmul"),
        helper.make_node("Expand", ["bias", "wide"], ["biases"], "expand"),
        helper.make_node("Add", ["product", "biases"], ["y"], "add"),
    ]
    weights = {"w": random(700, 900), "bias": random(1, 700), "wide": np.array([2000, 700])}
    before = build(nodes, weights, [2000, 900])
    after, _ = simplify(before)
    assert "Transpose" not in onnxkit.operators(after)
    assert len(onnxkit.pack(after)) < 1.01 * len(onnxkit.pack(before))
    check_same(before, after)


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_old_opset_is_raised(opset: int):
    before = conv_norm(opset)
    after, remarks = simplify(before)
    assert onnxkit.opsets(after) == {"ai.onnx": OPSET}
    assert remarks == [f"opset {opset} raised to {OPSET}"]
    check_same(before, after)


def test_newer_opset_stays():
    before = conv_norm(20)
    assert raise_opset(before) == (before, [])
    assert onnxkit.opsets(simplify(before)[0]) == {"ai.onnx": 20}


def test_file_with_functions_keeps_its_opset_and_its_calls():
    text = """<ir_version: 8, opset_import: ["": 15, "acme": 1]>
    net (float[1, 4] x) => (float[1, 4] y) { t = acme.Twice(x)  u = Identity(t)  y = Relu(u) }
    <domain: "acme", opset_import: ["": 15]> Twice (a) => (b) { b = Add(a, a) }"""
    before = onnx.parser.parse_model(text)
    after, remarks = simplify(before)
    assert onnxkit.operators(after) == {"Relu": 1, "acme::Twice": 1}
    assert "opset 15 kept" in remarks[0]
    check_same(before, after)


def test_function_of_an_exporter_is_put_in_its_place():
    text = """<ir_version: 8, opset_import: ["": 17, "pkg.torch": 1]>
    net (float[1, 4] x) => (float[1, 4] y) { y = pkg.torch.Twice(x) }
    <domain: "pkg.torch", opset_import: ["": 17]> Twice (a) => (b) { b = Add(a, a) }"""
    before = onnx.parser.parse_model(text)
    after, _ = simplify(before)
    assert onnxkit.operators(after) == {"Add": 1}
    check_same(before, after)


def test_quantised_weights_stay_quantised():
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "scale"], ["w"], "dequantize"),
        helper.make_node("MatMul", ["x", "w"], ["y"], "matmul"),
    ]
    before = build(nodes, {"w8": np.ones((4, 4), np.int8), "scale": np.float32(0.5)}, [1, 4])
    assert onnxkit.operators(simplify(before)[0]) == {"DequantizeLinear": 1, "MatMul": 1}


def test_metadata_stays_and_stale_shapes_go():
    before = conv_norm(11)
    helper.set_model_props(before, {"edgewright.state": "[]"})
    after, _ = simplify(before)
    packed = onnx.load_from_string(onnxkit.pack(after))
    assert {entry.key: entry.value for entry in packed.metadata_props} == {"edgewright.state": "[]"}
    assert before.graph.value_info
    assert not packed.graph.value_info


def test_same_graph_gives_the_same_bytes():
    assert onnxkit.pack(simplify(conv_norm())[0]) == onnxkit.pack(simplify(conv_norm())[0])


def test_largest_move_sees_a_wrong_graph():
    before = conv_norm()
    wrong = optimize(before)
    weight = next(tensor for tensor in wrong.graph.initializer if tensor.dims == [4, 3, 3, 3])
    weight.CopyFrom(numpy_helper.from_array(1.1 * numpy_helper.to_array(weight), weight.name))
    assert largest_move(before, wrong).max_rel > 0.01


def test_random_numbers_are_not_folded():
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], "noise"),
        helper.make_node("Add", ["x", "noise"], ["y"], "add"),
    ]
    after, _ = simplify(build(nodes, {}, [2, 4]))
    assert onnxkit.operators(after) == {"Add": 1, "RandomNormalLike": 1}
