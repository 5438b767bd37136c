"""What `quantize` decides, with the engine's own context: scores on this host, costs predicted or measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from edgewright import onnxkit
from edgewright.asking.bounds import parse_bounds
from edgewright.deploying.context import Workbench
from edgewright.errors import RecipeError, RefusedError
from edgewright.measuring.presets import PRESETS, Preset
from edgewright.store import key_of
from edgewright.task import Task
from edgewright.testing import Rig
from edgewright.types import Metric, Model, Signature, Stage, Variant
from edgewright_plugins.qdq.place import Scheme
from edgewright_plugins.quantize import QUANTIZE, Params
from edgewright_plugins.quantize.accuracy import lowest_score, settle
from edgewright_plugins.quantize.job import Trial, start
from edgewright_plugins.quantize.speed import by_speed, without_slow


def put(rig: Rig, proto: onnx.ModelProto) -> Model:
    """The graph as a model in the rig's store."""
    inputs, outputs = (
        tuple(onnxkit.tensor_spec(value) for value in values) for values in (proto.graph.input, proto.graph.output)
    )
    graph = rig.store.keep(onnxkit.pack(proto), "onnx")
    stage = Stage("main", graph, tuple(s.name for s in inputs), tuple(s.name for s in outputs))
    return Model(proto.graph.name, Signature(inputs, outputs), (Variant("main", (stage,)),), {})


def own_answers(proto: onnx.ModelProto, count: int) -> Task:
    """Noise, labelled with what the graph itself says."""
    spec = onnxkit.tensor_spec(proto.graph.input[0])
    shape = [int(size) for size in spec.shape[1:]]
    x = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    answers = np.concatenate([y[0] for y in onnxkit.run(onnxkit.pack(proto), [{spec.name: row[None]} for row in x])])
    metric = Metric("top-1 accuracy", "%", full_scale=100.0)

    def score(outputs: Any, labels: Any) -> float:
        (found,) = outputs.values()
        return 100.0 * float(np.mean(found.argmax(1) == labels))

    return Task.from_arrays({spec.name: x}, answers.argmax(1), metric=metric, score=score)


def work(rig: Rig, model: Model, task: Task, name: str, told: list[str] | None = None) -> Workbench:
    bench = next(iter(rig.benches.values()))
    env = replace(bench.env, progress=lambda message, done, total: told.append(message) if told is not None else None)
    return Workbench(replace(bench, env=env, original=model, reference=model, task=task), key_of("quantize", name))


def classifier() -> onnx.ModelProto:
    """A stack of linear layers in which `two` puts out one value that drowns all others."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        stack (float[1, 24] x) => (float[1, 6] y) {
            [one] a = Gemm(x, w0)
            [relu] r = Relu(a)
            [two] b = Gemm(r, w1)
            [three] c = Gemm(b, w2)
            [four] y = Gemm(c, w3)
        }"""
    )
    rng = np.random.default_rng(3)
    sizes = {"w0": (24, 24), "w1": (24, 24), "w2": (24, 24), "w3": (24, 6)}
    weights = {name: (rng.standard_normal(size) / 5).astype(np.float32) for name, size in sizes.items()}
    weights["w1"][:, 5] *= 400
    weights["w2"][5] /= 400
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(w, name) for name, w in weights.items())
    return proto


def operators(model: Model) -> dict[str, int]:
    return onnxkit.operators(onnxkit.read(model.graph))


# ------------------------------------------------------------------ the whole step


@pytest.mark.parametrize("mode", ["static", "static-layers", "dynamic"])
def test_a_forced_mode_is_kept_and_says_its_price(rig: Rig, mode: str):
    model = rig.models("onnx")["attention"]
    result = QUANTIZE.apply(model, Params(mode=mode, drop=1.0), rig.context("attention", mode))
    step = result.history[-1]
    assert (step.name, len(result.history)) == ("quantize", len(model.history) + 1)
    assert step.details["scheme"].startswith(mode)
    assert any(note.startswith(f"chosen: {mode}") for note in step.notes)
    assert ("MatMulInteger" if mode == "dynamic" else "QuantizeLinear") in operators(result)
    assert result.signature == model.signature


def test_what_is_found_once_is_not_looked_for_again(rig: Rig):
    proto = classifier()
    model, task = put(rig, proto), own_answers(proto, 200)
    first, second = list[str](), list[str]()
    params = Params(mode="static", drop=1.0)
    one = QUANTIZE.apply(model, params, work(rig, model, task, "resume", first))
    two = QUANTIZE.apply(model, params, work(rig, model, task, "resume", second))
    assert one.digest == two.digest
    assert "quantize: calibrating" in first
    assert second == ["quantize: preparing"]


@pytest.mark.slow
def test_where_int8_is_slower_everywhere_the_model_is_left_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """Two products are less work than to round their sum: int8 has 0.1 to 0.3 of the speed."""
    monkeypatch.setitem(PRESETS, "quick", Preset(name="quick", seconds=0.1, runs=30, rounds=2))
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        wide (float[1, 2] x) => (float[1, 32768] y) { [fc] y = Gemm(x, w) }"""
    )
    w = np.random.default_rng(0).standard_normal((2, 32768)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    model, task = put(rig, proto), own_answers(proto, 40)
    context = work(rig, model, task, "wide")
    context = replace(context, bench=replace(context.bench, device=context.bench.host))
    result = QUANTIZE.apply(model, Params(activations="u8"), context)
    assert result.digest == model.digest
    step = result.history[-1]
    assert step.details["scheme"] is None
    assert "nothing gained" in step.notes[-1]
    assert {row["scheme"].split()[0] for row in step.details["race"]} == {"static", "static-layers", "dynamic"}
    assert all(row["ratio"] < 1 for row in step.details["race"])


def test_kept_nodes_and_forced_ranges_are_obeyed(rig: Rig):
    model = rig.models("onnx")["conv"]
    params = Params(mode="static", activations="s8", range="percentile", keep=("conv1",), drop=1.0)
    step = QUANTIZE.apply(model, params, rig.context("conv", "kept")).history[-1]
    assert step.details["ranges"] == "percentile"
    assert step.details["kept_float"] == ["conv1"]
    assert {row["scheme"].split(" with")[0] for row in step.details["race"]} == {"static s8"}


def test_a_node_that_is_not_there_is_named_with_its_nearest(rig: Rig):
    with pytest.raises(RecipeError, match=r"keep='conv_1' is no node of conv; the nearest are conv1"):
        QUANTIZE.apply(rig.models("onnx")["conv"], Params(keep=("conv_1",)), rig.context("conv", "typo"))


def test_a_mode_that_has_nothing_to_do_is_refused(rig: Rig):
    model = rig.models("onnx")["conv"]
    with pytest.raises(RefusedError, match="no node of conv is left for mode=dynamic"):
        QUANTIZE.apply(model, Params(mode="dynamic", keep=("head",)), rig.context("conv", "nothing"))


# ------------------------------------------------------------------ check


def test_check_refuses_what_it_cannot_do(rig: Rig):
    model = rig.models("onnx")["conv"]
    assert QUANTIZE.check(model, rig.target) is None
    int8 = QUANTIZE.apply(model, Params(mode="static", drop=1.0), rig.context("conv", "again"))
    refusal = QUANTIZE.check(int8, rig.target)
    assert refusal is not None
    assert "quantised already" in refusal.reason

    relu = """<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }"""
    refusal = QUANTIZE.check(put(rig, onnx.parser.parse_model(relu)), rig.target)
    assert refusal is not None
    assert "no Conv or Gemm or MatMul" in refusal.reason


# ------------------------------------------------------------------ accuracy


def test_the_layers_that_cost_the_metric_go_back_to_float(rig: Rig):
    proto = classifier()
    model, task = put(rig, proto), own_answers(proto, 1200)
    job = start(model, work(rig, model, task, "put back"), methods=("min-max",), examples=64)
    params = Params(drop=0.02)
    floor = lowest_score(job, params)
    plain = job.score(Scheme("static"), "min-max")
    assert floor == pytest.approx(98.0)
    assert plain is not None
    assert plain < floor

    outcome = settle(job, Scheme("static"), params)
    assert outcome is not None
    assert 0 < len(outcome.scheme.kept) < 4
    assert outcome.scheme.kept & {"two", "three"}
    score = job.score(outcome.scheme, "min-max")
    assert score is not None
    assert score >= floor
    assert len(outcome.details["sensitivity"]) == 4
    assert outcome.notes[-1].startswith("put back to float for accuracy: ")


def test_a_loss_that_is_allowed_puts_nothing_back(rig: Rig):
    proto = classifier()
    model, task = put(rig, proto), own_answers(proto, 300)
    job = start(model, work(rig, model, task, "allowed"), methods=("min-max", "mse"), examples=16)
    outcome = settle(job, Scheme("static"), Params(drop=1.0))
    assert outcome is not None
    assert outcome.scheme == Scheme("static")
    assert outcome.method in ("min-max", "mse")


def test_the_bound_counts_from_the_original(rig: Rig):
    """`--max-drop` is 1 % here; a model that has lost more already may lose 1 % from where it stands."""
    proto = classifier()
    task, model = own_answers(proto, 1200), put(rig, proto)
    worse = onnx.ModelProto()
    worse.CopyFrom(proto)
    last = next(t for t in worse.graph.initializer if t.name == "w3")
    rng = np.random.default_rng(0)
    noisy = onnx.numpy_helper.to_array(last) + (rng.standard_normal((24, 6)) / 10).astype(np.float32)
    last.CopyFrom(onnx.numpy_helper.from_array(noisy, "w3"))
    lost = put(rig, worse)
    context = work(rig, model, task, "bound")
    assert context.max_drop == pytest.approx(0.01)
    assert lowest_score(start(model, context, methods=("min-max",), examples=4), Params()) == pytest.approx(99.0)
    job = start(lost, context, methods=("min-max",), examples=4)
    now = job.score_of(lost)
    assert now is not None
    assert now < 99.0
    assert lowest_score(job, Params()) == pytest.approx(now - 1.0)


def test_with_max_drop_off_accuracy_binds_nothing(rig: Rig):
    proto = classifier()
    context = work(rig, put(rig, proto), own_answers(proto, 100), "off")
    bench = context.bench
    free = replace(bench, recipe=replace(bench.recipe, bounds=parse_bounds({"max_drop": "off"})))
    job = start(put(rig, proto), replace(context, bench=free), methods=("min-max",), examples=4)
    assert lowest_score(job, Params()) is None
    assert lowest_score(job, Params(drop=0.02)) is not None


# ------------------------------------------------------------------ speed


def trial(scheme: Scheme, ratio: float | None, low: float = 0.0, kind: str = "measured") -> Trial:
    return Trial(scheme, ratio, (low, ratio or 0.0), "" if ratio else "no device", kind)


def test_by_speed_takes_the_fastest_of_each_kind_that_is_faster_for_sure():
    fast, faster = Scheme("static"), Scheme("static", kept=frozenset({"a"}))
    trials = [
        trial(fast, 1.5, 1.4),
        trial(Scheme("static-layers"), 1.3, 0.9),
        trial(faster, 1.8, 1.7),
        trial(Scheme("dynamic"), 2.0, 1.9),
    ]
    assert [t.scheme for t in by_speed(trials, forced=False)] == [Scheme("dynamic"), faster]
    assert [t.ratio for t in by_speed(trials[:2], forced=True)] == [1.5, 1.3]
    assert by_speed([trial(fast, 0.9, 0.8)], forced=False) == []


def test_a_prediction_counts_by_its_value():
    assert trial(Scheme("static"), 1.5, 0.5, kind="predicted").faster
    assert not trial(Scheme("static"), 1.5, 0.5).faster


def test_where_nothing_is_known_the_first_scheme_stands():
    trials = [trial(Scheme("static"), None), trial(Scheme("dynamic"), None)]
    assert by_speed(trials, forced=False) == trials[:1]
    assert str(trials[0]) == "static u8 unknown (no device)"


def test_without_a_device_no_node_is_known_to_be_slow(rig: Rig):
    proto = classifier()
    model = put(rig, proto)
    job = start(model, work(rig, model, own_answers(proto, 100), "no profile"), methods=("min-max",), examples=4)
    assert without_slow(job, Scheme("static")) == []
