"""Convolutions and pooling in graphs: what becomes kernels, what follows images into blocks, and the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper, parser

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.numerics import worst
from edgewright.toolchain.ortheader import headers_place
from edgewright_exporters.onnx_kernels.choose import first_guess
from edgewright_exporters.onnx_kernels.library import library_of
from edgewright_exporters.onnx_kernels.rewrite import Kernelised, packed, rewrite
from edgewright_exporters.onnx_kernels.running import run_files
from edgewright_exporters.tir.isa import Isa, isa_named

CLOSE = 1e-5
RNG = np.random.default_rng(3)
CONSTANTS: Mapping[str, Any] = {
    "w": RNG.standard_normal((16, 5, 3, 3)),
    "w1": RNG.standard_normal((16, 16, 1, 1)),
    "wide": RNG.standard_normal((21, 16, 3, 3)),
    "row": RNG.standard_normal((16, 5, 1, 5)),
    "thin": RNG.standard_normal((16, 1, 3, 3)),
    "pairs": RNG.standard_normal((16, 8, 1, 1)),
    "b": RNG.standard_normal(16),
    "b3": RNG.standard_normal((16, 1, 1)),
    "scale": RNG.standard_normal(16),
    "mean": RNG.standard_normal(16),
    "variance": RNG.uniform(0.1, 2.0, 16),
    "zero": np.zeros(()),
    "one": np.ones(()),
    "six": np.array(6.0),
    "half": np.array(0.5),
}
INTEGERS: Mapping[str, Any] = {
    "from": (0, 0),
    "until": (99, 99),
    "axes": (2, -1),
    "skip": (2, 2),
    "pads": (0, 8, 0, 1, 0, 8, 0, 0),
    "odd": (0, 3, 0, 0, 0, 0, 0, 0),
    "image": (2, 3),
    "turned": (1, 16, -1),
}
IMAGE, RESULT = "float[1,5,9,11] x", "float[1,16,9,11] y"


@dataclass(frozen=True)
class Sample:
    """A graph, and the calls and the nodes that it must have after the rewrite."""

    body: str
    calls: Mapping[str, int]
    stays: Mapping[str, int]
    outputs: str = RESULT
    inputs: str = IMAGE
    opset: int = 20

    def proto(self) -> Any:
        head = f'<ir_version: 9, opset_import: ["" : {self.opset}]>'
        proto = parser.parse_model(f"{head} g ({self.inputs}) => ({self.outputs}) {{ {self.body} }}")
        read = sorted({name for node in proto.graph.node for name in node.input})
        floats = [numpy_helper.from_array(np.asarray(CONSTANTS[n], np.float32), n) for n in read if n in CONSTANTS]
        whole = [numpy_helper.from_array(np.asarray(INTEGERS[n], np.int64), n) for n in read if n in INTEGERS]
        proto.graph.initializer.extend([*floats, *whole])
        return proto


SAME = "pads=[1,1,1,1]"
CONV = f"c = Conv<{SAME}>(x, w, b)"
HALF = "float[1,16,5,6] y"
SAMPLES = {
    "convolution": Sample(f"y = Conv<{SAME}>(x, w, b)", {"conv": 1, "reorder": 1}, {}),
    "no bias": Sample(f"y = Conv<{SAME}>(x, w)", {"conv": 1, "reorder": 1}, {}),
    "padded by name": Sample(
        'y = Conv<auto_pad="SAME_UPPER",strides=[2,2]>(x, w)', {"conv": 1, "reorder": 1}, {}, HALF
    ),
    "padded before": Sample('y = Conv<auto_pad="SAME_LOWER",strides=[2,2]>(x, w)', {"conv": 1, "reorder": 1}, {}, HALF),
    "not padded": Sample('y = Conv<auto_pad="VALID">(x, row)', {"conv": 1, "reorder": 1}, {}, "float[1,16,9,7] y"),
    "bias apart": Sample(f"c = Conv<{SAME}>(x, w) y = Add(c, b3)", {"conv": 1, "reorder": 1}, {}),
    "batch norm": Sample(
        f"{CONV} n = BatchNormalization(c, scale, b, mean, variance) y = Relu(n)", {"conv": 1, "reorder": 1}, {}
    ),
    "relu6": Sample(f"{CONV} y = Clip(c, zero, six)", {"conv": 1, "reorder": 1}, {}),
    "relu6 of old": Sample(f"{CONV} y = Clip<min=0.0,max=6.0>(c)", {"conv": 1, "reorder": 1}, {}, opset=9),
    "gelu": Sample(f"{CONV} y = Gelu(c)", {"conv": 1, "reorder": 1}, {}),
    "residual": Sample(f"{CONV} r = Relu(c) d = Conv(r, w1) s = Add(d, r) y = Relu(s)", {"conv": 2, "reorder": 1}, {}),
    "residual from outside": Sample(
        f"{CONV} y = Add(r, c)", {"conv": 1, "reorder": 2}, {}, inputs=f"{IMAGE}, float[1,16,9,11] r"
    ),
    "two branches": Sample(
        f"{CONV} r = Relu(c) d = Conv(r, w1) e = Conv(r, w1, b) s = Add(d, e) y = Relu(s)",
        {"conv": 3, "reorder": 1},
        {},
    ),
    "depthwise": Sample(
        f"{CONV} d = Conv<group=16,{SAME}>(c, thin, b) y = Clip(d, zero, six)",
        {"conv": 1, "depthwise": 1, "reorder": 1},
        {},
    ),
    "depthwise of a plain image": Sample(
        f"y = Conv<group=16,{SAME}>(r, thin)", {"depthwise": 1, "reorder": 2}, {}, inputs="float[1,16,9,11] r"
    ),
    "largest": Sample(
        f"{CONV} m = MaxPool<kernel_shape=[3,3],strides=[2,2],{SAME}>(c) y = Conv(m, w1)",
        {"conv": 2, "pool": 1, "reorder": 1},
        {},
        HALF,
    ),
    "mean of an image": Sample(
        f"{CONV} g = GlobalAveragePool(c) y = Flatten(g)", {"conv": 1, "pool": 1, "reorder": 1}, {}, "float[1,16] y"
    ),
    "reduced to its mean": Sample(
        f"{CONV} y = ReduceMean<keepdims=0>(c, image)", {"conv": 1, "pool": 1, "reorder": 1}, {}, "float[1,16] y"
    ),
    "means with padding": Sample(
        f"{CONV} y = AveragePool<kernel_shape=[3,3],{SAME},count_include_pad=1>(c)",
        {"conv": 1, "pool": 1, "reorder": 1},
        {},
    ),
    "means without padding": Sample(
        f"{CONV} y = AveragePool<kernel_shape=[3,3],{SAME}>(c)", {"conv": 1, "pool": 1, "reorder": 1}, {}
    ),
    "shape of an image": Sample(
        f"{CONV} r = Relu(c) s = Shape(r) d = Conv<{SAME}>(r, wide) y = Cast<to=1>(s)",
        {},
        {"Cast": 1, "Constant": 1},
        "float[4] y",
    ),
}
MOVED = {
    "one by one": Sample(f"{CONV} h = HardSwish(c) y = Conv(h, w1)", {"conv": 2, "reorder": 1}, {"HardSwish": 1}),
    "clipped elsewhere": Sample(f"{CONV} y = Clip(c, half, six)", {"conv": 1, "reorder": 1}, {"Clip": 1}),
    "times a number": Sample(f"{CONV} h = Mul(c, half) y = Conv(h, w1)", {"conv": 2, "reorder": 1}, {"Mul": 1}),
    "squeeze and excite": Sample(
        f"{CONV} g = GlobalAveragePool(c) a = Conv(g, w1, b) s = Sigmoid(a) m = Mul(c, s) y = Conv(m, w1)",
        {"conv": 3, "pool": 1, "reorder": 1},
        {"Mul": 1, "Sigmoid": 1},
    ),
    "joined": Sample(
        f"{CONV} d = Conv<{SAME}>(c, wide) y = Concat<axis=1>(c, d)",
        {"conv": 2, "reorder": 1},
        {"Concat": 1},
        "float[1,37,9,11] y",
    ),
    "cut": Sample(f"{CONV} y = Slice(c, from, until, axes, skip)", {"conv": 1, "reorder": 1}, {"Slice": 1}, HALF),
    "padded": Sample(f"{CONV} y = Pad(c, pads, half)", {"conv": 1, "reorder": 1}, {"Pad": 1}, "float[1,32,9,12] y"),
}
PLAIN = {
    "joined within a block": Sample(
        f"{CONV} d = Conv<{SAME}>(c, wide) y = Concat<axis=1>(d, c)",
        {"conv": 2, "reorder": 2},
        {"Concat": 1},
        "float[1,37,9,11] y",
    ),
    "padded within a block": Sample(
        f"{CONV} y = Pad(c, odd)", {"conv": 1, "reorder": 1}, {"Pad": 1}, "float[1,19,9,11] y"
    ),
    "turned": Sample(
        f"{CONV} r = Reshape(c, turned) y = Transpose<perm=[0,2,1]>(r)",
        {"conv": 1, "reorder": 1},
        {"Transpose": 1},
        "float[1,99,16] y",
    ),
    "pooled alone": Sample("y = MaxPool<kernel_shape=[1,1]>(x)", {}, {"MaxPool": 1}, "float[1,5,9,11] y"),
    "groups": Sample(f"{CONV} y = Conv<group=2>(c, pairs)", {"conv": 1, "reorder": 1}, {"Conv": 1}),
    "dilated": Sample("y = Conv<dilations=[2,2],pads=[2,2,2,2]>(x, w)", {}, {"Conv": 1}),
    "beyond the padding": Sample(
        "y = MaxPool<kernel_shape=[2,2],strides=[2,2],ceil_mode=1>(x)", {}, {"MaxPool": 1}, "float[1,5,5,6] y"
    ),
    "places wanted": Sample(
        "y, i = MaxPool<kernel_shape=[1,1]>(x)", {}, {"MaxPool": 1}, "float[1,5,9,11] y, int64[1,5,9,11] i"
    ),
    "free batch": Sample("y = Conv(x, w)", {}, {"Conv": 1}, "float[n,16,7,9] y", "float[n,5,9,11] x"),
}
EVERY = {**SAMPLES, **MOVED, **PLAIN}


@pytest.fixture(scope="session")
def isa(here: Sequence[Isa]) -> Isa:
    return here[0]


def rewritten(sample: Sample, isa: Isa) -> Kernelised:
    return rewrite(sample.proto(), isa, first_guess)


@pytest.mark.parametrize("name", EVERY)
def test_exactly_these_nodes_become_kernels(name: str):
    sample = EVERY[name]
    result = rewritten(sample, isa_named("x86-64-v3"))
    assert result.replaced == sample.calls
    left = onnxkit.operators(result.proto)
    assert left.pop("edgewright::FloatKernel", 0) == sum(sample.calls.values())
    assert left == sample.stays


def test_a_block_of_more_lanes_is_not_cut():
    """Eight channels in front are a whole block of 8 lanes and half a block of 16."""
    assert rewritten(MOVED["padded"], isa_named("x86-64-v3")).proto.graph.node[-1].op_type == "FloatKernel"
    assert rewritten(MOVED["padded"], isa_named("x86-64-v4")).proto.graph.node[-1].op_type == "Pad"


@pytest.fixture(scope="session")
def library(tvm: ModuleType, isa: Isa, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One library with the kernels of every sample."""
    folder = tmp_path_factory.mktemp("images")
    kernels = {symbol: k for sample in EVERY.values() for symbol, k in rewritten(sample, isa).kernels.items()}
    try:
        content = library_of(kernels, isa, folder, headers=headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    place = folder / "kernels.so"
    place.write_bytes(content)
    return place


@pytest.mark.parametrize("name", [name for name, sample in EVERY.items() if sample.calls])
def test_it_computes_the_same(name: str, library: Path, isa: Isa, tmp_path: Path):
    proto = EVERY[name].proto()
    rng = np.random.default_rng(1)
    inputs = [onnxkit.tensor_spec(value) for value in proto.graph.input]
    feed = {spec.name: rng.standard_normal(spec.shape).astype(spec.dtype) for spec in inputs}
    names = [value.name for value in proto.graph.output]
    file = tmp_path / "model.onnx"
    file.write_bytes(packed(rewritten(EVERY[name], isa)))
    (want,) = onnxkit.run(proto.SerializeToString(), [feed])
    (got,) = run_files([file], library, [feed])
    assert worst(names, want, [got[name] for name in names]).max_rel <= CLOSE
