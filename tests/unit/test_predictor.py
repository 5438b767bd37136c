"""The predictor: terms by hand, the fit on synthetic truth, intervals that cover it, profiles, refusals."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx.shape_inference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgewright.asking.targetfile import read_profile
from edgewright.errors import TargetError
from edgewright.protocols import Calibrated, Itemising, Measurable, Predictor
from edgewright.types import GraphFile, Model, Signature, Stage, TensorSpec, TorchGraph, Variant
from edgewright_devices.loops import Product
from edgewright_devices.predictor.calibrate import left_out_error
from edgewright_devices.predictor.coefficients import known_of, read_prior
from edgewright_devices.predictor.fit import PLAIN, fit, learn_prior, nonnegative
from edgewright_devices.predictor.kernels import INDEX, TERMS, design, kind_of, terms_of
from edgewright_devices.predictor.predict import KERNELS
from edgewright_devices.predictor.probes import EACH, KINDS, write_probes
from edgewright_devices.predictor.profile import profile_of
from edgewright_devices.profiles import built_in
from edgewright_devices.workload import Work, workload

TARGETS = {target.name: target for target in built_in()}
PI = TARGETS["raspberry-pi-4"]
ORIN = TARGETS["jetson-agx-orin"]


def product(**loops: int | bool) -> Work:
    return Work("n", "Conv", "float32", 1, 2, 400, 1000, Product(rows=10, taken=3, given=6, **loops))  # pyright: ignore


def graph_file(tmp_path: Path, name: str, body: str, weights: dict[str, np.ndarray]) -> GraphFile:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21, "acme" : 1]> {body}')
    model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in weights.items())
    path = tmp_path / f"{name}.onnx"
    onnx.save(model, path)
    return GraphFile(path, name)


def as_model(graph: GraphFile | TorchGraph, *, stages: int = 1) -> Model:
    spec = TensorSpec("x", "float32", ("n", 64))
    variant = Variant("main", tuple(Stage(f"s{i}", graph, ("x",), ("y",)) for i in range(stages)))
    return Model("m", Signature((spec,), ()), (variant,), {"x": np.zeros((8, 64), np.float32)})


def linear(tmp_path: Path, width: int, stages: int = 1) -> Model:
    body = "m (float[n,64] x) => (float[a,b] y) {y = MatMul(x, w)}"
    return as_model(graph_file(tmp_path, f"w{width}", body, {"w": np.zeros((64, width), "float32")}), stages=stages)


# ------------------------------------------------------------------ terms


@pytest.mark.parametrize(
    ("loops", "kind"),
    [
        ({"window": 9}, "unit"),
        ({"window": 9, "stride": 2}, "window"),
        ({"window": 1}, "point"),
        ({"window": 9, "groups": 2}, "group"),
        ({"constant": False}, "matrix"),
    ],
)
def test_a_kernel_is_classed_by_its_loops(loops: dict[str, int], kind: str) -> None:
    assert kind_of(product(**loops)) == kind


def test_terms_by_hand() -> None:
    found = terms_of(product(window=9))
    assert found["float.unit.ops"] == pytest.approx(10 * 8 * 3 * 9 / 1e6)  # 6 channels fill lanes of 8
    assert found["float.unit.taken"] == pytest.approx(10 * 3 * 9 / 1e6)
    assert found["float.unit.given"] == pytest.approx(10 * 6 / 1e6)
    assert found["float.weights.bytes"] == pytest.approx(400 / 1e6)
    assert found["float.unit.launches"] == 1


def test_work_on_zeros_is_told_apart(tmp_path: Path) -> None:
    body = """m (float[n,64] x) => (float[a,b] y) {
        z = Mul(x, nought)
        dead = MatMul(z, w)
        live = MatMul(x, w)
        y = Add(live, dead)
    }"""
    weights = {"w": np.zeros((64, 64), "float32"), "nought": np.array(0, "float32")}
    works = workload(graph_file(tmp_path, "zeros", body, weights).path, {"x": (8, 64)}).works
    assert [work.operator for work in works if not work.idle] == ["MatMul"]
    launches = [design(works, idle=idle)[INDEX["float.point.launches"]] for idle in (False, True)]
    assert launches == [1, 2]


def test_what_comes_from_outside_is_counted_where_it_is_read(tmp_path: Path) -> None:
    body = """m (float[n,64] x) => (float[a,b] y) {
        h = MatMul(x, w)
        y = MatMul(h, w)
    }"""
    works = workload(graph_file(tmp_path, "two", body, {"w": np.zeros((64, 64), "float32")}).path, {"x": (8, 64)}).works
    assert [work.fed for work in works] == [8 * 64, 0]
    assert design(works, idle=False)[INDEX["float.inputs"]] == pytest.approx(8 * 64 / 1e6)


@pytest.mark.parametrize(
    ("nodes", "apart"),
    [
        ("p = MatMul(x, w) y = Add(x, p)", 0),  # the product may be added as it is written
        ("p = MatMul(x, w) q = Relu(p) y = Add(x, q)", 0),
        ("p = MatMul(x, w) y = Add(p, x)", 1),  # the sum begins with it
        ("p = MatMul(x, w) s = Add(x, p) y = Mul(s, p)", 1),  # something else takes it
        ("p = MatMul(x, thin) y = Add(x, p)", 1),  # smaller than the sum
        ("p = Softmax(x) y = Add(x, p)", 1),
        ("p = Softmax(x) y = Add(p, bias)", 0),  # one tensor of data
    ],
)
def test_sums_that_no_product_takes_in_are_told_apart(tmp_path: Path, nodes: str, apart: int) -> None:
    body = f"m (float[n,64] x) => (float[a,b] y) {{ {nodes} }}"
    weights = {"w": (64, 64), "thin": (64, 1), "bias": (64,)}
    file = graph_file(tmp_path, "sum", body, {name: np.zeros(size, "float32") for name, size in weights.items()})
    (added,) = [work for work in workload(file.path, {"x": (8, 64)}).works if work.operator == "Add"]
    assert terms_of(added)["float.apart.launches"] == apart


def test_only_sums_stand_apart(tmp_path: Path) -> None:
    body = "m (float[n,64] x) => (float[a,b] y) { p = Softmax(x) y = Mul(x, p) }"
    works = workload(graph_file(tmp_path, "mul", body, {}).path, {"x": (8, 64)}).works
    assert [(work.operator, work.apart) for work in works] == [("Softmax", False), ("Mul", False)]


def test_of_two_branches_the_heavier_is_the_path(tmp_path: Path) -> None:
    body = """m (float[n,64] x) => (float[a,b] y) {
        wide = MatMul(x, up)
        long = MatMul(wide, down)
        short = MatMul(x, square)
        y = Add(long, short)
    }"""
    weights = {"up": (64, 128), "down": (128, 64), "square": (64, 64)}
    file = graph_file(tmp_path, "fork", body, {name: np.zeros(size, "float32") for name, size in weights.items()})
    works = workload(file.path, {"x": (8, 64)}).works
    assert [work.critical for work in works] == [True, True, False, False]
    assert design(works, idle=False)[INDEX["float.path.ops"]] == pytest.approx(2 * 8 * 64 * 128 / 1e6)


def test_the_path_is_made_of_products_that_are_not_zero(tmp_path: Path) -> None:
    body = """m (float[n,64] x) => (float[a,b] y) {
        z = Mul(x, nought)
        wide = MatMul(z, up)
        dead = MatMul(wide, down)
        first = MatMul(x, square)
        share = Softmax(first)
        live = MatMul(share, square)
        y = Add(live, dead)
    }"""
    sizes = {"up": (64, 128), "down": (128, 64), "square": (64, 64), "nought": ()}
    file = graph_file(tmp_path, "zero", body, {name: np.zeros(size, "float32") for name, size in sizes.items()})
    works = workload(file.path, {"x": (8, 64)}).works
    assert [(work.operator, work.idle) for work in works if work.critical] == [("MatMul", False)] * 2


# ------------------------------------------------------------------ the fit


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_nonnegative_least_squares_meets_its_conditions(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((size + 3, size))
    normal, right = rows.T @ rows + 0.1 * np.eye(size), rng.standard_normal(size)
    x = nonnegative(normal, right)
    slope = right - normal @ x
    assert (x >= 0).all()
    assert (slope <= 1e-6).all()  # nothing is gained by raising any
    assert np.abs(slope[x > 0]).max(initial=0) < 1e-6


def synthetic(seed: int, count: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Networks of a device whose coefficients lie about the prior, and what they take."""
    rng = np.random.default_rng(seed)
    prior = read_prior("cpu").coefficients / 50
    truth = prior * np.exp(0.5 * rng.standard_normal(len(prior)))
    terms = np.exp(rng.standard_normal((count, len(prior)))) / np.maximum(prior, 1e-9)
    terms[:, [name.startswith("int8") for name in TERMS]] = 0
    return terms, terms @ truth * np.exp(noise * rng.standard_normal(count)), prior


def test_coefficients_are_found_and_errors_are_the_noise() -> None:
    terms, measured, prior = synthetic(1, 400, 0.03)
    value, _ = fit(terms[:200], measured[:200], prior).predict(terms[200:])
    assert np.abs(value / measured[200:] - 1).mean() < 0.032


def test_one_disturbed_measurement_moves_little() -> None:
    terms, measured, prior = synthetic(2, 100, 0.02)
    disturbed = measured.copy()
    disturbed[0] *= 4
    values = [fit(terms, each, prior).predict(terms[1:])[0] for each in (measured, disturbed)]
    assert np.abs(values[1] / values[0] - 1).max() < 0.02


@pytest.mark.parametrize("side_by_side", [False, True])
def test_devices_that_run_kernels_side_by_side_are_told_by_their_times(side_by_side: bool) -> None:
    rng, prior = np.random.default_rng(5), read_prior("cpu").coefficients
    ops, path = INDEX["float.point.ops"], INDEX["float.path.ops"]
    terms = np.zeros((60, len(TERMS)))
    terms[:, ops] = 100 * np.exp(rng.standard_normal(60))
    terms[:, path] = terms[:, ops] * rng.uniform(0.3, 1, 60)
    measured = terms[:, path if side_by_side else ops] * np.exp(0.02 * rng.standard_normal(60))
    posterior = fit(terms[:40], measured[:40], prior)
    assert (posterior.coefficients[path] > 0) == side_by_side
    assert np.abs(posterior.predict(terms[40:])[0] / measured[40:] - 1).mean() < 0.03


@pytest.mark.parametrize("joins", [True, False])
def test_devices_that_join_sums_are_told_by_their_times(joins: bool) -> None:
    rng, prior = np.random.default_rng(5), read_prior("cpu").coefficients
    ops, apart = INDEX["float.point.ops"], INDEX["float.apart.launches"]
    terms = np.zeros((60, len(TERMS)))
    terms[:, ops] = 100 * np.exp(rng.standard_normal(60))
    terms[:, apart] = rng.integers(0, 30, 60)
    measured = (terms[:, ops] + 3.0 * joins * terms[:, apart]) * np.exp(0.02 * rng.standard_normal(60))
    posterior = fit(terms[:40], measured[:40], prior)
    assert (posterior.coefficients[apart] > 0) == joins
    assert np.abs(posterior.predict(terms[40:])[0] / measured[40:] - 1).mean() < 0.03


def test_what_few_devices_do_is_not_learnt_for_all() -> None:
    """Neither sums that devices launch nor the path moves a prior, nor is it charged where nothing was measured."""
    rng, start = np.random.default_rng(6), read_prior("cpu").coefficients
    ops, apart, path = (INDEX[f"float.{term}"] for term in ("point.ops", "apart.launches", "path.ops"))
    terms = np.zeros((60, len(TERMS)))
    terms[:, ops] = 100 * np.exp(rng.standard_normal(60))
    terms[:, apart] = rng.integers(0, 30, 60)
    terms[:, path] = terms[:, ops] * rng.uniform(0.3, 1, 60)
    learnt = learn_prior([(terms, terms[:, ops] + 3.0 * terms[:, apart] + terms[:, path])] * 2, start)
    assert learnt[[apart, path]] == pytest.approx(start[[apart, path]])
    known = known_of(replace(PI, fitted={}), "latency")
    assert known is not None
    assert not known.posterior.coefficients[PLAIN == 0].any()
    assert known.posterior.coefficients[INDEX["float.point.ops"]] > 0


@pytest.mark.parametrize("count", [10, 20, 100])
def test_intervals_cover_synthetic_truth(count: int) -> None:
    inside = []
    for seed in range(8):
        terms, measured, prior = synthetic(seed, count + 50, 0.05)
        value, sd = fit(terms[:count], measured[:count], prior).predict(terms[count:])
        inside += list(np.abs(np.log(value / measured[count:])) < 1.645 * sd)
    assert np.mean(inside) > 0.85


def test_what_was_never_measured_is_less_sure() -> None:
    terms, _measured, prior = synthetic(3, 60, 0.02)
    unseen = INDEX["float.matrix.ops"]
    known = terms.copy()
    known[:, unseen] = 0
    posterior = fit(known, known @ prior, prior)
    asked = terms[:1].copy()
    asked[0, unseen] = 5 / prior[unseen]
    assert posterior.predict(asked)[1][0] > 3 * posterior.predict(known[:1])[1][0]


def test_error_left_out_is_that_of_networks_not_fitted() -> None:
    terms, measured, prior = synthetic(4, 200, 0.05)
    assert 0.03 < left_out_error(terms, measured, prior) < 0.06


# ------------------------------------------------------------------ predictions


def test_it_is_a_predictor_that_can_be_calibrated() -> None:
    assert isinstance(KERNELS, Predictor)
    assert isinstance(KERNELS, Calibrated)


def test_a_prediction_has_interval_kernels_and_provenance(tmp_path: Path) -> None:
    found = KERNELS.predict(linear(tmp_path, 512), PI, "latency")
    assert (found.kind, found.unit, found.instrument) == ("predicted", "ms", "kernels")
    assert found.value is not None
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert "MLPerf" in found.conditions["source"]
    assert sum(ms for *_, ms in found.conditions["kernels"]) == pytest.approx(found.value)


def test_every_stage_counts(tmp_path: Path) -> None:
    one, two = (KERNELS.predict(linear(tmp_path, 512, n), PI, "latency").value for n in (1, 2))
    assert one is not None
    assert two == pytest.approx(2 * one)


def test_a_device_that_was_not_measured_is_known_less_well(tmp_path: Path) -> None:
    widths = []
    for target in (PI, replace(PI, fitted={})):
        found = KERNELS.predict(linear(tmp_path, 4096), target, "latency")
        assert found.interval is not None
        widths.append(found.interval[1] / found.interval[0])
    assert widths[1] > widths[0]


def test_of_a_network_far_smaller_than_any_that_was_measured_little_is_said(tmp_path: Path) -> None:
    for target in (PI, TARGETS["raspberry-pi-5"]):
        found = KERNELS.predict(linear(tmp_path, 2), target, "latency")
        assert found.value is not None
        assert found.interval is not None
        assert found.value * 1000 >= found.interval[1] > found.value > found.interval[0] > 0


def test_energy_without_coefficients_is_latency_times_power(tmp_path: Path) -> None:
    bare = replace(PI, fitted={})
    latency, energy = (KERNELS.predict(linear(tmp_path, 512), bare, quantity) for quantity in ("latency", "energy"))
    assert latency.value is not None
    assert energy.value == pytest.approx(latency.value * PI.power["active_w"].value)
    assert latency.interval is not None
    assert energy.interval is not None
    assert energy.interval[1] / energy.interval[0] > latency.interval[1] / latency.interval[0]


def test_ratios_know_more_than_two_values(tmp_path: Path) -> None:
    bare = replace(PI, fitted={})
    first, other = linear(tmp_path, 4096), linear(tmp_path, 4000)
    values = [KERNELS.predict(model, bare, "latency") for model in (first, other)]
    ratio = KERNELS.predict_ratio(first, other, bare, "latency")
    assert ratio.value == pytest.approx((values[0].value or 0) / (values[1].value or 1))
    assert ratio.interval is not None
    apart = math.sqrt(2) * math.log(values[0].interval[1] / (values[0].value or 1))  # pyright: ignore
    assert math.log(ratio.interval[1] / ratio.value) < apart  # pyright: ignore
    same = KERNELS.predict_ratio(first, first, bare, "latency")
    assert (same.value, same.interval) == (1.0, (1.0, 1.0))


def test_kernels_add_up_and_stand_below_their_roof(tmp_path: Path) -> None:
    assert isinstance(KERNELS, Itemising)
    model = linear(tmp_path, 512, stages=2)
    found = KERNELS.kernels(model, PI)
    assert [(each.operator, each.kind, each.ops) for each in found] == [("MatMul", "point", 2 * 8 * 64 * 512)] * 2
    for quantity, costs in (("latency", [k.latency_ms for k in found]), ("energy", [k.energy_mj or 0 for k in found])):
        assert sum(costs) == pytest.approx(KERNELS.predict(model, PI, quantity).value)
    assert {(each.peak_gops, each.bandwidth_gbs) for each in found} == {(48.0, 12.8)}


def test_kernels_take_energy_by_power_or_have_none(tmp_path: Path) -> None:
    model = linear(tmp_path, 64)
    by_power = KERNELS.kernels(model, replace(PI, fitted={}))[0]
    assert by_power.energy_mj == pytest.approx(by_power.latency_ms * PI.power["active_w"].value)
    assert KERNELS.kernels(model, ORIN)[0].energy_mj is None
    magic = as_model(graph_file(tmp_path, "acme", "m (float[n,64] x) => (float[n,64] y) {y = acme.Magic(x)}", {}))
    assert KERNELS.kernels(magic, PI) == ()


def test_a_profile_from_an_emulated_device_says_so(tmp_path: Path) -> None:
    widths = (64, 128, 256, 384, 512)
    cases = [Measurable(linear(tmp_path, width), width / 100, kind="simulated") for width in widths]
    assert "5 networks simulated on this device" in KERNELS.fit(cases, PI).fitted["latency"]["source"]


def test_a_graph_whose_sizes_are_known_is_inferred_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a prediction costs grows with this most of all."""
    calls = list[int]()
    infer = onnx.shape_inference.infer_shapes

    def counted(proto: onnx.ModelProto, **options: bool) -> onnx.ModelProto:
        calls.append(1)
        return infer(proto, **options)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", counted)
    assert KERNELS.predict(linear(tmp_path, 512), PI, "latency").value
    assert len(calls) == 1


def test_predicting_loads_no_torch_and_no_runtime(tmp_path: Path) -> None:
    linear(tmp_path, 64)
    code = (
        "import sys; from pathlib import Path; from edgewright_devices.workload import workload;"
        "from edgewright_devices.predictor import predict, coefficients, itemise;"
        f"assert workload(Path({str(tmp_path / 'w64.onnx')!r}), {{'x': (8, 64)}}).works;"
        "print({'torch', 'onnxruntime', 'tvm'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip() == "set()"


def test_refusals_say_why(tmp_path: Path) -> None:
    magic = as_model(graph_file(tmp_path, "acme", "m (float[n,64] x) => (float[n,64] y) {y = acme.Magic(x)}", {}))
    assert "(Magic)" in KERNELS.predict(magic, PI, "latency").reason
    assert "(Magic)" in KERNELS.predict_ratio(linear(tmp_path, 8), magic, PI, "latency").reason
    assert "gives no power" in KERNELS.predict(linear(tmp_path, 8), ORIN, "energy").reason
    assert "gives no power" in KERNELS.predict_ratio(magic, magic, ORIN, "energy").reason
    assert KERNELS.predict(magic, PI, "memory").reason == "kernels predicts latency and energy, not memory"
    assert "lower it to ONNX" in KERNELS.predict(as_model(TorchGraph(object(), "d")), PI, "latency").reason
    with pytest.raises(TargetError, match="no unit 'npu'; allowed: cpu, gpu"):
        read_prior("npu")


# ------------------------------------------------------------------ calibration


def test_a_calibrated_profile_is_read_back_and_predicts_the_same(tmp_path: Path) -> None:
    models = [linear(tmp_path, width) for width in (8, 64, 128, 256, 512, 1024, 2048, 4096)]
    measured = [Measurable(model, 0.01 + 2e-5 * width) for model, width in zip(models, (8, 64, 128, 256, 512))]
    target = KERNELS.fit(measured, replace(PI, fitted={}, name="mine"))
    path = tmp_path / "mine.toml"
    path.write_text(profile_of(target), encoding="utf-8")
    again = read_profile(path)
    assert again.fitted["latency"]["n"] == 5
    assert "energy" not in again.fitted
    first, second = (KERNELS.predict(models[4], each, "latency") for each in (target, again))
    assert first.value == pytest.approx(second.value)
    assert first.value == pytest.approx(0.01 + 2e-5 * 512, rel=0.01)


def test_too_few_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="too few"):
        KERNELS.fit([Measurable(linear(tmp_path, 8), 1.0)], PI)


def test_probes_are_the_same_each_time_and_all_can_be_counted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (write_probes(tmp_path / name) for name in ("a", "b"))
    assert len(first) == 2 * EACH * len(KINDS)
    assert [path.read_bytes() for path in first[:4]] == [path.read_bytes() for path in second[:4]]
    for path in first:
        load = workload(path)
        assert load.macs > 0
        assert not load.opaque
        assert not load.uncounted


@pytest.mark.parametrize(
    ("name", "most"),
    [("raspberry-pi-4", 0.04), ("raspberry-pi-5", 0.52), ("jetson-tx2", 0.07), ("snapdragon-8-gen-2", 0.35)],
)
def test_fitted_profiles_state_source_and_error(name: str, most: float) -> None:
    entry = TARGETS[name].fitted["latency"]
    assert 0 < entry["error"] < most
    assert "ship.py" in entry["source"]
    known = known_of(TARGETS[name], "latency")
    assert known is not None
    assert known.fitted
    assert (known.posterior.coefficients >= 0).all()
