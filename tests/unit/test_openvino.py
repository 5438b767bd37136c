"""The runtime openvino: it answers as ONNX Runtime does, in float32, on as many threads as asked, and tells nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from edgewright.asking.recipe import resolve
from edgewright.asking.request import Request
from edgewright.errors import InputError
from edgewright.registry import TARGETS, Registry
from edgewright.types import Artifact, Gate
from edgewright_runtime import load
from edgewright_runtime.device import find_device
from edgewright_runtime.openvino import OPENVINO
from edgewright_runtime.ort import ORT

MakeBundle = Callable[..., Path]
Open = Callable[..., "tuple[Any, Any]"]

installed = pytest.mark.skipif(find_spec("openvino") is None, reason="needs pip install 'edgewright[openvino]'")
absent = pytest.mark.skipif(find_spec("openvino") is not None, reason="openvino is installed")

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
NETWORK = f"""{HEAD}
network (float[1, 3, 16, 16] x) => (float[1, 10] y, float[1, 3, 16, 16] same)
<float[8, 3, 3, 3] k, float[1568, 10] w> {{
  a = Conv(x, k)
  b = Relu(a)
  c = Flatten(b)
  y = MatMul(c, w)
  same = Identity(x)
}}
"""
PRODUCT = f"{HEAD} product (float[4, 512] x) => (float[4, 64] y) <float[512, 64] w> {{ y = MatMul(x, w) }}"
SQUARE = f"{HEAD} square (float[512, 512] x) => (float[512, 512] y) {{ y = MatMul(x, x) }}"
QUANTISED = f"""{HEAD}
quantised (float[1, 64] x) => (float[1, 8] y)
<int8[64, 8] w, float scale = {{0.02}}, int8 zero = {{0}}, float step = {{0.05}}, int8 middle = {{3}}> {{
  code = QuantizeLinear(x, step, middle)
  back = DequantizeLinear(code, step, middle)
  weight = DequantizeLinear(w, scale, zero)
  y = MatMul(back, weight)
}}
"""
FRONT = f"""{HEAD}
front (float[N, 4] x) => (float[N, 4] y, float[N, 4] h, float[N] score)
<int64[1] zero = {{0}}, int64[1] one = {{1}}> {{
  y = Neg(x)
  h = Add(x, x)
  column = Slice(x, zero, one, one)
  score = Squeeze(column, one)
}}
"""
BACK = f"{HEAD} back (float[N, 4] x, float[N, 4] h) => (float[N, 4] y) {{ y = Mul(x, h) }}"
STRANGE = '<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> g (float[1] x) => (float[1] y) { y = acme.Frob(x) }'


def filled(text: str) -> onnx.ModelProto:
    """The graph with random numbers for the weights that the text only declares.

    Integers have 7 bits: without VNNI, OpenVINO lets sums of products of 8-bit weights saturate.
    """
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for declared in model.graph.value_info:
        tensor = declared.type.tensor_type
        shape = [each.dim_value for each in tensor.shape.dim]
        codes = rng.integers(-63, 64, shape).astype(np.int8)
        floats = rng.standard_normal(shape).astype(np.float32) / 8
        array = codes if tensor.elem_type == onnx.TensorProto.INT8 else floats
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, declared.name))
    del model.graph.value_info[:]
    return model


def drawn(session: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Normal float32 values for the session's inputs."""
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shapes[name]).astype(np.float32) for name in session.inputs}


@pytest.fixture
def both(tmp_path: Path) -> Open:
    """Opens a graph with openvino and with ONNX Runtime."""

    def make(text: str, threads: int = 1) -> tuple[Any, Any]:
        path = tmp_path / "graph.onnx"
        onnx.save(filled(text), str(path))
        return OPENVINO.open(str(path), {"threads": threads}), ORT.open(str(path), {"threads": threads})

    return make


# ------------------------------------------------------------------ offered, and not raced unless asked


def test_offering_it_imports_nothing_heavy() -> None:
    code = "import sys, edgewright_runtime.openvino as o; print('numpy' in sys.modules, 'openvino' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_device_without_it_is_told_how_to_get_it() -> None:
    device = find_device()
    assert ("openvino" in device.versions) == (find_spec("openvino") is not None)
    bare = replace(device, versions={"numpy": "2"})
    refusal = OPENVINO.probe(bare)
    assert refusal is not None
    assert "pip install 'edgewright[openvino]'" in refusal.reason
    assert OPENVINO.probe(replace(device, versions={"openvino": "2026.4.1"})) is None
    old = OPENVINO.probe(replace(device, versions={"openvino": "2025.3.0"}))
    assert old is not None
    assert "openvino 2025.3.0 on the device" in old.reason


def test_it_races_only_where_it_is_asked_for() -> None:
    registry = Registry()
    targets = [offer.value for offer in registry.all(TARGETS)]
    assert targets
    assert all("openvino" not in target.runtimes for target in targets)
    cpu = registry.get(TARGETS, "cpu").value
    assert resolve(Request(), cpu, registry).runtimes == ("ort",)
    assert resolve(Request(runtime=("auto", "openvino")), cpu, registry).runtimes == ("ort", "openvino")
    artifact = Artifact("a", Path("a.onnx"), "0", 1, "onnx", "main", "main")
    assert OPENVINO.options(artifact, cpu) == [{"provider": "CPU", "threads": 1}]


@absent
def test_without_it_a_bundle_that_asks_for_it_says_so(make_bundle: MakeBundle) -> None:
    with pytest.raises(InputError, match=r"openvino cannot be imported here \(.*\); install it with pip install"):
        load(make_bundle(runtime="openvino", provider="CPU"))


# ------------------------------------------------------------------ answers


@installed
def test_it_answers_as_onnxruntime_does(both: Open) -> None:
    ours, theirs = both(NETWORK)
    assert (ours.inputs, ours.outputs) == (theirs.inputs, theirs.outputs) == (("x",), ("y", "same"))
    feeds = drawn(ours, {"x": (1, 3, 16, 16)})
    for found, expected in zip(ours.run(feeds), theirs.run(feeds), strict=True):
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)


@installed
def test_products_are_of_float32_whatever_the_processor_offers(both: Open) -> None:
    ours, _ = both(PRODUCT)
    feeds = drawn(ours, {"x": (4, 512)})
    weight = onnx.numpy_helper.to_array(filled(PRODUCT).graph.initializer[0]).astype(np.float64)
    exact = feeds["x"].astype(np.float64) @ weight
    # bfloat16 has 8 bits: it would be a thousand times further away.
    assert np.abs(ours.run(feeds)[0] - exact).max() < 1e-5 * np.abs(exact).max()


@installed
def test_integers_of_a_quantised_graph_are_taken_as_they_are(both: Open) -> None:
    ours, theirs = both(QUANTISED)
    feeds = drawn(ours, {"x": (1, 64)})
    assert np.allclose(ours.run(feeds)[0], theirs.run(feeds)[0], rtol=1e-3, atol=1e-3)


@installed
def test_outputs_outlive_the_next_run_and_inputs_stay_as_they_were(both: Open) -> None:
    ours, _ = both(NETWORK)
    feeds = drawn(ours, {"x": (1, 3, 16, 16)})
    given = feeds["x"].copy()
    first = ours.run(feeds)
    kept = [array.copy() for array in first]
    ours.run({"x": -feeds["x"]})
    assert np.array_equal(feeds["x"], given)
    assert all(map(np.array_equal, first, kept))
    assert all(map(np.array_equal, ours.run(feeds), kept)), "the same input, the same bits"


@installed
@pytest.mark.parametrize("layout", ["read only", "strided", "transposed", "one value"])
def test_arrays_may_lie_in_memory_as_they_like(both: Open, layout: str) -> None:
    ours, _ = both(f"{HEAD} g (float[4, 6] x) => (float[4, 6] y) {{ y = Neg(x) }}")
    x = np.arange(48, dtype=np.float32).reshape(4, 12)
    arrays = {"strided": x[:, ::2], "transposed": x[:, :6].T.copy().T, "one value": np.broadcast_to(x[0, 1], (4, 6))}
    array = arrays.get(layout, x[:, :6].copy())
    if layout == "read only":
        array.flags.writeable = False
    assert np.array_equal(ours.run({"x": array})[0], -array)


@installed
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "float16", "float", "double"])
def test_number_types_come_out_as_they_went_in(both: Open, dtype: str) -> None:
    ours, _ = both(
        f"{HEAD} g ({dtype}[2] x, {dtype} s) => ({dtype}[2] y, {dtype} t) {{ y = Identity(x) t = Identity(s) }}"
    )
    given = np.array([0, 1], np.dtype(dtype if dtype != "float" else "float32"))
    found = ours.run({"x": given, "s": given[1:].reshape(())})
    assert [(a.dtype, a.shape, a.tolist()) for a in found] == [
        (given.dtype, (2,), given.tolist()),
        (given.dtype, (), 1),
    ]


@installed
def test_rows_leave_a_chain_as_they_do_on_onnxruntime(make_bundle: MakeBundle) -> None:
    x = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    found: list[Any] = []
    for runtime, provider in (("ort", "CPUExecutionProvider"), ("openvino", "CPU")):
        options: Mapping[str, Any] = {"runtime": runtime, "provider": provider, "name": runtime}
        gates = [Gate("score", "max-probability", 0.0), None]
        loaded = load(make_bundle(FRONT, BACK, carries=[("h",), ()], gates=gates, free_rows=True, **options))
        found.append(loaded.run(x))
    assert set(found[0].exits) == {0, 1}
    assert found[1].exits == found[0].exits
    assert np.allclose(found[1].outputs["y"], found[0].outputs["y"], rtol=1e-6)


# ------------------------------------------------------------------ how it runs


def ticks() -> dict[str, int]:
    """What each thread of this process has computed so far, in clock ticks."""
    folders = Path("/proc/self/task").iterdir()
    return {each.name: sum(map(int, (each / "stat").read_text().rpartition(")")[2].split()[11:13])) for each in folders}


@installed
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find what threads did")
def test_one_thread_is_one_thread(both: Open) -> None:
    ours, _ = both(SQUARE)
    feeds = drawn(ours, {"x": (512, 512)})
    before, start = ticks(), perf_counter()
    while perf_counter() - start < 0.3:
        ours.run(feeds)
    spent = [now - before.get(thread, 0) for thread, now in ticks().items()]
    assert max(spent) >= 5
    assert sum(spent) - max(spent) <= 2


@installed
def test_a_profile_lists_what_was_executed(both: Open) -> None:
    ours, _ = both(SQUARE)
    rows = ours.profile(drawn(ours, {"x": (512, 512)}), 3)
    product = next(row for row in rows if row["node"] == "y")
    assert product["operator"] == "MatMul"
    assert product["provider"] == "CPU"
    assert product["median_us"] > 10


@installed
def test_importing_it_reports_to_nobody(tmp_path: Path) -> None:
    code = (
        "import sys; from edgewright_runtime.openvino_session import openvino;"
        "print([m for m in sys.modules if m.startswith('openvino_telemetry')], openvino.convert_model.__name__)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[] convert_model"
    assert not (tmp_path / "intel").exists(), "where its telemetry keeps the number it knows this machine by"


# ------------------------------------------------------------------ what cannot be opened or run


@installed
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"raw": b"not a model"}, "stage0.onnx cannot be loaded by openvino 20"),
        ({"provider": "GPU"}, "the runtime openvino has no provider 'GPU'; allowed: CPU"),
        ({"graph": STRANGE}, "acme.Frob"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(make_bundle: MakeBundle, given: dict[str, Any], says: str) -> None:
    graphs = [given.pop("graph")] if "graph" in given else []
    with pytest.raises(InputError) as caught:
        load(make_bundle(*graphs, **{"runtime": "openvino", "provider": "CPU", **given}))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)


@installed
def test_operators_for_onnxruntime_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"g\.onnx calls operators of kernels\.so, which only onnxruntime can load"):
        OPENVINO.open(str(tmp_path / "g.onnx"), {"libraries": [str(tmp_path / "kernels.so")]})


@installed
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones((3, 512), np.float32), r"\(shape=\[4,512\]\) and the tensor \(shape=\(3.512\)\) are incompatible"),
        (np.ones((4, 512), np.int32), "i32"),
    ],
)
def test_an_error_while_running_is_one_sentence(both: Open, x: Any, says: str) -> None:
    ours, _ = both(PRODUCT)
    with pytest.raises(InputError, match=rf"^graph\.onnx cannot run: .*{says}") as caught:
        ours.run({"x": x})
    assert "\n" not in str(caught.value)
