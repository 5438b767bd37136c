"""What patterns find in a graph, what they leave alone, and that a rewritten graph computes the same with kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.numerics import worst
from edgewright.toolchain.ortheader import headers_place
from edgewright_exporters.onnx_kernels.choose import first_guess
from edgewright_exporters.onnx_kernels.library import library_of
from edgewright_exporters.onnx_kernels.plan import matches
from edgewright_exporters.onnx_kernels.rewrite import Kernelised, packed, rewrite
from edgewright_exporters.onnx_kernels.running import run_files
from edgewright_exporters.onnx_kernels.wiring import wired
from edgewright_exporters.tir.isa import Isa, isa_named

CLOSE = 1e-5
RNG = np.random.default_rng(7)
WEIGHTS: Mapping[str, Any] = {
    "w": RNG.standard_normal((13, 31)),
    "wide": RNG.standard_normal(36),
    "out": RNG.standard_normal((12, 12)),
    "wt": RNG.standard_normal((31, 13)),
    "back": RNG.standard_normal((31, 13)),
    "b": RNG.standard_normal(31),
    "b2": RNG.standard_normal((1, 31)),
    "c": RNG.standard_normal(13),
    "scale": RNG.standard_normal(13),
    "shift": RNG.standard_normal(13),
    "mask": RNG.standard_normal((1, 1, 5, 5)),
    "nothing": np.zeros((1, 1, 5, 5)),
    "zero": np.zeros(()),
    "one": np.ones(()),
    "half": np.array(0.5),
    "root": np.array(2**0.5),
    "inverse": np.array(0.5**0.5),
    "almost": np.array(0.7),
    "eighth": np.array(0.125),
    "outer": RNG.standard_normal(12),
    "minus": np.array(-1.0),
    "bounds": RNG.standard_normal((3, 1, 4)),
    "bounds_t": RNG.standard_normal((3, 4, 1)),
    "bounds_tokens": RNG.standard_normal((5, 1)),
    "scales": RNG.standard_normal((3, 1, 1)),
}
SHAPES: Mapping[str, Sequence[int]] = {
    "rows": (2, 5, 12),
    "heads": (2, 5, 3, 4),
    "parts": (2, 5, 3, 3, 4),
    "joined": (2, 5, 12),
    "tokens": (5, 3, 4),
    "row": (1, 5, 12),
    "index0": (),
    "index1": (),
    "index2": (),
}
INTEGERS = {**SHAPES, "index0": 0, "index1": 1, "index2": 2, "cuts": (12, 12, 12)}


def model(body: str, inputs: str = "float[2,5,13] x", outputs: str = "float[2,5,31] y", opset: int = 20) -> Any:
    """A graph in ONNX's own text, with those of WEIGHTS and INTEGERS that it names."""
    head = f'<ir_version: 9, opset_import: ["" : {opset}]>'
    proto = parser.parse_model(f"{head} g ({inputs}) => ({outputs}) {{ {body} }}")
    given = {value.name for value in proto.graph.input} | {name for node in proto.graph.node for name in node.output}
    used = {name for node in proto.graph.node for name in node.input} - given
    floats = [numpy_helper.from_array(np.asarray(WEIGHTS[n], np.float32), n) for n in sorted(used & set(WEIGHTS))]
    whole = [numpy_helper.from_array(np.asarray(INTEGERS[n], np.int64), n) for n in sorted(used & set(INTEGERS))]
    proto.graph.initializer.extend([*floats, *whole])
    return proto


@dataclass(frozen=True)
class Sample:
    """A graph, and the calls and the nodes that it must have after the rewrite."""

    body: str
    calls: Mapping[str, int]
    stays: Mapping[str, int]
    inputs: str = "float[2,5,13] x"
    outputs: str = "float[2,5,31] y"

    def proto(self) -> Any:
        return model(self.body, self.inputs, self.outputs)


NARROW = "float[2,5,13] y"
QKV, SHORT = "float[2,5,36] x", "float[2,5,12] y"
THREE = "float[2,5,12] a, float[2,5,12] b, float[2,5,12] c"
TURN = "Transpose<perm=[0,2,1,3]>"
CORE = "s = MatMul(q, k) p = Softmax<axis=-1>(s) o = MatMul(p, v)"
END = f"t = {TURN}(o) y = Reshape(t, joined)"
APART = f"""ah = Reshape(a, heads) q = {TURN}(ah) bh = Reshape(b, heads) k = Transpose<perm=[0,2,3,1]>(bh)
            ch = Reshape(c, heads) v = {TURN}(ch)"""
CUT = f"""a, b, c = Split<axis=2>(x, cuts) {APART}"""
GATHERED = """r = Reshape(x, parts) h = Transpose<perm=[2,0,3,1,4]>(r) q = Gather<axis=0>(h, index0)
              kt = Gather<axis=0>(h, index1) v = Gather<axis=0>(h, index2) k = Transpose<perm=[0,1,3,2]>(kt)"""
SIGNS = "g = Greater(q, bounds) e = Where(g, one, minus) f = Greater(k, bounds_t) h = Where(f, one, minus)"
SCORES = "float[2,3,5,5] y"

REPLACED = {
    "product": Sample("y = MatMul(x, w)", {"gemm": 1}, {}),
    "bias": Sample("a = MatMul(x, w) y = Add(a, b)", {"gemm": 1}, {}),
    "bias first": Sample("a = MatMul(x, w) y = Add(b2, a)", {"gemm": 1}, {}),
    "relu": Sample("a = MatMul(x, w) c0 = Add(a, b) y = Relu(c0)", {"gemm": 1}, {}),
    "gemm": Sample("y = Gemm<transB=1>(x, wt, b)", {"gemm": 1}, {}, "float[7,13] x", "float[7,31] y"),
    "gemm, no bias": Sample("y = Gemm(x, w)", {"gemm": 1}, {}, "float[7,13] x", "float[7,31] y"),
    "gelu": Sample("a = MatMul(x, w) c0 = Add(a, b) y = Gelu(c0)", {"gemm": 1}, {}),
    "erf, halved last": Sample(
        "a = MatMul(x, w) d = Div(a, root) e = Erf(d) f = Add(e, one) g = Mul(a, f) y = Mul(g, half)", {"gemm": 1}, {}
    ),
    "erf, halved first": Sample(
        "a = MatMul(x, w) h = Mul(a, half) d = Mul(a, inverse) e = Erf(d) f = Add(one, e) y = Mul(h, f)",
        {"gemm": 1},
        {},
    ),
    "residual": Sample(
        "a = MatMul(x, w) c0 = Add(a, b) y = Add(r, c0)", {"gemm": 1}, {}, "float[2,5,13] x, float[2,5,31] r"
    ),
    "residual after gelu": Sample(
        "a = MatMul(x, w) c0 = Gelu(a) y = Add(c0, r)", {"gemm": 1}, {}, "float[2,5,13] x, float[2,5,31] r"
    ),
    "products added to one another": Sample(
        "a = MatMul(x, w) d = MatMul(r, w) y = Add(a, d)", {"gemm": 2}, {}, "float[2,5,13] x, float[2,5,13] r"
    ),
    "norm": Sample("y = LayerNormalization<epsilon=0.001>(x, scale, shift)", {"norm": 1}, {}, outputs=NARROW),
    "norm, no bias": Sample("y = LayerNormalization<axis=2>(x, scale)", {"norm": 1}, {}, outputs=NARROW),
    "sum and norm": Sample(
        "s = Add(x, r) n = LayerNormalization(s, scale, shift) y = Mul(n, s)",
        {"norm": 1},
        {"Mul": 1},
        "float[2,5,13] x, float[2,5,13] r",
        NARROW,
    ),
    "block": Sample(
        """n = LayerNormalization(x, scale, shift) a = MatMul(n, w) a1 = Add(a, b) a2 = Gelu(a1) d = MatMul(a2, back)
           d1 = Add(d, c) s = Add(x, d1) y = LayerNormalization(s, scale, shift)""",
        {"gemm": 2, "norm": 2},
        {},
        outputs=NARROW,
    ),
    "attention, split": Sample(f"{CUT} {CORE} {END}", {"attention": 1}, {}, QKV, SHORT),
    "attention, gathered": Sample(f"{GATHERED} {CORE} {END}", {"attention": 1}, {}, QKV, SHORT),
    "attention, projected": Sample(
        f"""n = LayerNormalization(x, wide) {CUT.replace("(x,", "(n,")} {CORE} t = {TURN}(o) u = Reshape(t, joined)
            y = MatMul(u, out)""",
        {"attention": 1, "gemm": 1, "norm": 1},
        {},
        QKV,
        SHORT,
    ),
    "attention, apart": Sample(f"{APART} {CORE} {END}", {"attention": 1}, {}, THREE, SHORT),
    "attention, one head": Sample(
        "k = Transpose<perm=[0,2,1]>(b) s = MatMul(a, k) p = Softmax(s) y = MatMul(p, c)",
        {"attention": 1},
        {},
        THREE,
        SHORT,
    ),
    "attention, heads first": Sample(
        """ah = Reshape(a, tokens) q = Transpose<perm=[1,0,2]>(ah)
           bh = Reshape(b, tokens) k = Transpose<perm=[1,2,0]>(bh)
           ch = Reshape(c, tokens) v = Transpose<perm=[1,0,2]>(ch) s = MatMul(q, k) p = Softmax(s) o = MatMul(p, v)
           t = Transpose<perm=[1,0,2]>(o) y = Reshape(t, row)""",
        {"attention": 1},
        {},
        "float[1,5,12] a, float[1,5,12] b, float[1,5,12] c",
        "float[1,5,12] y",
    ),
    "attention, scaled": Sample(
        f"{APART} q8 = Mul(q, eighth) z = MatMul(q8, k) s = Div(z, half) p = Softmax(s) o = MatMul(p, v) {END}",
        {"attention": 1},
        {},
        THREE,
        SHORT,
    ),
    "signs": Sample(f"{APART} {SIGNS} y = MatMul(e, h)", {"hamming": 1}, {}, THREE, SCORES),
    "signs, scaled, turned last": Sample(
        f"""{CUT} g = Greater(q, bounds) e = Where(g, one, minus) kt = Transpose<perm=[0,1,3,2]>(k)
            f = Greater(kt, bounds) h = Where(f, one, minus) ht = Transpose<perm=[0,1,3,2]>(h)
            s = MatMul(e, ht) y = Mul(s, scales)""",
        {"hamming": 1},
        {},
        QKV,
        SCORES,
    ),
    "signs before heads": Sample(
        f"""g = Greater(a, outer) e = Where(g, one, minus) ah = Reshape(e, heads) q = {TURN}(ah)
            f = Greater(b, zero) h = Where(f, one, minus) bh = Reshape(h, heads) k = Transpose<perm=[0,2,3,1]>(bh)
            s = MatMul(q, k) y = Mul(half, s)""",
        {"hamming": 1},
        {},
        THREE,
        SCORES,
    ),
    "attention, guarded": Sample(
        f"""{APART} z = MatMul(q, k) s = Add(z, nothing) p0 = Softmax(s) n = IsNaN(p0) p = Where(n, zero, p0)
            o = MatMul(p, v) {END}""",
        {"attention": 1},
        {},
        THREE,
        SHORT,
    ),
}

LEFT = {
    "free batch": Sample(
        "a = MatMul(x, w) y = Add(a, b)", {}, {"Add": 1, "MatMul": 1}, "float[n,5,13] x", "float[n,5,31] y"
    ),
    "weight from outside": Sample("y = MatMul(x, w)", {}, {"MatMul": 1}, "float[2,5,13] x, float[13,31] w"),
    "constant times value": Sample("y = MatMul(wt, x)", {}, {"MatMul": 1}, "float[2,13,5] x", "float[2,31,5] y"),
    "doubles": Sample("y = MatMul(x, x)", {}, {"MatMul": 1}, "double[5,5] x", "double[5,5] y"),
    "gemm, scaled": Sample("y = Gemm<alpha=2.0>(x, w)", {}, {"Gemm": 1}, "float[7,13] x", "float[7,31] y"),
    "gemm, turned": Sample("y = Gemm<transA=1>(x, w)", {}, {"Gemm": 1}, "float[13,7] x", "float[7,31] y"),
    "gemm, matrix added": Sample("y = Gemm(x, w, r)", {}, {"Gemm": 1}, "float[7,13] x, float[7,31] r", "float[7,31] y"),
    "norm over two axes": Sample(
        "y = LayerNormalization<axis=1>(x, r)", {}, {"LayerNormalization": 1}, "float[2,5,13] x, float[5,13] r", NARROW
    ),
    "norm, scale from outside": Sample(
        "y = LayerNormalization(x, r)", {}, {"LayerNormalization": 1}, "float[2,5,13] x, float[13] r", NARROW
    ),
    "norm, mean wanted": Sample(
        "y, m = LayerNormalization(x, scale, shift)",
        {},
        {"LayerNormalization": 1},
        outputs=f"{NARROW}, float[2,5,1] m",
    ),
    "attention over queries": Sample(
        f"{APART} s = MatMul(q, k) p = Softmax<axis=2>(s) o = MatMul(p, v) {END}",
        {},
        {"MatMul": 2, "Reshape": 4, "Softmax": 1, "Transpose": 4},
        THREE,
        SHORT,
    ),
    "attention, masked": Sample(
        f"{APART} z = MatMul(q, k) s = Add(z, mask) p = Softmax(s) o = MatMul(p, v) {END}",
        {},
        {"Add": 1, "MatMul": 2, "Reshape": 4, "Softmax": 1, "Transpose": 4},
        THREE,
        SHORT,
    ),
    "attention, heads outside": Sample(
        f"k = Transpose<perm=[0,1,3,2]>(kt) {CORE} {END}",
        {},
        {"MatMul": 2, "Reshape": 1, "Softmax": 1, "Transpose": 2},
        "float[2,3,5,4] q, float[2,3,5,4] kt, float[2,3,5,4] v",
        SHORT,
    ),
    "attention, parts in another order": Sample(
        f"{GATHERED.replace('index1', 'index2', 1)} {CORE} {END}",
        {},
        {"Gather": 3, "MatMul": 2, "Reshape": 2, "Softmax": 1, "Transpose": 3},
        QKV,
        SHORT,
    ),
    "signs, bounds of tokens": Sample(
        f"{APART} {SIGNS.replace('bounds)', 'bounds_tokens)')} y = MatMul(e, h)",
        {},
        {"Greater": 2, "MatMul": 1, "Reshape": 2, "Transpose": 2, "Where": 2},
        THREE,
        SCORES,
    ),
    "zeros and ones": Sample(
        f"{APART} {SIGNS.replace('minus', 'zero')} y = MatMul(e, h)",
        {},
        {"Greater": 2, "MatMul": 1, "Reshape": 2, "Transpose": 2, "Where": 2},
        THREE,
        SCORES,
    ),
    "value times two": Sample("y = Add(x, x)", {}, {"Add": 1}, outputs=NARROW),
}

PARTLY = {
    "bias of one number": Sample("a = MatMul(x, w) y = Add(a, one)", {"gemm": 1}, {"Add": 1}),
    "product used twice": Sample("a = MatMul(x, w) c0 = Add(a, b) y = Mul(a, c0)", {"gemm": 1}, {"Add": 1, "Mul": 1}),
    "product returned": Sample(
        "a = MatMul(x, w) y = Relu(a)", {"gemm": 1}, {"Relu": 1}, outputs="float[2,5,31] y, float[2,5,31] a"
    ),
    "gelu by tanh": Sample('a = MatMul(x, w) y = Gelu<approximate="tanh">(a)', {"gemm": 1}, {"Gelu": 1}),
    "nearly gelu": Sample(
        "a = MatMul(x, w) d = Mul(a, almost) e = Erf(d) f = Add(e, one) g = Mul(a, f) y = Mul(g, half)",
        {"gemm": 1},
        {"Add": 1, "Erf": 1, "Mul": 3},
    ),
    "inside of gelu used": Sample(
        "a = MatMul(x, w) d = Div(a, root) e = Erf(d) f = Add(e, one) g = Mul(a, f) y = Mul(g, half)",
        {"gemm": 1},
        {"Add": 1, "Div": 1, "Erf": 1, "Mul": 2},
        outputs="float[2,5,31] y, float[2,5,31] e",
    ),
    "residual of a row": Sample(
        "a = MatMul(x, w) y = Add(a, r)", {"gemm": 1}, {"Add": 1}, "float[2,5,13] x, float[1,5,31] r"
    ),
    "doubled product": Sample("a = MatMul(x, w) y = Add(a, a)", {"gemm": 1}, {"Add": 1}),
    "sum of a row and norm": Sample(
        "s = Add(x, r) y = LayerNormalization(s, scale, shift)",
        {"norm": 1},
        {"Add": 1},
        "float[2,5,13] x, float[1,5,13] r",
        NARROW,
    ),
    "signs, factors of tokens": Sample(
        f"{APART} {SIGNS} s = MatMul(e, h) y = Mul(s, bounds_tokens)", {"hamming": 1}, {"Mul": 1}, THREE, SCORES
    ),
    "attention, scores returned": Sample(
        f"{APART} {CORE} {END}",
        {"attention": 1},
        {"MatMul": 1, "Reshape": 2, "Transpose": 2},
        THREE,
        f"{SHORT}, float[2,3,5,5] s",
    ),
}
SAMPLES = {**REPLACED, **LEFT, **PARTLY}
FINE = {**REPLACED, **PARTLY}


@pytest.fixture(scope="session")
def isa(here: Sequence[Isa]) -> Isa:
    return here[0]


def rewritten(sample: Sample, isa: Isa) -> Kernelised:
    return rewrite(sample.proto(), isa, first_guess)


# ------------------------------------------------------------------ what is found


@pytest.mark.parametrize("name", SAMPLES)
def test_exactly_these_nodes_become_kernels(name: str):
    sample = SAMPLES[name]
    result = rewritten(sample, isa_named("x86-64-v3"))
    assert result.replaced == sample.calls
    left = onnxkit.operators(result.proto)
    assert left.pop("edgewright::FloatKernel", 0) == sum(sample.calls.values())
    assert left == sample.stays


def test_the_graph_given_stays_as_it_is():
    proto = REPLACED["block"].proto()
    before = proto.SerializeToString(deterministic=True)
    rewrite(proto, isa_named("armv8-a"), first_guess)
    assert proto.SerializeToString(deterministic=True) == before


def test_equal_cases_share_a_kernel_and_equal_constants_are_stored_once():
    proto = model("a = MatMul(x, w) a1 = Relu(a) d = MatMul(a1, back) e = MatMul(d, w) y = Relu(e)")
    result = rewrite(proto, isa_named("x86-64-v3"), first_guess)
    assert [kernel.job.case.depth for kernel in result.kernels.values()] == [13, 31]
    assert all(symbol.startswith(f"gemm_10x{d}x") for symbol, d in zip(result.kernels, (13, 31)))
    assert len(result.proto.graph.initializer) == 2


def test_an_initializer_that_callers_may_override_is_no_constant():
    proto = model("y = MatMul(x, w)")
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [13, 31]))
    assert not matches(wired(proto))


def test_a_value_that_a_body_reads_is_kept():
    body = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [2, 5, 31])],
    )
    proto = model("a = MatMul(x, w) z = Relu(a) y = Identity(z)", "float[2,5,13] x, bool c")
    branch = helper.make_node("If", ["c"], ["both"], then_branch=body, else_branch=body)
    proto.graph.node.insert(1, branch)
    proto.graph.output.append(helper.make_tensor_value_info("both", TensorProto.FLOAT, [2, 5, 31]))
    result = rewrite(proto, isa_named("x86-64-v3"), first_guess)
    (kernel,) = result.kernels.values()
    assert kernel.job.case.activation == "none"
    assert "a" in {name for node in result.proto.graph.node for name in node.output}


def test_bytes_are_the_same_each_time():
    sample, isa = REPLACED["block"], isa_named("armv8.2-a-dot")
    assert packed(rewritten(sample, isa)) == packed(rewritten(sample, isa))


# ------------------------------------------------------------------ what is computed


@pytest.fixture(scope="session")
def library(tvm: ModuleType, isa: Isa, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One library with the kernels of every sample."""
    folder = tmp_path_factory.mktemp("onnx_kernels")
    kernels = {symbol: k for sample in FINE.values() for symbol, k in rewritten(sample, isa).kernels.items()}
    try:
        content = library_of(kernels, isa, folder, headers=headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    place = folder / "kernels.so"
    place.write_bytes(content)
    return place


@pytest.mark.parametrize("name", FINE)
def test_it_computes_the_same(name: str, library: Path, isa: Isa, tmp_path: Path):
    proto = FINE[name].proto()
    rng = np.random.default_rng(1)
    inputs = [onnxkit.tensor_spec(value) for value in proto.graph.input]
    feed = {spec.name: rng.standard_normal(spec.shape).astype(spec.dtype) for spec in inputs}
    names = [value.name for value in proto.graph.output]
    file = tmp_path / "model.onnx"
    file.write_bytes(packed(rewritten(FINE[name], isa)))
    (want,) = onnxkit.run(proto.SerializeToString(), [feed])
    (got,) = run_files([file], library, [feed])
    assert worst(names, want, [got[name] for name in names]).max_rel <= CLOSE
