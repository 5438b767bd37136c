"""A small graph for each kernel of ours, in ONNX's own text: what its conformance checks compile and compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

HEAD = '<ir_version: 10, opset_import: ["" : 21]> g'


def held(name: str, dtype: str, *shape: int) -> str:
    """A constant as text: small numbers that are not alike, and whole ones where the type asks for it."""
    count = 1
    for size in shape:
        count *= size
    numbers = [(7 * at) % 11 - 5 for at in range(count)]
    if dtype.startswith("uint"):
        numbers = [abs(each) for each in numbers]
    told = [each / 8 if dtype == "float" else each for each in numbers]
    return f"{dtype}[{','.join(map(str, shape))}] {name} = {{{', '.join(map(str, told))}}}"


def graph(inputs: str, outputs: str, constants: Sequence[str], body: str) -> str:
    """A model as text."""
    given = f"<{', '.join(constants)}>" if constants else ""
    return f"{HEAD} ({inputs}) => ({outputs}) {given} {{ {body} }}"


def _places(name: str, count: int, size: int) -> str:
    """In which of groups of `size` each of `count` is, as text."""
    return f"int64[{count}] {name} = {{{', '.join(str(at // size) for at in range(count))}}}"


_HEADS = ("int64[4] heads = {2, 5, 3, 4}", "int64[3] joined = {2, 5, 12}")
_TURN = "Transpose<perm=[0,2,1,3]>"
_QK = f"ah = Reshape(a, heads) q = {_TURN}(ah) bh = Reshape(b, heads) k = Transpose<perm=[0,2,3,1]>(bh)"
_QKV = f"{_QK} ch = Reshape(c, heads) v = {_TURN}(ch)"
_THREE = "float[2,5,12] a, float[2,5,12] b, float[2,5,12] c"
_SIGNS = "g = Greater(q, qb) e = Where(g, one, minus) f = Greater(k, kb) h = Where(f, one, minus) y = MatMul(e, h)"
_GEMM = (held("w", "float", 13, 19), held("b", "float", 19))
_CONV = (held("w", "float", 6, 5, 3, 3), held("b", "float", 6))
_THIN = (held("w", "float", 5, 1, 3, 3), held("b", "float", 5))
_CODES = ("float[1] xs = {0.125}", "uint8[1] xz = {131}", "float[1] ys = {0.5}", "uint8[1] yz = {120}")
_WIDE = ("float[1] ws = {0.0625}", held("w", "int8", 13, 19))
_TAPS = ("float[1] ws = {0.0625}", held("w", "int8", 16, 5, 3, 3))
_BYTES = "xf = DequantizeLinear(x, xs, xz) wf = DequantizeLinear(w, ws)"
_GATE = (
    *(held("w", "float", 16, 16, 3, 3), held("b", "float", 16), "float[1] zero = {0}", "int64[1] none = {0}"),
    *("int64[1] one = {1}", "int64[1] two = {2}", "int64[1] four = {4}", "int64[1] many = {16}"),
    f"int64[16] to = {{{', '.join(['0'] * 8 + ['1'] * 8)}}}",
)
_FIRES = (
    "m = ReduceMax(logits, one) least = Min(m, zero) on = GreaterOrEqual(logits, least) f = Cast<to=1>(on) "
    "g = Gather<axis=1>(f, to) row = Squeeze(g, none) found = NonZero(row) wanted = Squeeze(found, none)"
)
_WANTED = (
    "k = Gather(w, wanted) kb = Gather(b, wanted) c = Conv<pads=[1,1,1,1]>(x, k, kb) s = Shape(c) "
    "image = Slice(s, two, four) size = Concat<axis=0>(many, image) empty = Expand(zero, size) "
    "at = Unsqueeze(wanted, one) flat = Squeeze(c, none) all = ScatterND(empty, at, flat) y = Unsqueeze(all, none)"
)

EXAMPLES: Mapping[str, Sequence[str]] = {
    "attention": (
        graph(
            _THREE,
            "float[2,5,12] y",
            _HEADS,
            f"{_QKV} s = MatMul(q, k) p = Softmax<axis=-1>(s) o = MatMul(p, v) t = {_TURN}(o) y = Reshape(t, joined)",
        ),
    ),
    "blockattention": (
        graph(
            "float[2,37,12] a, float[2,37,12] b, float[2,37,12] c, float[2,3,3,5] m",
            "float[2,37,12] y",
            (
                *("int64[4] heads = {2, 37, 3, 4}", "int64[3] joined = {2, 37, 12}"),
                *(_places("row", 37, 16), _places("column", 37, 8)),
                *("float[1] zero = {0}", "float[1] none = {-inf}", "float[5] some = {9, 0, 0, 0, 0}"),
            ),
            f"{_QKV} s = MatMul(q, k) n = Add(m, some) g = Greater(n, zero) e = Gather<axis=2>(g, row) "
            "f = Gather<axis=3>(e, column) w = Where(f, s, none) p = Softmax<axis=-1>(w) o = MatMul(p, v) "
            f"t = {_TURN}(o) y = Reshape(t, joined)",
        ),
    ),
    "conv": (
        graph("float[1,5,9,11] x", "float[1,6,9,11] y", _CONV, "c = Conv<pads=[1,1,1,1]>(x, w, b) y = Relu(c)"),
        graph("float[1,5,9,8] x", "float[1,5,4,3] y", _THIN, "y = Conv<group=5,strides=[2,2]>(x, w, b)"),
    ),
    "gatedconv": (graph("float[1,16,5,7] x, float[1,2] logits", "float[1,16,5,7] y", _GATE, f"{_FIRES} {_WANTED}"),),
    "gemm": (
        graph("float[7,13] x", "float[7,19] y", _GEMM, "a = MatMul(x, w) c = Add(a, b) y = Relu(c)"),
        graph("float[1,13] x, float[1,19] r", "float[1,19] y", _GEMM, "a = Gemm(x, w, b) g = Gelu(a) y = Add(g, r)"),
    ),
    "hamming": (
        graph(
            "float[2,5,12] a, float[2,5,12] b",
            "float[2,3,5,5] y",
            (
                _HEADS[0],
                held("qb", "float", 3, 1, 4),
                held("kb", "float", 3, 4, 1),
                "float[1] one = {1}",
                "float[1] minus = {-1}",
            ),
            f"{_QK} {_SIGNS}",
        ),
    ),
    "norm": (
        graph(
            "float[5,17] x, float[5,17] r",
            "float[5,17] y",
            (held("s", "float", 17), held("b", "float", 17)),
            "a = Add(x, r) y = LayerNormalization(a, s, b)",
        ),
        graph("float[3,40] x", "float[3,40] y", (held("s", "float", 40),), "y = LayerNormalization(x, s)"),
    ),
    "pool": (
        graph("float[1,20,9,8] x", "float[1,20,4,4] y", (), "y = MaxPool<kernel_shape=[2,2],strides=[2,2]>(x)"),
        graph("float[2,3,7,7] x", "float[2,3,1,1] y", (), "y = GlobalAveragePool(x)"),
    ),
    "qconv": (
        graph(
            "uint8[1,5,9,11] x",
            "uint8[1,16,9,11] y",
            (*_CODES, *_TAPS),
            f"{_BYTES} c = Conv<pads=[1,1,1,1]>(xf, wf) y = QuantizeLinear(c, ys, yz)",
        ),
    ),
    "qgemm": (
        graph(
            "uint8[7,13] x",
            "uint8[7,19] y",
            (*_CODES, *_WIDE),
            f"{_BYTES} f = MatMul(xf, wf) y = QuantizeLinear(f, ys, yz)",
        ),
    ),
}
"""By the name of the kernel."""
