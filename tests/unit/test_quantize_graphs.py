"""Preparing, calibrating, quantising and ranking real graphs, each run by onnxruntime."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from edgewright import onnxkit
from edgewright.errors import ModelError
from edgewright.protocols import OperatorTime
from edgewright.types import Array, Arrays
from edgewright_plugins.qdq.attention import attention_nodes
from edgewright_plugins.qdq.calibrate import find_ranges, observe
from edgewright_plugins.qdq.place import Scheme, activations, build, quantised_nodes
from edgewright_plugins.qdq.prepare import prepare
from edgewright_plugins.qdq.ranges import Range
from edgewright_plugins.qdq.sensitivity import outputs, rank, signal_to_noise
from edgewright_plugins.quantize.slow import Slower, per_operator, same_operators, slower_nodes

SCHEMES = [
    Scheme("static"),
    Scheme("static", "s8"),
    Scheme("static", per_channel=False),
    Scheme("static-layers"),
    Scheme("static-layers", "s8"),
    Scheme("dynamic"),
]


def net(text: str, seed: int = 0, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A graph from text with seeded weights scaled to keep the size of activations."""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for name, shape in weights.items():
        values = rng.standard_normal(shape) / np.sqrt(max(1, int(np.prod(shape[1:]))))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    return proto


def conv_net() -> onnx.ModelProto:
    """Convolutions with batch norm and a residual connection, then a linear layer."""
    proto = net(
        """<ir_version: 8, opset_import: ["" : 17]>
        cnn (float[1, 3, 16, 16] x) => (float[1, 10] y) {
            [stem] a = Conv<pads = [1, 1, 1, 1]>(x, w0)
            [norm] n = BatchNormalization(a, scale, shift, mean, var)
            [relu0] r = Relu(n)
            [body] c = Conv<pads = [1, 1, 1, 1]>(r, w1, b1)
            [add] s = Add(c, r)
            [relu1] t = Relu(s)
            [pool] p = GlobalAveragePool(t)
            [flat] f = Flatten(p)
            [head] y = Gemm(f, w2, b2)
        }""",
        w0=(16, 3, 3, 3), w1=(16, 16, 3, 3), b1=(16,), w2=(16, 10), b2=(10,),
        scale=(16,), shift=(16,), mean=(16,), var=(16,),
    )  # fmt: skip
    var = next(t for t in proto.graph.initializer if t.name == "var")
    var.CopyFrom(onnx.numpy_helper.from_array(np.abs(onnx.numpy_helper.to_array(var)) + 0.5, "var"))
    return proto


def attention_net() -> onnx.ModelProto:
    """Attention over tokens, written as exporters do: MatMul and Add on three axes."""
    return net(
        """<ir_version: 8, opset_import: ["" : 17]>
        attention (float[1, 8, 32] x) => (float[1, 8, 32] y) {
            [q] q0 = MatMul(x, wq)
            [qb] q1 = Add(bq, q0)
            [k] k0 = MatMul(x, wk)
            [turn] kt = Transpose<perm = [0, 2, 1]>(k0)
            [scores] s = MatMul(q1, kt)
            [soft] a = Softmax(s)
            [v] v0 = MatMul(x, wv)
            [mix] m = MatMul(a, v0)
            [out] o = MatMul(m, wo)
            [ob] p = Add(o, bo)
            [res] y = Add(p, x)
        }""",
        wq=(32, 32), wk=(32, 32), wv=(32, 32), wo=(32, 32), bq=(32,), bo=(32,),
    )  # fmt: skip


def two_headed() -> onnx.ModelProto:
    return net(
        """<ir_version: 8, opset_import: ["" : 17]>
        heads (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] boxes, float[1, 2, 8, 8] scores) {
            [trunk] a = Conv<pads = [1, 1, 1, 1]>(x, w0)
            [relu] r = Relu(a)
            [boxes] boxes = Conv(r, w1)
            [class] c = Conv(r, w2)
            [soft] scores = Softmax<axis = 1>(c)
        }""",
        w0=(8, 3, 3, 3), w1=(4, 8, 1, 1), w2=(2, 8, 1, 1),
    )  # fmt: skip


NETS = {"conv": conv_net, "attention": attention_net, "two heads": two_headed}


def noise(proto: onnx.ModelProto, count: int = 8, seed: int = 1) -> list[Arrays]:
    rng = np.random.default_rng(seed)
    specs = [onnxkit.tensor_spec(value) for value in proto.graph.input]
    return [{s.name: rng.standard_normal(s.shape).astype(np.float32) for s in specs} for _ in range(count)]


def calibrated(proto: onnx.ModelProto, method: str = "min-max") -> dict[str, Range]:
    return find_ranges(proto, activations(proto), lambda: noise(proto), (method,))[method]


def operators(proto: onnx.ModelProto) -> dict[str, int]:
    return onnxkit.operators(proto)


# ------------------------------------------------------------------ prepare


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_the_prepared_graph_is_the_same_function(make: Callable[[], onnx.ModelProto]):
    proto = make()
    prepared = prepare(proto)
    feeds = noise(proto)
    assert signal_to_noise(outputs(prepared, feeds), outputs(proto, feeds)) > 90
    assert [v.name for v in prepared.graph.output] == [v.name for v in proto.graph.output]


def test_batch_norm_is_folded_and_the_input_left_alone():
    proto = conv_net()
    before = proto.SerializeToString()
    assert "BatchNormalization" not in operators(prepare(proto))
    assert proto.SerializeToString() == before


def test_products_with_constants_become_gemms():
    found = operators(prepare(attention_net()))
    assert found["Gemm"] == 4
    assert found["MatMul"] == 2
    assert found["Add"] == 1


def test_a_product_that_is_itself_an_output_keeps_its_value():
    proto = net(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 4, 8] x) => (float[2, 4, 8] p, float[2, 4, 8] y) { p = MatMul(x, w) y = Add(p, b) }""",
        w=(8, 8), b=(8,),
    )  # fmt: skip
    feeds = noise(proto)
    assert signal_to_noise(outputs(prepare(proto), feeds), outputs(proto, feeds)) > 90


def test_a_free_batch_stays_free():
    proto = net(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 4, 8] x) => (float[N, 4, 6] y) { p = MatMul(x, w) y = Add(p, b) }""",
        w=(8, 6), b=(6,),
    )  # fmt: skip
    prepared = prepare(proto)
    assert operators(prepared)["Gemm"] == 1
    for rows in (1, 3):
        feeds = [{"x": np.ones((rows, 4, 8), np.float32)}]
        assert outputs(prepared, feeds)[0].shape == (rows, 4, 6)


def test_an_old_file_with_weights_among_its_inputs():
    proto = net(
        """<ir_version: 3, opset_import: ["" : 9]>
        old (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[1, 4, 6, 6] y) { c = Conv(x, w) y = Relu(c) }""",
        w=(4, 3, 3, 3),
    )  # fmt: skip
    prepared = prepare(proto)
    assert [v.name for v in prepared.graph.input] == ["x"]
    int8 = build(prepared, Scheme("static"), calibrated(prepared))
    onnx.checker.check_model(onnxkit.pack(int8))
    feeds = noise(prepared)
    assert signal_to_noise(outputs(int8, feeds), outputs(prepared, feeds)) > 25


# ------------------------------------------------------------------ calibrate


def test_ends_are_exact_and_counts_complete():
    proto = prepare(conv_net())
    feeds = noise(proto)
    found = observe(proto, ["x"], lambda: feeds)["x"]
    values = np.concatenate([feed["x"].reshape(-1) for feed in feeds])
    assert (found.lowest, found.highest) == (values.min(), values.max())
    assert found.counts.sum() == values.size


def test_an_activation_that_is_not_finite_is_named():
    proto = net("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 4] x) => (float[1, 4] y) { big = Log(x) y = Gemm(big, w) }""", w=(4, 4))  # fmt: skip
    with pytest.raises(ModelError, match="activation 'big' is NaN or infinite"):
        observe(proto, ["big"], lambda: [{"x": np.zeros((1, 4), np.float32)}])


# ------------------------------------------------------------------ build


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.key)
@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_int8_graphs_are_valid_close_and_reproducible(make: Callable[[], onnx.ModelProto], scheme: Scheme):
    proto = prepare(make())
    if not quantised_nodes(proto, scheme):
        assert build(proto, scheme, {}) is proto
        return
    ranges = calibrated(proto)
    int8 = onnxkit.pack(build(proto, scheme, ranges))
    assert int8 == onnxkit.pack(build(proto, scheme, ranges))
    onnx.checker.check_model(int8)
    again = onnx.load_from_string(int8)
    assert onnx.TensorProto.INT8 in {tensor.data_type for tensor in again.graph.initializer}
    assert [v.name for v in again.graph.output] == [v.name for v in proto.graph.output]
    feeds = noise(proto)
    assert signal_to_noise(outputs(again, feeds), outputs(proto, feeds)) > 15


def test_a_scale_per_channel_serves_uneven_channels_better():
    proto = conv_net()
    weight = next(t for t in proto.graph.initializer if t.name == "w1")
    uneven = onnx.numpy_helper.to_array(weight) * np.geomspace(1, 1000, 16, dtype=np.float32)[:, None, None, None]
    weight.CopyFrom(onnx.numpy_helper.from_array(uneven / 100, "w1"))
    proto = prepare(proto)
    nodes = frozenset(quantised_nodes(proto, Scheme("static"))) - {"body"}
    feeds, ranges = noise(proto), calibrated(proto)
    found = [
        signal_to_noise(
            outputs(build(proto, Scheme("static", per_channel=wide, kept=nodes), ranges), feeds), outputs(proto, feeds)
        )
        for wide in (False, True)
    ]
    assert found[1] > found[0]


def test_kept_nodes_stay_float():
    proto = prepare(conv_net())
    int8 = build(proto, Scheme("static", kept=frozenset({"stem", "head"})), calibrated(proto))
    kinds = {t.name: t.data_type for t in int8.graph.initializer}
    weights = {node.name: node.input[1] for node in int8.graph.node if node.name in ("stem", "body", "head")}
    assert kinds[weights["stem"]] == onnx.TensorProto.FLOAT
    assert kinds[weights["head"]] == onnx.TensorProto.FLOAT
    assert weights["body"].endswith("DequantizeLinear_Output")


def test_a_branch_that_uses_values_around_it():
    proto = net(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 4] x, bool more) => (float[1, 4] y) {
            a = Gemm(x, w0)
            b = Gemm(a, w1)
            y = If(more) <
                then_branch = yes () => (float[1, 4] t) { t = Add(b, a) },
                else_branch = no () => (float[1, 4] e) { e = Identity(b) }
            >
        }""",
        w0=(4, 4), w1=(4, 4),
    )  # fmt: skip
    prepared = prepare(proto)
    rng = np.random.default_rng(0)
    feeds: list[Arrays] = [
        {"x": rng.standard_normal((1, 4)).astype(np.float32), "more": np.array(True)} for _ in range(4)
    ]
    ranges = find_ranges(prepared, activations(prepared), lambda: feeds, ("min-max",))["min-max"]
    int8 = build(prepared, Scheme("static"), ranges)
    onnx.checker.check_model(onnxkit.pack(int8))
    assert signal_to_noise(outputs(int8, feeds), outputs(proto, feeds)) > 25


def test_static_layers_leaves_outputs_and_attention_float():
    proto = prepare(attention_net())
    scheme = Scheme("static-layers")
    assert sorted(quantised_nodes(proto, scheme)) == ["k", "out", "q", "v"]
    int8 = build(proto, scheme, calibrated(proto))
    softmax = next(node for node in int8.graph.node if node.op_type == "Softmax")
    assert softmax.input[0] == "s"


def heads_net() -> onnx.ModelProto:
    """Two heads cut out of one projection, a scale and a mask, then a projection, as a ViT has them."""
    return net(
        """<ir_version: 8, opset_import: ["" : 17]>
        heads (float[1, 8, 32] x, float[1, 1, 8, 8] mask) => (float[1, 8, 32] y)
        <int64[5] cut = {1, 8, 3, 2, 16}, int64[3] back = {1, 8, 32},
         int64 one = {0}, int64 two = {1}, int64 three = {2}, float four = {0.25}> {
            [qkv] rows = MatMul(x, w0)
            [cut] parts = Reshape(rows, cut)
            [turn] turned = Transpose<perm = [2, 0, 3, 1, 4]>(parts)
            [q] q = Gather(turned, one)
            [k] k = Gather(turned, two)
            [v] v = Gather(turned, three)
            [kt] kt = Transpose<perm = [0, 1, 3, 2]>(k)
            [scale] scaled = Mul(q, four)
            [scores] s = MatMul(scaled, kt)
            [masked] m = Add(s, mask)
            [soft] a = Softmax(m)
            [mix] mixed = MatMul(a, v)
            [merge] merged = Transpose<perm = [0, 2, 1, 3]>(mixed)
            [flat] tokens = Reshape(merged, back)
            [out] o = MatMul(tokens, w1)
            [res] y = Add(o, x)
        }""",
        w0=(32, 96), w1=(32, 32),
    )  # fmt: skip


def test_static_int8_leaves_all_of_attention_float():
    proto = prepare(heads_net())
    inner = {"cut", "turn", "q", "k", "v", "kt", "scale", "scores", "masked", "soft", "mix", "merge", "flat"}
    int8 = build(proto, Scheme("static"), calibrated(proto))
    makers = {name: node.op_type for node in int8.graph.node for name in node.output}
    nodes = {node.name: node for node in int8.graph.node}
    assert inner <= nodes.keys()
    assert not [n for n in inner if makers.get(nodes[n].input[0]) == "DequantizeLinear"]
    assert [makers[nodes[name].input[0]] for name in ("qkv", "out", "res")] == ["DequantizeLinear"] * 3


def test_products_that_no_softmax_joins_are_not_attention():
    proto = heads_net()
    next(node for node in proto.graph.node if node.name == "soft").op_type = "Identity"
    assert {"scores", "mix"} <= set(quantised_nodes(prepare(proto), Scheme("static")))


def test_attention_is_found_behind_as_many_sums_as_there_may_be():
    proto = prepare(heads_net())
    soft = next(node for node in proto.graph.node if node.name == "soft")
    place, end = list(proto.graph.node).index(soft), soft.input[0]
    for number in range(60):  # 2 ** 60 ways back
        proto.graph.node.insert(
            place + number, onnx.helper.make_node("Add", [end, end], [f"sum{number}"], f"sum{number}")
        )
        end = f"sum{number}"
    soft.input[0] = end
    assert {"scores", "mix", *(f"sum{number}" for number in range(60))} <= attention_nodes(proto)


def test_a_layer_whose_bytes_nobody_takes_gives_floats():
    proto = prepare(conv_net())
    int8 = build(proto, Scheme("static"), calibrated(proto))
    makers = {name: node.op_type for node in int8.graph.node for name in node.output}
    assert makers["y"] == "Gemm"
    assert sum(node.op_type == "QuantizeLinear" and node.input[0] == "y" for node in int8.graph.node) == 0
    assert makers[next(n for n in int8.graph.node if n.name == "head").input[0]] == "DequantizeLinear"


def test_a_view_between_floats_carries_no_bytes():
    proto = net(
        """<ir_version: 8, opset_import: ["" : 17]>
        mlp (float[1, 8, 32] x) => (float[1, 8, 32] y) {
            [up] a = MatMul(x, w0)
            [act] b = Erf(a)
            [down] y = MatMul(b, w1)
        }""",
        w0=(32, 64), w1=(64, 32),
    )  # fmt: skip
    proto = prepare(proto)
    int8 = build(proto, Scheme("static"), calibrated(proto))
    quantised = [node.input[0] for node in int8.graph.node if node.op_type == "QuantizeLinear"]
    makers = {name: node.name for node in proto.graph.node for name in node.output}
    assert [makers.get(name, name) for name in quantised] == ["up_rows", "down_rows"]


def test_dynamic_int8_works_on_what_dynamo_exports():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    block = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own code
        program = torch.onnx.export(block, (torch.randn(1, 8, 32),), dynamo=True, verbose=False)
    program.save(buffer)
    proto = prepare(onnx.load_from_string(buffer.getvalue()))
    int8 = build(proto, Scheme("dynamic"), {})
    assert operators(int8)["MatMulInteger"] == 4
    feeds = noise(proto)
    assert signal_to_noise(outputs(int8, feeds), outputs(proto, feeds)) > 25


# ------------------------------------------------------------------ sensitivity


def test_signal_to_noise_by_hand():
    reference = [np.array([3.0, 4.0]), np.array([10])]
    assert signal_to_noise(reference, reference) == 120
    # 1 % of the energy wrong in one of two outputs: half a percent, 23 dB.
    assert signal_to_noise([np.array([3.0, 4.5]), np.array([10])], reference) == pytest.approx(23.01, abs=0.01)
    assert signal_to_noise([np.array([np.nan, 4.0]), np.array([10])], reference) == -120


def test_the_layers_around_an_outlier_channel_rank_first():
    proto = net(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 12, 12] x) => (float[1, 8, 12, 12] y) {
            [one] a = Conv<pads = [1, 1, 1, 1]>(x, w0)
            [two] b = Conv<pads = [1, 1, 1, 1]>(a, w1)
            [three] c = Conv<pads = [1, 1, 1, 1]>(b, w2)
            [four] y = Conv<pads = [1, 1, 1, 1]>(c, w3)
        }""",
        w0=(8, 3, 3, 3), w1=(8, 8, 3, 3), w2=(8, 8, 3, 3), w3=(8, 8, 3, 3),
    )  # fmt: skip
    weights = {t.name: t for t in proto.graph.initializer}
    for name, axis, factor in (("w1", 0, 200.0), ("w2", 1, 1 / 200.0)):
        values = onnx.numpy_helper.to_array(weights[name]).copy()
        np.moveaxis(values, axis, 0)[3] *= factor
        weights[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    proto = prepare(proto)
    told: list[int] = []
    ranked = rank(proto, Scheme("static"), calibrated(proto), noise(proto), lambda done, _: told.append(done))
    assert {name for name, _ in ranked[:2]} == {"two", "three"}
    assert ranked[1][1] + 6 < ranked[2][1]
    assert told == [0, 1, 2, 3]


# ------------------------------------------------------------------ slow nodes


def times(**microseconds: float) -> list[OperatorTime]:
    return [OperatorTime(name, "", "", value) for name, value in microseconds.items()]


def test_slower_nodes_by_hand():
    proto = prepare(attention_net())
    floats = times(q=10.0, soft=5.0, k=10.0, res=75.0)
    integers = [*times(q_token_1=4.0, soft_quant=9.0, k=10.2), OperatorTime("y_QuantizeLinear", "", "", 80.0)]
    found = slower_nodes(proto, floats, integers)
    assert [(node.name, node.operator, round(node.share, 3)) for node in found] == [
        ("res", "Add", 0.05),
        ("soft", "Softmax", 0.04),
    ]
    assert per_operator([Slower("a", "Add", 1.0, 0.1), Slower("b", "Mul", 2.0, 0.2), Slower("c", "Add", 4.0, 0.4)]) == {
        "Add": 5.0,
        "Mul": 2.0,
    }
    assert same_operators(proto, [*found, Slower("q", "Gemm", 1.0, 0.1)]) == {"res", "soft"}


def profile(graph: bytes, feed: dict[str, Array], folder: Path, microseconds: float) -> list[OperatorTime]:
    """The nodes that a run executed, by the runtime's names, as if each had taken so long."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.intra_op_num_threads = 1
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [
        OperatorTime(re.sub("_kernel_time$", "", e["name"]), e["args"]["op_name"], "", microseconds)
        for e in events
        if e["name"].endswith("_kernel_time")
    ]


def test_the_runtime_s_own_names_lead_back_to_every_layer(tmp_path: Path):
    proto = prepare(conv_net())
    feed = dict(noise(proto)[0])
    floats = profile(onnxkit.pack(proto), feed, tmp_path, 1.0)
    graph = onnxkit.pack(build(proto, Scheme("static"), calibrated(proto)))
    integers = profile(graph, feed, tmp_path, 1000.0)
    found = {node.name for node in slower_nodes(proto, floats, integers)}
    assert {"stem", "body", "head"} - found <= {"body"}, "body is fused with the Add after it in float"
    assert {"stem", "head"} <= found
