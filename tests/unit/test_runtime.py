"""Bundles run in process: names and shapes checked, state kept, stages chained, errors in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import pytest

from edgewright.errors import BundleError, InputError
from edgewright.types import Artifact, Device, State, Target
from edgewright_runtime import load
from edgewright_runtime.circumstances import conditions
from edgewright_runtime.device import emulation, find_device
from edgewright_runtime.feeds import Port
from edgewright_runtime.infer import infer
from edgewright_runtime.null import NULL
from edgewright_runtime.ort import ORT
from edgewright_runtime.timing import WarmUp, stopwatch, time_block, warm_up

MakeBundle = Callable[..., Path]

STEP = """
<ir_version: 8, opset_import: ["" : 17]>
step (float[1, 1, 2] x, float[1, 2] h) => (float[1, 1, 2] y, float[1, 2] h_next)
<int64[3] shape = {1, 1, 2}, int64[2] flat = {1, 2}> {
  seen = Reshape(x, flat)
  h_next = Add(seen, h)
  y = Reshape(h_next, shape)
}
"""
COUNTER = """
<ir_version: 8, opset_import: ["" : 17]>
counter (float[N, 2] x, float[N, 2] h) => (float[N, 2] y, float[N, 2] h_next) {
  y = Add(x, h)
  h_next = Identity(y)
}
"""
FRONT = """
<ir_version: 8, opset_import: ["" : 17]>
front (float[N, 2] x) => (float[N, 2] y, float[N, 2] hidden, float[N, 2] rest)
<float two = {2}> { y = Neg(x) hidden = Mul(x, two) rest = Identity(x) }
"""
BACK = """
<ir_version: 8, opset_import: ["" : 17]>
back (float[N, 2] x, float[N, 2] a, float[N, 2] b) => (float[N, 2] y) { s = Add(a, b) y = Add(s, x) }
"""
FIXED = """
<ir_version: 8, opset_import: ["" : 17]>
fixed (float[4, 2] x) => (float[4, 2] y) { y = Neg(x) }
"""
TWO_INPUTS = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[1, 3] image, int64[1, 3] mask) => (float[1, 3] y) { m = Cast<to = 1>(mask) y = Mul(image, m) }
"""
UNKNOWN_OPERATOR = """
<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>
strange (float[1] x) => (float[1] y) { y = acme.Frobnicate(x) }
"""
BAD_AT_RUN = """
<ir_version: 8, opset_import: ["" : 17]>
bad (float[N, 2] x, float[M, 2] z) => (float[K, 2] y) { y = Add(x, z) }
"""


def ones(*shape: int) -> Any:
    """Float32 ones."""
    return np.ones(shape, np.float32)


def test_array_and_dict_give_the_same(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle())
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    result = loaded.run(x)
    assert result.outputs["y"].tolist() == [[3, 4, 5], [11, 12, 13]]
    assert result.exits == (0, 0)
    assert result.spent_ms > 0
    assert np.array_equal(loaded.run({"x": x}).outputs["y"], result.outputs["y"])


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({"imag": ones(1, 3), "mask": ones(1, 3)}, "no input 'imag'; allowed: image, mask; did you mean 'image'?"),
        ({"image": ones(1, 3)}, "the input mask int64 [1, 3] is missing; given: image"),
        ({}, "the input image float32 [1, 3] is missing; given: nothing"),
        (
            {"image": ones(1, 3), "mask": ones(1, 3)},
            "mask is float32 [1, 3]; the model takes mask int64 [1, 3]",
        ),
        (
            {"image": np.ones((1, 3)), "mask": np.ones((1, 3), np.int64)},
            "image is float64 [1, 3]; the model takes image float32 [1, 3]",
        ),
        (
            {"image": ones(2, 3), "mask": np.ones((1, 3), np.int64)},
            "image is float32 [2, 3]; the model takes image float32 [1, 3]",
        ),
        (
            {"image": [1.0, 2.0, 3.0], "mask": np.ones((1, 3), np.int64)},
            "image is a list (give a numpy array); the model takes image float32 [1, 3]",
        ),
        (ones(1, 3), "the model takes 2 inputs, so give a dict: image float32 [1, 3], mask int64 [1, 3]"),
    ],
)
def test_wrong_inputs_are_named(make_bundle: MakeBundle, feeds: Any, says: str) -> None:
    loaded = load(make_bundle(TWO_INPUTS))
    with pytest.raises(InputError) as caught:
        loaded.run(feeds)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_free_dimensions_take_any_size_and_fixed_ones_do_not(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle())
    assert loaded.run(ones(7, 4)).outputs["y"].shape == (7, 3)
    with pytest.raises(InputError, match=r"x is float32 \[7, 5\]; the model takes x float32 \[N, 4\]"):
        loaded.run(ones(7, 5))


def test_recurrent_state_is_kept_and_reset(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle(COUNTER, state=[State("h_next", "h")]))
    sums = [float(loaded.run(ones(1, 2)).outputs["y"][0, 0]) for _ in range(3)]
    assert sums == [1, 2, 3]
    with pytest.raises(InputError, match=r"was kept for {'N': 1}, now fed {'N': 5}; call reset\(\) first"):
        loaded.run(ones(5, 2))
    loaded.reset()
    assert loaded.run(ones(5, 2)).outputs["y"].tolist() == ones(5, 2).tolist()


def test_stages_carry_by_position(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle(FRONT, BACK, carries=[("hidden", "rest"), ()]))
    result = loaded.run(np.array([[1, 10]], np.float32))
    assert result.outputs["y"].tolist() == [[4, 40]]
    assert result.exits == (1,)


def test_sums_of_integer_products_are_exact_on_every_cpu(make_bundle: MakeBundle) -> None:
    rows, columns = 32, 16
    weights = ", ".join(["127"] * rows * columns)
    path = make_bundle(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        sums (uint8[1, {rows}] x) => (int32[1, {columns}] y)
        <int8[{rows}, {columns}] w = {{{weights}}}> {{ y = MatMulInteger(x, w) }}"""
    )
    found = load(path).run({"x": np.full((1, rows), 255, np.uint8)})
    np.testing.assert_array_equal(found.outputs["y"], np.full((1, columns), rows * 255 * 127))


def test_a_chain_that_does_not_fit_is_refused(make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match="'stage1' should take 2 tensors and give 1, but its graph takes 1"):
        load(make_bundle(FRONT, FIXED, carries=[("hidden", "rest"), ()]))


def test_a_changed_file_is_not_loaded(make_bundle: MakeBundle) -> None:
    path = make_bundle()
    with open(path / "artifacts/stage0.onnx", "ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="its digest does not match"):
        load(path)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"raw": b"not a model"}, "stage0.onnx cannot be loaded by onnxruntime"),
        ({"provider": "CUDAExecutionProvider"}, "has no CUDAExecutionProvider; allowed: "),
        ({"options": {"graph": "al"}}, "graph='al' is no level of graph optimisation; allowed: all,"),
        ({"runtime": "otr"}, "the bundle asks for the runtime 'otr', which is not here; allowed: null, openvino, ort"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(make_bundle: MakeBundle, given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        load(make_bundle(**given))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "[ONNXRuntimeError]" not in str(caught.value)


def test_an_operator_without_kernel_is_named(make_bundle: MakeBundle) -> None:
    with pytest.raises(InputError, match="Frobnicate"):
        load(make_bundle(UNKNOWN_OPERATOR))


def test_an_error_while_running_is_one_sentence(make_bundle: MakeBundle) -> None:
    with pytest.raises(InputError, match=r"stage0.onnx cannot run: .*Add"):
        load(make_bundle(BAD_AT_RUN)).run({"x": ones(2, 2), "z": ones(3, 2)})


def test_falling_back_is_an_error_unless_allowed(make_bundle: MakeBundle) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no second provider to fall back from")
    path = make_bundle(provider="AzureExecutionProvider")
    with pytest.raises(InputError, match=r"does not take every node of stage0\.onnx"):
        load(path)
    assert load(path, allow_fallback=True).run(ones(1, 4)).outputs["y"].shape == (1, 3)
    allowed = make_bundle(name="b", provider="AzureExecutionProvider", options={"allow_fallback": True})
    assert load(allowed).run(ones(1, 4)).outputs["y"].shape == (1, 3)


def test_third_party_runtimes_are_found_by_module_and_object(make_bundle: MakeBundle) -> None:
    path = make_bundle(runtime="acme")
    assert load(path, runtimes={"acme": "edgewright_runtime.null:NULL"}).run(ones(1, 4)).outputs["y"].sum() == 0
    with pytest.raises(InputError, match=r"cannot be imported from edgewright_runtime\.nul:NULL"):
        load(path, runtimes={"acme": "edgewright_runtime.nul:NULL"})


def test_null_answers_zeros_of_the_right_shape(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle(runtime="null"))
    outputs = loaded.run(ones(6, 4)).outputs
    assert outputs["y"].shape == (6, 3)
    assert outputs["y"].dtype == np.float32
    assert not outputs["y"].any()
    assert loaded.sessions[0].profile({}, 3) == []


def test_profile_lists_executed_nodes(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle())
    rows = loaded.sessions[0].profile(loaded.graph_feeds({"x": ones(1, 4)}), 5)
    assert [row["operator"] for row in rows] == ["MatMul"]
    assert rows[0]["provider"] == "CPUExecutionProvider"
    assert rows[0]["median_us"] > 0


def test_options_follow_the_target(make_bundle: MakeBundle) -> None:
    from edgewright.types import Figure

    figure = Figure(1.0, "GB/s", "this test")
    target = Target(
        "t", "t", "x86_64", figure, {}, figure, figure, providers=("CUDAExecutionProvider", "CPUExecutionProvider")
    )
    artifact = Artifact("a", Path("a.onnx"), "0", 1, "onnx", "main", "main")
    chosen = [(o["provider"], o["graph"]) for o in ORT.options(artifact, target)]
    assert chosen == [
        ("CUDAExecutionProvider", "all"),
        ("CPUExecutionProvider", "all"),
        ("CPUExecutionProvider", "extended"),
    ]


def test_infer_pads_the_last_block_of_a_fixed_batch(make_bundle: MakeBundle) -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert np.array_equal(infer(load(make_bundle(FIXED)), {"x": x}).outputs["y"], -x)


@pytest.mark.parametrize("batch", [1, 2, 4, 16])
def test_infer_gives_the_same_at_any_batch(make_bundle: MakeBundle, batch: int) -> None:
    x = np.random.default_rng(1).standard_normal((7, 4)).astype(np.float32)
    found = infer(load(make_bundle()), {"x": x}, batch=batch).outputs["y"]
    assert np.allclose(found, np.concatenate([x[:, :3] + x[:, 3:]]), atol=1e-6)


def test_infer_starts_each_block_from_zero_state(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle(COUNTER, state=[State("h_next", "h")]))
    found = infer(loaded, {"x": ones(3, 2)}).outputs
    assert list(found) == ["y"]
    assert found["y"].tolist() == ones(3, 2).tolist()


def test_infer_runs_the_steps_of_an_example_one_after_the_other(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle(STEP, state=[State("h_next", "h")]))
    x = np.random.default_rng(0).standard_normal((3, 5, 2)).astype(np.float32)
    found = infer(loaded, {"x": x})
    assert np.allclose(found.outputs["y"], x.cumsum(1), atol=1e-6)
    assert len(found.spent_ms) == len(found.exits) == 3


def test_infer_refuses_uneven_inputs(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle(TWO_INPUTS))
    with pytest.raises(InputError, match="given: image 2, mask 3"):
        infer(loaded, {"image": ones(2, 3), "mask": np.ones((3, 3), np.int64)})


def test_ports_take_exactly_their_type() -> None:
    port = Port("x", np.dtype(np.float32), ("N", 2), "x float32 [N, 2]")
    assert port.accepts(ones(5, 2))
    assert not port.accepts(ones(5, 2).astype(np.float16))
    assert not port.accepts(ones(5))
    assert not port.accepts(ones(5, 2).tolist())


def test_warm_up_obeys_time_count_and_cap() -> None:
    taken, _ = warm_up(stopwatch(lambda: None), WarmUp(least_ns=5_000_000, least_runs=50))
    assert len(taken) >= 50
    assert sum(taken) <= 2_000_000_000
    _, settled = warm_up(stopwatch(lambda: None), WarmUp(least_ns=0, least_runs=1, most_ns=0, window=10))
    assert not settled


def test_a_block_reaches_both_limits() -> None:
    assert len(time_block(stopwatch(lambda: None), least_runs=7, least_ns=0)) == 7
    start = perf_counter_ns()
    taken = time_block(stopwatch(lambda: None), least_runs=1, least_ns=3_000_000)
    passed = perf_counter_ns() - start
    assert passed >= 3_000_000
    assert 0 < sum(taken) <= passed


def test_the_device_is_described() -> None:
    device = find_device()
    assert device == find_device()
    assert device.cores >= 1
    assert device.memory_bytes > 1 << 20
    assert "onnxruntime" in device.versions
    assert "CPUExecutionProvider" in device.providers
    assert ORT.probe(device) is None
    assert NULL.probe(device) is None
    bare = Device("", "aarch64", "a board", 1, 1, "Linux", "", "3.9", (), {}, (), "", False)
    refusal = ORT.probe(bare)
    assert refusal is not None
    assert "pip install onnxruntime" in refusal.reason
    assert {"load_average", "temperature_c", "clocks"} <= set(conditions())


@pytest.mark.parametrize(
    ("isa", "cpuinfo", "registered", "emulated"),
    [
        ("x86_64", "vendor_id\t: AuthenticAMD\n", False, False),
        ("aarch64", "vendor_id\t: AuthenticAMD\n", False, True),
        ("aarch64", "Features\t: asimd\n", True, True),
        ("aarch64", "Features\t: asimd\n", False, False),
        ("x86_64", "model name\t: QEMU TCG CPU version 2.5+\n", False, True),
    ],
)
def test_emulation_needs_evidence(tmp_path: Path, isa: str, cpuinfo: str, registered: bool, emulated: bool) -> None:
    if registered:
        (tmp_path / "sys/fs/binfmt_misc").mkdir(parents=True)
        (tmp_path / f"sys/fs/binfmt_misc/qemu-{isa}").touch()
    assert bool(emulation(isa, cpuinfo, tmp_path)) is emulated


@pytest.mark.parametrize("process", ["thread-self", str(os.getppid())])
def test_an_emulator_that_runs_this_process_or_its_parent_is_seen(tmp_path: Path, process: str) -> None:
    (tmp_path / process).mkdir()
    (tmp_path / process / "exe").symlink_to("/usr/bin/qemu-aarch64-static")
    assert emulation("aarch64", "", tmp_path) == "runs under qemu-aarch64-static"


def test_offering_the_runtimes_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgewright_runtime, edgewright_runtime.ort, edgewright_runtime.null;"
        "print([m for m in ('numpy', 'onnxruntime', 'onnx', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
