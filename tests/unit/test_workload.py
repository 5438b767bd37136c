"""Operations and bytes of ONNX graphs, against published counts and against arithmetic on small graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.errors import ModelError
from edgewright_devices.loops import Product
from edgewright_devices.workload import Work, Workload, workload


def save(tmp_path: Path, text: str, weights: dict[str, np.ndarray] | None = None) -> Path:
    """A model in ONNX's text form, its inputs named in `weights` turned into initializers."""
    model = onnx.parser.parse_model(text)
    for name, array in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


def count(tmp_path: Path, body: str, weights: dict[str, np.ndarray] | None = None, *, opset: int = 21) -> Workload:
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1, "acme" : 1]>\n'
    return workload(save(tmp_path, header + body, weights))


def only(load: Workload) -> Work:
    assert len(load.works) == 1
    return load.works[0]


def zeros(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.zeros(shape, dtype)


# ------------------------------------------------------------------ published counts


class Network:
    """Writes convolutional networks a line per layer."""

    def __init__(self, channels: int, size: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape = [1, channels, size, size]
        self.last, self.channels = "x", channels

    def add(self, operator: str, *inputs: str, weights: tuple[int, ...] = (), **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        extra = []
        if weights:
            self.weights.append(numpy_helper.from_array(zeros(*weights), f"w{len(self.nodes)}"))
            extra = [f"w{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, [*inputs, *extra], [name], **attributes))
        self.last = name
        return name

    def convolve(self, channels: int, kernel: int, *, stride: int = 1, group: int = 1, source: str = "") -> str:
        shape = (channels, self.channels // group, kernel, kernel)
        pads, strides = [kernel // 2] * 4, [stride] * 2
        self.channels = channels
        return self.add("Conv", source or self.last, weights=shape, pads=pads, strides=strides, group=group)

    def classify(self, classes: int) -> None:
        self.add("Flatten", self.add("GlobalAveragePool", self.last))
        self.add("Gemm", self.last, weights=(self.channels, classes))

    def save(self, path: Path) -> Path:
        given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *self.shape[1:]])]
        taken = [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "network", given, taken, self.weights)
        onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)]), path)
        return path


def resnet20(path: Path) -> Path:
    """He et al., arXiv:1512.03385, section 4.2, with 1x1 convolutions on the shortcuts that change shape."""
    net = Network(3, 32)
    net.convolve(16, 3)
    for channels in (16, 32, 64):
        for block in range(3):
            taken, source = net.channels, net.last
            stride = 2 if block == 0 and channels > 16 else 1
            net.convolve(channels, 3, stride=stride)
            body = net.convolve(channels, 3)
            if stride == 2:
                net.channels = taken
                source = net.convolve(channels, 1, stride=2, source=source)
            net.add("Relu", net.add("Add", body, source))
    net.classify(10)
    return net.save(path)


def mobilenet_v2(path: Path) -> Path:
    """Sandler et al., arXiv:1801.04381, table 2."""
    net = Network(3, 224)
    net.convolve(32, 3, stride=2)
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for factor, channels, repeats, first in table:
        for stride in (first, *[1] * (repeats - 1)):
            source, taken = net.last, net.channels
            if factor > 1:
                net.convolve(taken * factor, 1)
            net.convolve(net.channels, 3, stride=stride, group=net.channels)
            net.convolve(channels, 1)
            if stride == 1 and taken == channels:
                net.add("Add", net.last, source)
    net.convolve(1280, 1)
    net.classify(1000)
    return net.save(path)


def test_resnet20_has_the_published_macs(tmp_path: Path) -> None:
    # 40.8 M (He et al. state 0.27 M parameters; the count with projection shortcuts is 40.81 M)
    load = workload(resnet20(tmp_path / "m.onnx"))
    assert load.macs == pytest.approx(40.8e6, rel=0.005)
    assert load.weight_bytes == pytest.approx(4 * 0.27e6, rel=0.02)


def test_mobilenet_v2_has_the_published_macs(tmp_path: Path) -> None:
    # 300 M MACs and 3.4 M parameters (arXiv:1801.04381, table 4)
    load = workload(mobilenet_v2(tmp_path / "m.onnx"))
    assert load.macs == pytest.approx(300e6, rel=0.005)
    assert load.weight_bytes == pytest.approx(4 * 3.4e6, rel=0.03)
    assert sum(work.product is not None and work.product.taken == 1 for work in load.works) == 17
    assert not load.opaque
    assert not load.uncounted


BLOCK = """
    n{i} = LayerNormalization(x{i}, scale)
    all{i} = MatMul(n{i}, qkv)
    q{i}, k{i}, v{i} = Split<axis=2, num_outputs=3>(all{i})
    qr{i} = Reshape(q{i}, heads)
    kr{i} = Reshape(k{i}, heads)
    vr{i} = Reshape(v{i}, heads)
    qt{i} = Transpose<perm=[0, 2, 1, 3]>(qr{i})
    kt{i} = Transpose<perm=[0, 2, 3, 1]>(kr{i})
    vt{i} = Transpose<perm=[0, 2, 1, 3]>(vr{i})
    s{i} = MatMul(qt{i}, kt{i})
    p{i} = Softmax(s{i})
    a{i} = MatMul(p{i}, vt{i})
    at{i} = Transpose<perm=[0, 2, 1, 3]>(a{i})
    ar{i} = Reshape(at{i}, joined)
    o{i} = MatMul(ar{i}, out)
    y{i} = Add(o{i}, x{i})
    m{i} = LayerNormalization(y{i}, scale)
    u{i} = MatMul(m{i}, up)
    g{i} = Gelu(u{i})
    d{i} = MatMul(g{i}, down)
    x{j} = Add(d{i}, y{i})
"""


def test_deit_tiny_has_the_published_macs(tmp_path: Path) -> None:
    # 1.26 G with the products of attention, 1.08 G without (Touvron et al., arXiv:2012.12877, state 1.3 G FLOPs)
    blocks = "".join(BLOCK.format(i=i, j=i + 1) for i in range(12))
    body = f"""m (float[n,3,224,224] image) => (float[a,b] logits) {{
        patches = Conv<strides=[16, 16]>(image, patch)
        flat = Reshape(patches, pixels)
        tokens = Transpose<perm=[0, 2, 1]>(flat)
        x0 = Concat<axis=1>(token, tokens)
        {blocks}
        first = Gather<axis=1>(x12, zero)
        logits = Gemm(first, head)
    }}"""
    weights = {"patch": zeros(192, 3, 16, 16), "token": zeros(1, 1, 192), "scale": zeros(192), "head": zeros(192, 1000)}
    weights |= {"qkv": zeros(192, 576), "out": zeros(192, 192), "up": zeros(192, 768), "down": zeros(768, 192)}
    sizes = {"pixels": [1, 192, -1], "heads": [1, 197, 3, 64], "joined": [1, 197, 192], "zero": 0}
    load = count(tmp_path, body, weights | {name: np.array(size) for name, size in sizes.items()})
    attention = 12 * 2 * 197 * 197 * 192
    assert load.macs == pytest.approx(1.26e9, rel=0.01)
    assert load.macs - attention == pytest.approx(1.08e9, rel=0.02)
    assert not load.opaque
    assert not load.uncounted


# ------------------------------------------------------------------ one node at a time


@pytest.mark.parametrize(
    ("body", "weights", "macs"),
    [
        (
            "m (float[2,3,8,8] x) => (float[a,b,c,d] y) {y = Conv<strides=[2,2]>(x, w)}",
            zeros(4, 3, 2, 2),
            2 * 4 * 16 * 12,
        ),
        ("m (float[1,4,8,8] x) => (float[a,b,c,d] y) {y = Conv<group=2>(x, w)}", zeros(6, 2, 1, 1), 6 * 64 * 2),
        ("m (float[1,4,8,8] x) => (float[a,b,c,d] y) {y = ConvTranspose(x, w)}", zeros(4, 5, 2, 2), 4 * 64 * 5 * 4),
        ("m (float[7,5] x) => (float[a,b] y) {y = Gemm(x, w)}", zeros(5, 3), 7 * 5 * 3),
        ("m (float[5,7] x) => (float[a,b] y) {y = Gemm<transA=1>(x, w)}", zeros(5, 3), 7 * 5 * 3),
        ("m (float[2,6,7,5] x) => (float[a,b,c,d] y) {y = MatMul(x, w)}", zeros(5, 3), 2 * 6 * 7 * 5 * 3),
        (
            'm (float[2,7,5] x) => (float[a,b,c] y) {y = Einsum<equation="bij,jk->bik">(x, w)}',
            zeros(5, 3),
            2 * 7 * 5 * 3,
        ),
    ],
)
def test_macs_of_a_node(tmp_path: Path, body: str, weights: np.ndarray, macs: int) -> None:
    work = only(count(tmp_path, body, {"w": weights}))
    assert (work.macs, work.ops, work.dtype) == (macs, 2 * macs, "float32")
    loops = work.product
    assert loops is not None
    assert loops.rows * loops.taken * loops.given * loops.window == macs
    assert work.weight_bytes == weights.nbytes


@pytest.mark.parametrize(
    ("body", "shape", "loops"),
    [
        (
            "m (float[1,4,8,8] x) => (float[a,b,c,d] y) {y = Conv<group=2, strides=[2,2], pads=[1,1,1,1]>(x, w)}",
            (6, 2, 3, 3),
            Product(rows=16, taken=2, given=6, window=9, stride=2, groups=2),
        ),
        (
            "m (float[1,4,8,8] x) => (float[a,b,c,d] y) {y = ConvTranspose<group=2, strides=[2,2]>(x, w)}",
            (4, 3, 2, 2),
            Product(rows=64, taken=2, given=6, window=4, stride=2, groups=2),
        ),
        ("m (float[2,5,7] x) => (float[a,b,c] y) {y = MatMul(x, w)}", (7, 3), Product(rows=10, taken=7, given=3)),
        (
            "m (float[2,5,7] x, float[2,7,3] w) => (float[a,b,c] y) {y = MatMul(x, w)}",
            None,
            Product(rows=10, taken=7, given=3, constant=False),
        ),
    ],
)
def test_loops_of_a_product(tmp_path: Path, body: str, shape: tuple[int, ...] | None, loops: Product) -> None:
    weights = {"w": zeros(*shape)} if shape else {}
    assert only(count(tmp_path, body, weights)).product == loops


def test_macs_of_an_lstm(tmp_path: Path) -> None:
    body = "m (float[9,2,5] x) => (float[a,b,c,d] y) {y = LSTM<hidden_size=3>(x, w, r)}"
    work = only(count(tmp_path, body, {"w": zeros(1, 12, 5), "r": zeros(1, 12, 3)}))
    assert work.macs == 9 * 2 * 12 * (5 + 3)


def test_bytes_are_what_is_read_and_written(tmp_path: Path) -> None:
    work = only(count(tmp_path, "m (float[2,8] x, float[8] z) => (float[a,b] y) {y = Add(x, z)}"))
    assert (work.macs, work.ops, work.product) == (0, 16, None)
    assert (work.weight_bytes, work.activation_bytes) == (0, 4 * (16 + 8 + 16))


def test_halves_take_two_bytes(tmp_path: Path) -> None:
    body = "m (float16[7,5] x) => (float16[a,b] y) {y = MatMul(x, w)}"
    work = only(count(tmp_path, body, {"w": zeros(5, 3, dtype="float16")}))
    assert (work.dtype, work.weight_bytes, work.activation_bytes) == ("float16", 30, 2 * (35 + 21))


def test_sizes_come_from_the_caller(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> m (float[n,5,t] x) => (float[a,b,c] y) {y = Relu(x)}'
    path = save(tmp_path, text)
    assert workload(path).works[0].ops == 5
    assert workload(path, batch=4).works[0].ops == 20
    assert workload(path, {"x": (2, 5, 7)}).works[0].ops == 70


# ------------------------------------------------------------------ what runtimes do not run


def test_activation_and_normalisation_are_folded_into_the_product(tmp_path: Path) -> None:
    body = """m (float[1,3,8,8] x) => (float[a,b,c,d] y) {
        c = Conv(x, w)
        n = BatchNormalization(c, s, s, s, s)
        y = Relu(n)
    }"""
    assert only(count(tmp_path, body, {"w": zeros(4, 3, 1, 1), "s": zeros(4)})).operator == "Conv"


def test_an_activation_whose_input_is_used_twice_runs_by_itself(tmp_path: Path) -> None:
    body = "m (float[1,3,8,8] x) => (float[a,b,c,d] y) {c = Conv(x, w)\n r = Relu(c)\n y = Add(c, r)}"
    load = count(tmp_path, body, {"w": zeros(4, 3, 1, 1)})
    assert [work.operator for work in load.works] == ["Conv", "Relu", "Add"]


def test_views_and_constant_expressions_cost_nothing(tmp_path: Path) -> None:
    body = """m (float[2,8] x) => (float[a,b] y) {
        shape = Constant<value = int64[2] {4, 4}>()
        twice = Add(w, w)
        r = Reshape(x, shape)
        y = MatMul(r, twice)
    }"""
    work = only(count(tmp_path, body, {"w": zeros(4, 4)}))
    assert (work.operator, work.weight_bytes) == ("MatMul", 64)


@pytest.mark.parametrize("opset", [11, 21])
def test_sizes_that_the_graph_computes_are_known(tmp_path: Path, opset: int) -> None:
    unsqueeze = "Unsqueeze<axes=[0]>(s)" if opset < 13 else "Unsqueeze(s, zero)"
    body = f"""m (float[2,3,4] x) => (float[a,b] y) {{
        zero = Constant<value = int64[1] {{0}}>()
        index = Constant<value = int64 {{0}}>()
        rest = Constant<value = int64[1] {{-1}}>()
        shape = Shape(x)
        s = Gather(shape, index)
        first = {unsqueeze}
        target = Concat<axis=0>(first, rest)
        r = Reshape(x, target)
        y = MatMul(r, w)
    }}"""
    load = count(tmp_path, body, {"w": zeros(12, 5)}, opset=opset)
    assert [(work.operator, work.macs) for work in load.works] == [("MatMul", 2 * 12 * 5)]


def test_weights_that_old_files_list_as_inputs_are_weights(tmp_path: Path) -> None:
    text = '<ir_version: 3, opset_import: ["" : 9]> m (float[7,5] x, float[5,3] w) => (float[7,3] y) {y = MatMul(x, w)}'
    assert only(workload(save(tmp_path, text, {"w": zeros(5, 3)}))).weight_bytes == 60


# ------------------------------------------------------------------ quantised

SCALES = {"s": np.array(0.1, "float32"), "z": np.array(0, "uint8"), "zs": np.array(0, "int8")}
QDQ = """m (float[1,3,8,8] x) => (float[a,b,c,d] y) {
    xq = QuantizeLinear(x, s, z)
    xd = DequantizeLinear(xq, s, z)
    wd = DequantizeLinear(w, s, zs)
    c = Conv(xd, wd)
    cr = Relu(c)
    cq = QuantizeLinear(cr, s, z)
    cd = DequantizeLinear(cq, s, z)
    e = Add(cd, cd)
    eq = QuantizeLinear(e, s, z)
    y = DequantizeLinear(eq, s, z)
}"""


def test_a_product_between_dequantise_and_quantise_is_int8(tmp_path: Path) -> None:
    load = count(tmp_path, QDQ, {**SCALES, "w": zeros(4, 3, 1, 1, dtype="int8")})
    first, product, addition = load.works
    assert (first.operator, first.activation_bytes) == ("QuantizeLinear", 5 * 3 * 64)
    assert (product.operator, product.dtype, product.macs) == ("Conv", "int8", 4 * 64 * 3)
    assert (product.weight_bytes, product.activation_bytes) == (12, 3 * 64 + 4 * 64)
    assert (addition.operator, addition.dtype, addition.activation_bytes) == ("Add", "int8", 3 * 4 * 64)


def test_a_quantised_operator_counts_as_the_standard_one(tmp_path: Path) -> None:
    body = """m (uint8[1,3,8,8] x) => (uint8[a,b,c,d] y) {
        c = QLinearConv(x, s, z, w, s, zs, s, z)
        y = com.microsoft.QLinearAdd(c, s, z, c, s, z, s, z)
    }"""
    load = count(tmp_path, body, {**SCALES, "w": zeros(4, 3, 1, 1, dtype="int8")})
    assert [(work.operator, work.dtype, work.macs) for work in load.works] == [
        ("Conv", "int8", 768),
        ("Add", "int8", 0),
    ]
    assert [work.bytes for work in load.works] == [12 + 3 * 64 + 4 * 64, 3 * 4 * 64]


def test_dynamic_quantisation_keeps_float_activations(tmp_path: Path) -> None:
    body = """m (float[7,5] x) => (float[a,b] y) {
        xq, xs, xz = DynamicQuantizeLinear(x)
        i = MatMulInteger(xq, w, xz, zs)
        f = Cast<to=1>(i)
        y = Mul(f, xs)
    }"""
    load = count(tmp_path, body, {**SCALES, "w": zeros(5, 3, dtype="int8")})
    assert {work.operator: work.dtype for work in load.works} == {
        "DynamicQuantizeLinear": "float32",
        "MatMulInteger": "int8",
        "Cast": "float32",
        "Mul": "float32",
    }
    product = load.works[1]
    assert (product.macs, product.weight_bytes, product.activation_bytes) == (105, 15, 35 + 4 * 21)


def test_int4_weights_take_half_a_byte(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> m (float[7,8] x) => (float[a,b] y) {
        wd = DequantizeLinear(w, s)
        y = MatMul(x, wd)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.INT4, [8, 4], [1] * 32))
    model.graph.initializer.append(numpy_helper.from_array(SCALES["s"], "s"))
    onnx.save(model, tmp_path / "m.onnx")
    work = only(workload(tmp_path / "m.onnx"))
    assert (work.weight_bytes, work.dtype) == (16, "float32")


# ------------------------------------------------------------------ what cannot be counted


def test_a_branch_counts_as_the_dearer_one(tmp_path: Path) -> None:
    body = """m (float[7,5] x, bool c) => (float[a,b] y) {
        y = If(c) <
            then_branch = t () => (float[p,q] u) {u = MatMul(x, w)},
            else_branch = e () => (float[p,q] v) {v = Identity(x)}
        >
    }"""
    assert count(tmp_path, body, {"w": zeros(5, 5)}).macs == 175


def test_an_operator_of_someones_own_is_opaque(tmp_path: Path) -> None:
    load = count(tmp_path, "m (float[7,5] x) => (float[7,5] y) {y = acme.Magic(x)}")
    assert load.works == ()
    assert len(load.opaque) == 1
    assert "(Magic)" in load.opaque[0]


def test_a_local_function_counts_as_its_body(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "acme" : 1]>
    m (float[7,5] x) => (float[a,b] y) {y = acme.Twice(x)}
    <domain: "acme", opset_import: ["" : 21]> Twice (v) => (o) {o = Add(v, v)}"""
    load = workload(save(tmp_path, text))
    assert [work.operator for work in load.works] == ["Add"]


def test_output_whose_size_depends_on_the_data_is_uncounted(tmp_path: Path) -> None:
    load = count(tmp_path, "m (float[7] x) => (int64[a,b] y) {y = NonZero(x)}")
    assert load.works == ()
    assert "(NonZero)" in load.uncounted[0]


@pytest.mark.parametrize("content", [b"not a model at all", None])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx cannot be read as an ONNX model"):
        workload(path)


# ------------------------------------------------------------------ chains that runtimes fuse

GELU = """m (float[2,8] x) => (float[a,b] y) {
    scaled = Div(x, root)
    e = Erf(scaled)
    raised = Add(e, one)
    twice = Mul(x, raised)
    y = Mul(twice, half)
}"""
GELU_WEIGHTS = {name: np.array(value, "float32") for name, value in (("root", 1.414), ("one", 1), ("half", 0.5))}


def operators(load: Workload) -> list[str]:
    return [work.operator for work in load.works]


def test_gelu_is_one_kernel(tmp_path: Path) -> None:
    work = only(count(tmp_path, GELU, GELU_WEIGHTS))
    assert (work.operator, work.activation_bytes) == ("Gelu", 2 * 2 * 8 * 4)


def test_gelu_with_its_half_first_is_one_kernel(tmp_path: Path) -> None:
    body = GELU.replace("twice = Mul(x, raised)", "some = Mul(x, half)").replace(
        "Mul(twice, half)", "Mul(some, raised)"
    )
    assert operators(count(tmp_path, body, GELU_WEIGHTS)) == ["Gelu"]


def test_a_value_that_others_take_from_the_middle_keeps_the_chain(tmp_path: Path) -> None:
    body = GELU.replace("(float[a,b] y)", "(float[a,b] y, float[c,d] z)").replace(
        "Erf(scaled)", "Erf(scaled)\nz = Neg(e)"
    )
    assert "Gelu" not in operators(count(tmp_path, body, GELU_WEIGHTS))


def test_silu_is_one_kernel(tmp_path: Path) -> None:
    body = "m (float[2,8] x) => (float[a,b] y) {s = Sigmoid(x)\n y = Mul(x, s)}"
    assert operators(count(tmp_path, body)) == ["Swish"]


def test_layer_normalisation_is_one_kernel(tmp_path: Path) -> None:
    body = """m (float[2,8] x) => (float[a,b] y) {
        mean = ReduceMean <keepdims = 1> (x, last)
        centred = Sub(x, mean)
        squared = Pow(centred, two)
        variance = ReduceMean <keepdims = 1> (squared, last)
        raised = Add(variance, small)
        root = Sqrt(raised)
        quotient = Div(centred, root)
        scaled = Mul(quotient, weight)
        y = Add(scaled, bias)
    }"""
    weights = {"last": np.array([-1], "int64"), "two": np.array(2, "float32"), "small": np.array(1e-5, "float32")}
    weights |= {"weight": zeros(8), "bias": zeros(8)}
    assert operators(count(tmp_path, body, weights, opset=18)) == ["LayerNormalization"]


def test_between_quantised_tensors_a_function_without_integer_kernels_stays_float(tmp_path: Path) -> None:
    body = """m (float[2,8] x) => (float[a,b] y) {
        c = QuantizeLinear(x, s, z)
        d = DequantizeLinear(c, s, z)
        g = Erf(d)
        q = QuantizeLinear(g, s, z)
        y = DequantizeLinear(q, s, z)
    }"""
    load = count(tmp_path, body, {"s": np.array(0.1, "float32"), "z": np.array(0, "uint8")})
    assert [(work.operator, work.dtype) for work in load.works] == [
        ("QuantizeLinear", "int8"), ("DequantizeLinear", "int8"), ("Erf", "float32"), ("QuantizeLinear", "int8"),
    ]  # fmt: skip
