"""Lift: every operator of its table against onnxruntime, whole networks, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.errors import RefusedError
from edgewright.grids import Grid, encode
from edgewright.protocols import NoParams
from edgewright.store import Store
from edgewright.types import Model, Signature, Stage, TensorSpec, TorchGraph, Variant

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - torch is optional
from torch.nn import functional  # noqa: E402

from edgewright import onnxkit  # noqa: E402
from edgewright_plugins.lift import LIFT  # noqa: E402
from edgewright_plugins.lift.build import lift_graph  # noqa: E402
from edgewright_plugins.lift.check import batch_problem, checked, first_astray, lift_checked  # noqa: E402
from edgewright_plugins.lift.ops import OPS  # noqa: E402
from edgewright_plugins.lower.export import lower_module, run_module  # noqa: E402
from edgewright_plugins.qdq.place import Scheme  # noqa: E402
from edgewright_plugins.qdq.prepare import prepare  # noqa: E402
from edgewright_plugins.qdq.write import write  # noqa: E402

RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def proto_of(nodes: list[Any], x: np.ndarray, outputs: list[str], constants: dict[str, Any], opset: int = 18) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


class Case:
    """One node: `x` first, then constants, an attribute per keyword; `fixed` when only this batch size can run."""

    def __init__(self, op: str, x: np.ndarray, *constants: Any, opset: int = 18, outputs: int = 1, **attributes: Any):
        self.op, self.x, self.fixed = op, x, attributes.pop("fixed", False)
        named = {f"c{i}": value for i, value in enumerate(constants) if value is not None}
        inputs = ["x", *(f"c{i}" if value is not None else "" for i, value in enumerate(constants))]
        names = [f"y{i}" for i in range(outputs)]
        self.proto = proto_of([helper.make_node(op, inputs, names, "n", **attributes)], x, names, named, opset)


IMAGE = noise(1, 4, 7, 6)
TOKENS = noise(1, 5, 8)
POSITIVE = np.abs(noise(1, 6)) + 0.5

ELEMENTWISE = (
    "Abs Ceil Cos Erf Exp Floor HardSwish Mish Neg Relu Round Sigmoid Sign Sin Softplus Softsign Tanh Identity"
)
CASES = [
    *(Case(op, IMAGE) for op in ELEMENTWISE.split()),
    *(Case(op, POSITIVE) for op in ("Log", "Sqrt", "Reciprocal")),
    *(Case(op, IMAGE, noise(4, 1, 1)) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "PRelu")),
    *(Case(op, IMAGE, np.float32(0.5)) for op in ("Add", "Sub", "Mul", "Div", "Greater", "LessOrEqual")),
    *(Case(op, IMAGE) for op in ("Selu", "Celu", "Elu", "LeakyRelu", "HardSigmoid", "Dropout", "GlobalMaxPool")),
    Case("HardSigmoid", IMAGE, alpha=1 / 6, beta=0.5),
    Case("Div", ints(7, -7, 5).reshape(1, 3), ints(2)),
    Case("Mod", ints(7, -7, 5).reshape(1, 3), ints(3)),
    Case("Mod", IMAGE, np.float32(0.3), fmod=1),
    Case("Pow", POSITIVE, np.float32(1.5)),
    Case("Equal", ints(1, 2, 3).reshape(1, 3), ints(2)),
    Case("Clip", IMAGE, np.float32(-0.5), np.float32(0.5)),
    Case("Clip", IMAGE, None, np.float32(0.5)),
    Case("Clip", IMAGE * 9, np.float32(0), np.float32(6)),
    Case("Gelu", IMAGE, opset=20),
    Case("Gelu", IMAGE, opset=20, approximate="tanh"),
    Case("Softmax", IMAGE, axis=1),
    Case("Softmax", TOKENS, opset=11, axis=2),
    Case("LogSoftmax", TOKENS, axis=-1),
    Case("Conv", IMAGE, noise(6, 4, 3, 3), noise(6), pads=[1, 1, 1, 1]),
    Case("Conv", IMAGE, noise(6, 2, 3, 3), group=2, strides=[2, 2], dilations=[2, 1]),
    Case("Conv", IMAGE, noise(6, 4, 3, 3), pads=[0, 0, 1, 1], strides=[2, 2]),
    Case("Conv", IMAGE, noise(6, 4, 4, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    Case("Conv", IMAGE, noise(6, 4, 2, 2), auto_pad="SAME_LOWER"),
    Case("Conv", IMAGE, noise(6, 4, 2, 2), auto_pad="VALID"),
    Case("Conv", noise(1, 3, 9), noise(5, 3, 3), noise(5)),
    Case("ConvTranspose", IMAGE, noise(4, 3, 3, 3), noise(3), strides=[2, 2], output_padding=[1, 1]),
    Case("ConvTranspose", IMAGE, noise(4, 3, 3, 3), pads=[0, 1, 1, 0], strides=[2, 2]),
    Case("BatchNormalization", IMAGE, noise(4), noise(4), noise(4), np.abs(noise(4)) + 1, epsilon=1e-3),
    Case("BatchNormalization", noise(1, 4), noise(4), noise(4), noise(4), np.abs(noise(4)) + 1),
    Case("LayerNormalization", TOKENS, noise(8), noise(8), epsilon=1e-6),
    Case("LayerNormalization", TOKENS, noise(5, 8), axis=-2),
    Case("InstanceNormalization", IMAGE, noise(4), noise(4)),
    Case("GroupNormalization", IMAGE, noise(4), noise(4), num_groups=2, opset=21),
    Case("Gemm", noise(1, 6), noise(5, 6), noise(5), transB=1, alpha=0.5, beta=2.0),
    Case("Gemm", noise(1, 6), noise(6, 5), noise(1, 5)),
    Case("Gemm", noise(1, 6), noise(6, 5), np.float32(1.5), beta=0.5),
    Case("MatMul", TOKENS, noise(8, 3)),
    Case("MatMul", TOKENS, noise(1, 8, 3)),
    Case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    Case("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    Case("MaxPool", IMAGE, kernel_shape=[2, 3], pads=[0, 0, 1, 1]),
    Case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    Case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    Case("AveragePool", IMAGE, kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
    Case("AveragePool", IMAGE, kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1),
    Case("GlobalAveragePool", IMAGE),
    *(Case(f"Reduce{kind}", IMAGE, axes=[2, 3], keepdims=0, opset=13) for kind in ("Mean", "Max", "Min", "L2")),
    Case("ReduceSum", IMAGE, ints(1)),
    Case("ReduceMean", IMAGE, ints(-1)),
    Case("ReduceLogSumExp", IMAGE, ints(1), keepdims=0),
    Case("ArgMax", IMAGE, axis=1, keepdims=0),
    Case("ArgMin", IMAGE, axis=-1),
    Case("TopK", noise(1, 9), ints(3), outputs=2),
    Case("CumSum", noise(1, 9), np.int64(1)),
    Case("Trilu", noise(1, 4, 4), np.int64(0), upper=0),
    Case("Reshape", IMAGE, ints(1, 4, 42)),
    Case("Reshape", IMAGE, ints(0, -1)),
    Case("Reshape", IMAGE, ints(4, 42)),
    Case("Flatten", IMAGE),
    Case("Flatten", IMAGE, axis=2),
    Case("Transpose", IMAGE, perm=[0, 2, 3, 1]),
    Case("Transpose", TOKENS, perm=[0, 2, 1]),
    Case("Squeeze", noise(1, 4, 1, 3), ints(2)),
    Case("Squeeze", noise(1, 4, 1, 3), opset=11, axes=[2]),
    Case("Unsqueeze", TOKENS, ints(1, -1)),
    Case("Expand", noise(1, 1, 3), ints(1, 4, 3)),
    Case("Expand", noise(1, 3), ints(5, 1, 3), fixed=True),
    Case("Tile", TOKENS, ints(1, 2, 1)),
    Case("Concat", TOKENS, noise(1, 1, 8), axis=1),
    Case("Split", IMAGE, ints(1, 3), axis=1, outputs=2),
    Case("Split", IMAGE, axis=2, num_outputs=3, outputs=3),
    Case("Slice", IMAGE, ints(0, 1), ints(1, 2**31 - 1), ints(0, 2), ints(1, 2)),
    Case("Slice", IMAGE, ints(-1), ints(-(2**31)), ints(3), ints(-2)),
    Case("Gather", IMAGE, np.int64(-1), axis=2),
    Case("Gather", IMAGE, ints(2, 0, -1), axis=3),
    Case("Gather", IMAGE, ints(0, 1, 2, 3).reshape(2, 2), axis=1),
    Case("GatherElements", IMAGE, np.zeros((1, 4, 7, 1), np.int64), axis=3, fixed=True),
    Case("Pad", IMAGE, ints(0, 1, 2, 0, 0, 0, 1, 3), np.float32(0.5)),
    Case("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 2, 1), mode="reflect"),
    Case("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 2, 1), mode="edge"),
    Case("Pad", IMAGE, ints(0, 0, 0, 0, 0, 0, 0, 0)),
    Case("Cast", IMAGE * 5, to=TensorProto.INT64),
    Case("CastLike", IMAGE * 5, ints(0)),
    Case("Where", noise(1, 3) > 0, np.float32(1), np.float32(2)),
    Case("Not", noise(1, 3) > 0),
    *(Case(op, noise(1, 3) > 0, np.array([True, False, True])) for op in ("And", "Or", "Xor")),
    Case("IsNaN", np.array([[1, np.nan]], np.float32)),
    Case("Einsum", TOKENS, noise(8, 3), equation="btc,cd->btd"),
    Case("QuantizeLinear", IMAGE, np.float32(0.1), np.uint8(3)),
    Case("QuantizeLinear", IMAGE, np.array([0.1, 0.2, 0.3, 0.4], np.float32), np.zeros(4, np.int8), axis=1),
    Case("DequantizeLinear", np.int8(IMAGE * 50), np.float32(0.1), np.int8(-3)),
    Case("DequantizeLinear", np.uint8(IMAGE * 9 + 40), np.array([1, 2, 3, 4], np.float32), np.uint8([1, 2, 3, 4])),
    Case("DepthToSpace", IMAGE, blocksize=2),
    Case("DepthToSpace", IMAGE, blocksize=2, mode="CRD"),
    Case("Resize", IMAGE, None, np.array([1, 1, 2, 2], np.float32), mode="nearest", nearest_mode="floor",
         coordinate_transformation_mode="asymmetric"),
    Case("Resize", IMAGE, None, None, ints(1, 4, 14, 12), mode="nearest"),
    Case("Resize", IMAGE, None, None, ints(1, 4, 9, 5), mode="linear"),
    Case("Resize", IMAGE, None, None, ints(1, 4, 9, 5), mode="linear", coordinate_transformation_mode="align_corners"),
    Case("Upsample", IMAGE, np.array([1, 1, 2, 2], np.float32), opset=9),
    Case("Less", IMAGE, np.float32(0.1)),
    Case("GreaterOrEqual", IMAGE, np.float32(0.1)),
    Case("ReduceMean", IMAGE, noop_with_empty_axes=1),
    Case("LeakyRelu", IMAGE, alpha=0.2),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.op)
def test_an_operator_computes_what_onnxruntime_does(case: Case) -> None:
    module, found, problem = lift_checked(case.proto, {"x": case.x})
    assert found.max_rel <= 1e-5
    assert bool(problem) == case.fixed
    want = next(onnxkit.run(onnxkit.pack(case.proto), [{"x": case.x}]))
    got = run_module(module, {"x": case.x})
    for a, b in zip(want, got, strict=True):
        assert a.dtype == b.numpy().dtype
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-5)


def test_every_operator_of_the_table_is_tried() -> None:
    elsewhere = {"Constant", "ConstantOfShape", "Range", "Shape"}
    assert set(OPS) - {case.op for case in CASES} - elsewhere == set()


def test_shapes_computed_in_the_graph_are_folded_and_the_batch_stays_free() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Gather", ["s", "zero"], ["rows"]),
        helper.make_node("Constant", [], ["axis"], value_ints=[0]),
        helper.make_node("Unsqueeze", ["rows", "axis"], ["rows1"]),
        helper.make_node("Constant", [], ["rest"], value=numpy_helper.from_array(ints(-1))),
        helper.make_node("Concat", ["rows1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("ConstantOfShape", ["axis"], ["none"]),
        helper.make_node("Range", ["zero", "count", "one"], ["steps"]),
        helper.make_node("Cast", ["steps"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["flat", "floats"], ["y"]),
    ]
    x = noise(1, 4, 3)
    proto = proto_of(nodes, x, ["y"], {"count": np.int64(12), "one": np.int64(1)})
    module, found, problem = lift_checked(proto, {"x": x})
    assert (found.max_abs, problem) == (0.0, "")
    three = noise(3, 4, 3)
    np.testing.assert_array_equal(module(torch.tensor(three)).numpy(), three.reshape(3, 12) + np.arange(12, dtype="f"))


def test_arithmetic_on_shapes_is_folded() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=2),
        helper.make_node("Squeeze", ["s"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Sqrt", ["f"], ["root"]),
        helper.make_node("Div", ["one", "root"], ["scale"]),
        helper.make_node("Mul", ["n", "two"], ["double"]),
        helper.make_node("Div", ["double", "two"], ["half"]),
        helper.make_node("Unsqueeze", ["half", "axis"], ["size"]),
        helper.make_node("Concat", ["front", "size"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y0"]),
        helper.make_node("Mul", ["y0", "scale"], ["y"]),
    ]
    constants = {"one": np.float32(1), "two": np.int64(2), "axis": ints(0), "front": ints(1, 2, 2)}
    x = noise(1, 4, 9)
    module, found, problem = lift_checked(proto_of(nodes, x, ["y"], constants), {"x": x})
    assert (found.max_rel < 1e-6, problem) == (True, "")
    assert [node.op for node in module.graph.nodes].count("call_function") == 2


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_integer_graph_rounds_in_float_with_the_codes_of_the_file(bits: int) -> None:
    x = noise(1, 3, 8, 8)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    weight = noise(4, 3, 3, 3)
    proto = prepare(proto_of(nodes, x, ["y"], {"w": weight, "b": noise(4)}))
    encoding = encode(Grid(bits), weight)
    graph = write(proto, Scheme("static"), {"x": (-3.0, 3.0), "c": (0.0, 6.0), "y": (0.0, 6.0)}, {"w": encoding})
    module, _, problem = lift_checked(graph, {"x": x})
    kept = [layer.weight for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    np.testing.assert_array_equal(kept[0].detach().numpy(), encoding.rounded(weight))
    assert problem == ""
    seen = np.concatenate([noise(1, 3, 8, 8) for _ in range(4)])
    step = 6.0 / 255
    for rows, one in zip(module(torch.tensor(seen)), seen, strict=True):
        [[wanted]] = onnxkit.run(onnxkit.pack(graph), [{"x": one[None]}])
        assert np.abs(rows.detach().numpy() - wanted[0]).max() < 1.01 * step


class Small(nn.Module):
    """Every kind of layer that has weights, a class token and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.before = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[B, 3, 16, 16] to [B, 5]."""
        x = torch.relu(self.norm(self.conv(image))).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(image.shape[0], -1, -1), x], 1)
        qkv = self.qkv(self.before(x)).reshape(image.shape[0], -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.head(mixed.transpose(1, 2).reshape(x.shape)[:, 0])


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, onnx.ModelProto, dict[str, np.ndarray]]:
    torch.manual_seed(0)
    net = Small().eval()
    example = {"image": noise(1, 3, 16, 16)}
    return net, lower_module(net, example, ["output"]), example


def test_a_network_comes_back_as_layers_that_train(small: Any) -> None:
    net, proto, example = small
    module, _, problem = lift_checked(proto, example)
    kinds = sorted(type(layer).__name__ for layer in module.modules() if not list(layer.children()))
    assert kinds == ["Conv2d", "LayerNorm", "Linear", "Linear"]  # the exporter folds the batch norm
    assert dict(module.named_modules())["head"].out_features == 5
    assert any(parameter.shape == (1, 1, 8) for parameter in module.parameters())
    assert problem == ""
    several = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(module(several), net(several), rtol=1e-4, atol=1e-5)
    module(several).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_lower_after_lift_gives_the_same_numbers(small: Any) -> None:
    _, proto, example = small
    again = lower_module(lift_graph(proto, example).module, example, ["output"])
    first, second = (next(onnxkit.run(onnxkit.pack(each), [example]))[0] for each in (proto, again))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
    assert onnxkit.operators(again)["Conv"] == 1


def test_one_weight_used_twice_stays_one_parameter() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    x = noise(1, 4)
    module = lift_graph(proto_of(nodes, x, ["y"], {"w": noise(4, 4)}), {"x": x}).module
    assert len(list(module.parameters())) == 1


def test_names_that_no_attribute_can_have_are_made_fit() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "graph.weight"], ["a"], "1/a b"),
        helper.make_node("Add", ["a", "graph"], ["y"]),
    ]
    x = noise(1, 4)
    module = lift_graph(
        proto_of(nodes, x, ["y"], {"graph.weight": noise(4, 4), "graph": noise(1, 1, 4)}), {"x": x}
    ).module
    assert isinstance(module.graph, torch.fx.Graph)
    assert {name for name, _ in module.named_parameters()} == {"graph_.weight", "graph__1"}


def test_a_batch_that_would_mix_rows_is_fixed() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["t", "s"], ["y"]),
    ]
    x = noise(1, 3, 4)
    proto = proto_of(nodes, x, ["y"], {"s": ints(3, 4)})
    module, _, problem = lift_checked(proto, {"x": x})
    assert problem
    with pytest.raises(RuntimeError):
        module(torch.zeros(2, 3, 4))


def test_unknown_operators_are_named_with_opset_and_node() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Hardmax", ["a"], ["b"], "peak"),
        helper.make_node("Fancy", ["b"], ["y"], "own", domain="acme"),
    ]
    proto = proto_of(nodes, IMAGE, ["y"], {})
    with pytest.raises(
        RefusedError, match=r"acme::Fancy \(opset 0, at node 'own'\), ai.onnx::Hardmax \(opset 18, at node 'peak'\)"
    ):
        lift_graph(proto, {"x": IMAGE})


def test_a_shape_that_depends_on_data_is_refused_by_node() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["s"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "s"], ["y"], "late"),
    ]
    x = np.array([1.0, 2.0], np.float32)
    with pytest.raises(RefusedError, match=r"Reshape .* at node 'late' computes its input 's' from data"):
        lift_graph(proto_of(nodes, x, ["y"], {}), {"x": x})


def test_the_first_operator_that_differs_is_named() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "fine"),
        helper.make_node("Softplus", ["a"], ["b"], "bad"),
        helper.make_node("Exp", ["b"], ["y"], "follows"),
    ]
    wrong = proto_of([nodes[0], helper.make_node("Softsign", ["a"], ["b"], "bad"), nodes[2]], IMAGE, ["y"], {})
    proto, example = proto_of(nodes, IMAGE, ["y"], {}), {"x": IMAGE}
    lifted = lift_graph(wrong, example)
    assert first_astray(proto, lifted, example) == "the first operator that differs is Softplus at node 'bad'"
    with pytest.raises(RefusedError, match=r"'y' differs .* Softplus at node 'bad'"):
        checked(proto, lifted, example)


def test_batch_problem_wants_an_axis() -> None:
    module = torch.fx.symbolic_trace(nn.Identity())
    assert "no axis" in batch_problem(module, {"x": np.array(1.0, np.float32)})


def model_of(proto: onnx.ModelProto, example: dict[str, np.ndarray], store: Store) -> Model:
    graph = store.keep(onnxkit.pack(proto), "onnx")
    inputs = tuple(TensorSpec(name, str(array.dtype), array.shape) for name, array in example.items())
    signature = Signature(inputs, (TensorSpec("output", "float32", (1, 5)),))
    stage = Stage("main", graph, tuple(example), ("output",))
    return Model("small", signature, (Variant("main", (stage,)),), example)


def test_the_transform_gives_a_torch_model_with_one_more_step(small: Any, tmp_path: Any) -> None:
    _, proto, example = small
    model = model_of(proto, example, Store(tmp_path))
    lifted = LIFT.apply(model, NoParams(), Store(tmp_path))
    assert isinstance(lifted.graph, TorchGraph)
    assert lifted.signature == model.signature
    assert [step.name for step in lifted.history] == ["lift"]
    assert lifted.history[0].details["max_rel"] < 1e-5
    assert "any batch size runs" in lifted.history[0].notes[0]
    assert lifted.digest == LIFT.apply(model, NoParams(), Store(tmp_path)).digest != model.digest


def test_the_transform_refuses_what_is_torch_already(small: Any, tmp_path: Any) -> None:
    _, proto, example = small
    model = model_of(proto, example, Store(tmp_path))
    assert LIFT.check(model, None) is None
    refusal = LIFT.check(LIFT.apply(model, NoParams(), Store(tmp_path)), None)
    assert refusal is not None
    assert "leave lift out" in refusal.reason
