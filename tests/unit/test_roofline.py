"""The roofline predictor: its formula by hand, its refusals, its intervals, and published latencies."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from edgewright.errors import TargetError
from edgewright.protocols import Predictor
from edgewright.types import (
    Figure,
    GraphFile,
    Model,
    Signature,
    Stage,
    Target,
    TensorSpec,
    TorchGraph,
    Variant,
)
from edgewright_devices.profiles import built_in
from edgewright_devices.roofline import FITTED, ROOFLINE, Coefficients, Spread, read_coefficients, seconds
from edgewright_devices.workload import Work

TARGETS = {target.name: target for target in built_in()}
PI = TARGETS["raspberry-pi-4"]
EXACT = Spread(0.0, 0.0, 1, 1)


def fitted(*, us: float = 0.0, ops: float = 0.0) -> Coefficients:
    efficiency = {"dense": 0.5, "depthwise": 0.1, "other": 1.0}
    return Coefficients(efficiency, us, ops, EXACT, EXACT, EXACT, EXACT, EXACT, "by hand")


def device(*, float32: float = 10.0, int8: float = 40.0, bandwidth: float = 2.0, cores: float = 4.0) -> Target:
    peaks = {"float32": Figure(float32, "GFLOP/s", "x"), "int8": Figure(int8, "GOP/s", "x")}
    memory, moved = Figure(1e9, "B", "x"), Figure(bandwidth, "GB/s", "x")
    return Target("toy", "Toy", "aarch64", memory, peaks, moved, Figure(cores, "cores", "x"))


def work(ops: int, moved: int, *, kind: str = "dense", dtype: str = "float32") -> Work:
    return Work("n", "Conv", kind, dtype, ops // 2, ops, 0, moved)


def graph_file(tmp_path: Path, name: str, body: str, weights: dict[str, np.ndarray]) -> GraphFile:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21, "acme" : 1]> {body}')
    model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in weights.items())
    path = tmp_path / f"{name}.onnx"
    onnx.save(model, path)
    return GraphFile(path, name)


def as_model(graph: GraphFile | TorchGraph, *, batch: int = 1, stages: int = 1) -> Model:
    spec = TensorSpec("x", "float32", ("n", 64))
    variant = Variant("main", tuple(Stage(f"s{i}", graph, ("x",), ("y",)) for i in range(stages)))
    example = {"x": np.zeros((batch, 64), np.float32)}
    return Model("m", Signature((spec,), ()), (variant,), example)


def linear(tmp_path: Path, width: int, *, dtype: str = "float32", batch: int = 1, stages: int = 1) -> Model:
    body = "m (float[n,64] x) => (float[a,b] y) {y = MatMul(x, w)}"
    weights = {"w": np.zeros((64, width), "float32")}
    if dtype == "int8":
        body = """m (float[n,64] x) => (float[a,b] y) {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            e = DequantizeLinear(w, s, z)
            y = MatMul(d, e)
        }"""
        weights = {"w": np.zeros((64, width), "int8"), "s": np.array(0.1, "float32"), "z": np.array(0, "int8")}
    graph = graph_file(tmp_path, f"{dtype}-{width}", body, weights)
    return as_model(graph, batch=batch, stages=stages)


# ------------------------------------------------------------------ the formula


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (work(10**9, 8), 1 / (0.5 * 10)),
        (work(10**9, 8, kind="depthwise"), 1 / (0.1 * 10)),
        (work(10**9, 8, dtype="int8"), 1 / (0.5 * 40)),
        (work(10**9, 8, dtype="float16"), 1 / (0.5 * 10)),
        (work(8, 10**9), 1 / 2),
    ],
)
def test_a_node_takes_what_compute_or_memory_takes(node: Work, expected: float) -> None:
    assert seconds([node], device(), fitted()) == pytest.approx(expected)


def test_every_node_costs_time_and_operations_of_one_core() -> None:
    idle = [work(0, 0), work(0, 0)]
    assert seconds(idle, device(), fitted(us=5)) == pytest.approx(2 * 5e-6)
    assert seconds(idle, device(), fitted(ops=1e6)) == pytest.approx(2 * 1e6 / (10e9 / 4))


amounts = st.integers(0, 10**12)
works = st.builds(
    work,
    amounts,
    amounts,
    kind=st.sampled_from(["dense", "depthwise", "other"]),
    dtype=st.sampled_from(["float32", "float16", "int8"]),
)


@given(st.lists(works), st.lists(works), st.floats(1, 100))
def test_more_work_costs_no_less_and_a_faster_device_no_more(some: list[Work], more: list[Work], by: float) -> None:
    for unit in ("cpu", "gpu"):
        coefficients = read_coefficients(unit)
        base = seconds(some, device(), coefficients)
        assert base <= seconds(some + more, device(), coefficients) * (1 + 1e-12)
        faster = device(float32=10 * by, int8=40 * by, bandwidth=2 * by)
        assert seconds(some, faster, coefficients) <= base * (1 + 1e-12)


@given(st.floats(1e-6, 1e6), st.floats(-3, 0), st.floats(0, 3))
def test_an_interval_holds_its_value(value: float, low: float, high: float) -> None:
    spread = Spread(low, high, 10, 2)
    wider = spread.widened(Spread(-1.0, 1.0, 5, 2))
    assert wider.around(value)[0] <= spread.around(value)[0] <= value
    assert value <= spread.around(value)[1] <= wider.around(value)[1]


# ------------------------------------------------------------------ the coefficients


@pytest.mark.parametrize("unit", ["cpu", "gpu"])
def test_coefficients_say_where_they_come_from(unit: str) -> None:
    coefficients = read_coefficients(unit)
    assert "fit_roofline.py" in coefficients.source
    assert str(coefficients.latency.n) in coefficients.source
    for spread in (coefficients.latency, coefficients.ratio, coefficients.mixed, coefficients.power):
        assert spread.low < 0 < spread.high
        assert spread.n > 100
        assert spread.devices > 2
    assert set(coefficients.efficiency) == {"dense", "depthwise", "other"}
    assert all(0 < share <= 1 for share in coefficients.efficiency.values())


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(TargetError, match=r"no unit 'npu'; allowed: cpu, gpu"):
        read_coefficients("npu", FITTED)


# ------------------------------------------------------------------ predictions


def test_it_is_a_predictor() -> None:
    assert isinstance(ROOFLINE, Predictor)


def test_a_latency_has_value_interval_and_provenance(tmp_path: Path) -> None:
    found = ROOFLINE.predict(linear(tmp_path, 512), PI, "latency")
    coefficients = read_coefficients("cpu")
    assert (found.kind, found.unit, found.instrument) == ("predicted", "ms", "roofline")
    assert found.value is not None
    assert found.interval == coefficients.latency.around(found.value)
    assert found.n == coefficients.latency.n
    assert found.conditions["macs"] == 64 * 512
    assert found.conditions["source"] == coefficients.source


def test_the_batch_of_the_example_counts(tmp_path: Path) -> None:
    macs = [ROOFLINE.predict(linear(tmp_path, 512, batch=n), PI, "latency").conditions["macs"] for n in (1, 8)]
    assert macs == [64 * 512, 8 * 64 * 512]


def test_every_stage_counts(tmp_path: Path) -> None:
    one, two = (ROOFLINE.predict(linear(tmp_path, 512, stages=n), PI, "latency").value for n in (1, 2))
    assert one is not None
    assert two == pytest.approx(2 * one)


def test_energy_is_latency_times_power_with_a_wider_interval(tmp_path: Path) -> None:
    model = linear(tmp_path, 512)
    latency, energy = ROOFLINE.predict(model, PI, "latency"), ROOFLINE.predict(model, PI, "energy")
    assert latency.value is not None
    assert latency.interval is not None
    assert energy.value == pytest.approx(latency.value * PI.power["active_w"].value)
    assert energy.unit == "mJ"
    assert energy.interval is not None
    assert energy.interval[1] / energy.interval[0] > latency.interval[1] / latency.interval[0]
    assert energy.conditions["idle_w"] == PI.power["idle_w"].value
    assert energy.conditions["active_w_source"] == PI.power["active_w"].source


MOBILENET_V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


def mobilenet_v1(tmp_path: Path) -> Model:
    """MobileNet v1 1.0 224 (Howard et al., arXiv:1704.04861, table 1), activations folded in."""
    lines = ["t0 = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(x, w0)"]
    weights = {"w0": np.zeros((32, 3, 3, 3), "float32")}
    taken = 32
    for given_, stride in MOBILENET_V1:
        at = len(lines)
        where = f"strides=[{stride}, {stride}], pads=[1, 1, 1, 1], group={taken}"
        lines += [f"t{at} = Conv<{where}>(t{at - 1}, w{at})", f"t{at + 1} = Conv(t{at}, w{at + 1})"]
        weights |= {f"w{at}": np.zeros((taken, 1, 3, 3), "float32")}
        weights |= {f"w{at + 1}": np.zeros((given_, taken, 1, 1), "float32")}
        taken = given_
    lines += [f"p = GlobalAveragePool(t{len(lines) - 1})", "f = Flatten(p)", "y = Gemm(f, head)"]
    body = "m (float[1,3,224,224] x) => (float[a,b] y) {" + "\n".join(lines) + "}"
    graph = graph_file(tmp_path, "mobilenet", body, weights | {"head": np.zeros((1024, 1000), "float32")})
    return replace(as_model(graph), example={"x": np.zeros((1, 3, 224, 224), np.float32)})


@pytest.mark.parametrize(
    ("name", "published_ms"),
    [
        ("raspberry-pi-4", 58.1),  # MLPerf Inference v2.0, rpi4-armnn-v21.11-neon, p50
        ("raspberry-pi-4", 72.5),  # MLPerf Inference v2.0, rpi4-tflite-v2.7.1-ruy, p50
    ],
)
def test_a_published_latency_lies_in_the_interval(tmp_path: Path, name: str, published_ms: float) -> None:
    found = ROOFLINE.predict(mobilenet_v1(tmp_path), TARGETS[name], "latency")
    assert found.conditions["macs"] == pytest.approx(568.7e6, rel=0.001)
    assert found.interval is not None
    assert found.interval[0] < published_ms < found.interval[1]


# ------------------------------------------------------------------ nothing to say


def test_power_that_nobody_measured_gives_no_energy(tmp_path: Path) -> None:
    for method in (
        ROOFLINE.predict(linear(tmp_path, 8), TARGETS["jetson-orin-nano"], "energy"),
        ROOFLINE.predict_ratio(linear(tmp_path, 8), linear(tmp_path, 9), TARGETS["jetson-orin-nano"], "energy"),
    ):
        assert method.value is None
        assert "gives no power" in method.reason
        assert "power.active_w" in method.reason


def test_another_quantity_is_not_predicted(tmp_path: Path) -> None:
    found = ROOFLINE.predict(linear(tmp_path, 8), PI, "memory")
    assert found.value is None
    assert found.reason == "roofline predicts latency and energy, not memory"


def test_a_torch_model_must_be_lowered_first() -> None:
    found = ROOFLINE.predict(as_model(TorchGraph(object(), "d")), PI, "latency")
    assert found.value is None
    assert "lower it to ONNX first" in found.reason


def test_an_operator_of_unknown_cost_gives_no_prediction(tmp_path: Path) -> None:
    model = as_model(graph_file(tmp_path, "acme", "m (float[n,64] x) => (float[n,64] y) {y = acme.Magic(x)}", {}))
    for found in (
        ROOFLINE.predict(model, PI, "latency"),
        ROOFLINE.predict_ratio(linear(tmp_path, 8), model, PI, "latency"),
    ):
        assert found.value is None
        assert "(Magic)" in found.reason


def test_data_of_unknown_size_is_named(tmp_path: Path) -> None:
    body = "m (float[n,64] x) => (int64[a,b] y) {z = MatMul(x, w)\n y = NonZero(z)}"
    graph = graph_file(tmp_path, "nonzero", body, {"w": np.zeros((64, 8), "float32")})
    found = ROOFLINE.predict(as_model(graph), PI, "latency")
    assert found.value is not None
    assert len(found.conditions["uncounted"]) == 1


# ------------------------------------------------------------------ ratios


def test_a_ratio_is_that_of_the_values(tmp_path: Path) -> None:
    first, other = linear(tmp_path, 4096), linear(tmp_path, 1024)
    values = [ROOFLINE.predict(model, PI, "latency").value for model in (first, other)]
    ratio = ROOFLINE.predict_ratio(first, other, PI, "latency")
    assert values[0] is not None
    assert values[1] is not None
    assert ratio.value == pytest.approx(values[0] / values[1])
    assert ratio.value > 1
    assert ratio.interval == read_coefficients("cpu").ratio.around(ratio.value)


def test_a_pair_is_known_better_than_two_models_apart(tmp_path: Path) -> None:
    coefficients = read_coefficients("cpu")
    apart = math.hypot(coefficients.latency.low, coefficients.latency.high)
    assert coefficients.ratio.high < apart
    assert coefficients.mixed.high < apart
    assert coefficients.ratio.high < coefficients.mixed.high


def test_the_ratio_of_two_dtypes_is_known_less_well(tmp_path: Path) -> None:
    ratio = ROOFLINE.predict_ratio(linear(tmp_path, 4096), linear(tmp_path, 4096, dtype="int8"), PI, "latency")
    assert ratio.value is not None
    assert ratio.interval == read_coefficients("cpu").mixed.around(ratio.value)


def test_a_model_costs_exactly_what_it_costs(tmp_path: Path) -> None:
    ratio = ROOFLINE.predict_ratio(linear(tmp_path, 8), linear(tmp_path, 8), PI, "latency")
    assert (ratio.value, ratio.interval, ratio.kind) == (1.0, (1.0, 1.0), "predicted")


def test_a_ratio_of_energies_has_the_wider_interval(tmp_path: Path) -> None:
    first, other = linear(tmp_path, 4096), linear(tmp_path, 1024)
    latency, energy = (ROOFLINE.predict_ratio(first, other, PI, quantity) for quantity in ("latency", "energy"))
    assert energy.value == latency.value
    assert energy.interval is not None
    assert latency.interval is not None
    assert energy.interval[0] < latency.interval[0] < latency.interval[1] < energy.interval[1]
