"""Fitting the gates of a chain on a bench: scores that were seen, costs measured or predicted, what comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright import onnxkit
from edgewright.bench import Bench
from edgewright.bench import bench as benches
from edgewright.deploying import job
from edgewright.deploying.context import Workbench
from edgewright.deploying.pipeline import refitted
from edgewright.deploying.race import Raced
from edgewright.errors import RefusedError
from edgewright.exits.observe import observe, qualities
from edgewright.exits.settle import settle, unsettled, with_thresholds
from edgewright.gates import depth_of
from edgewright.measuring.measure import Candidate, compare
from edgewright.measuring.presets import PRESETS
from edgewright.measuring.timings import Setting, deepest_of
from edgewright.store import Store
from edgewright.task import TOP1, Task, top1
from edgewright.task.metrics import top1_each
from edgewright.testing import Rig
from edgewright.types import Gate, Goal, Model, Plan, Signature, Stage, TensorSpec, Variant
from edgewright_plugins.gates import GATES, Params

WIDTH, LAYERS, CLASSES, EXAMPLES = 192, 10, 5, 2400


def link(taken: str, carried: str, seed: int, head: int) -> onnx.ModelProto:
    """Ten layers that each change little, and a head: stages that share one answer alike."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(head)
    weights = {f"w{i}": rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) * 0.006 for i in range(LAYERS)}
    weights["head"] = shared.standard_normal((WIDTH, CLASSES)).astype(np.float32) * 0.1
    nodes, x = [], taken
    for i in range(LAYERS):
        done = carried if carried and i == LAYERS - 1 else f"x{i}"
        nodes += [helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"]), helper.make_node("Add", [x, f"m{i}"], [done])]
        x = done
    nodes.append(helper.make_node("MatMul", [x, "head"], ["logits"]))
    given = [("logits", [1, CLASSES])]
    if carried:
        nodes.append(helper.make_node("Softmax", ["logits"], ["shares"], axis=-1))
        nodes.append(helper.make_node("ReduceMax", ["shares"], ["sure"], axes=[-1], keepdims=0))
        given += [(carried, [1, WIDTH]), ("sure", [1])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given]
    entry = helper.make_tensor_value_info(taken, TensorProto.FLOAT, [1, WIDTH])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "link", [entry], values, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def chain(store: Store, heads: tuple[int, int, int] = (9, 9, 9)) -> Model:
    """Three stages from `x` float32 [1, 192] to `logits` [1, 5], gates without thresholds."""
    links = (("x", "h1", 1), ("h1", "h2", 2), ("h2", "", 3))
    graphs = [store.keep(onnxkit.pack(link(*each, head))) for each, head in zip(links, heads, strict=True)]
    gate = Gate("sure", "max-probability")
    stages = (
        Stage("front", graphs[0], ("x",), ("logits",), ("h1",), gate),
        Stage("middle", graphs[1], (), ("logits",), ("h2",), gate),
        Stage("back", graphs[2], (), ("logits",)),
    )
    ends = (TensorSpec("x", "float32", (1, WIDTH)),), (TensorSpec("logits", "float32", (1, CLASSES)),)
    return Model("chain", Signature(*ends), (Variant("main", stages),), {"x": np.zeros((1, WIDTH), np.float32)})


def task_of(model: Model) -> Task:
    """Noise, labelled by the last stage."""
    x = np.random.default_rng(5).standard_normal((EXAMPLES, WIDTH)).astype(np.float32)
    found = onnxkit.run_stages(model.variants[0], [{"x": row[None]} for row in x])
    labels = np.array([int(each["logits"].argmax()) for each in found])
    return Task.from_arrays({"x": x}, labels, name="noise", metric=TOP1, score=top1, each=top1_each)


@pytest.fixture(scope="module")
def bench(rig: Rig) -> Bench:
    """A chain of three stages on this host; what it costs is predicted, and so the same on any day."""
    model = chain(rig.store)
    return replace(rig.benches["conv"], original=model, reference=model, task=task_of(model))


@pytest.fixture
def measuring(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The same, with its stages timed for a part of the usual time."""
    monkeypatch.setattr(benches, "CALIBRATE_S", 0.2)
    return replace(bench, device=bench.host)


def aimed(model: Model, goal: Goal) -> Model:
    return replace(model, variants=(replace(model.variants[0], goal=goal),))


@pytest.mark.parametrize("costs", ["bench", "measuring"])
def test_thresholds_are_fitted_and_remembered(costs: str, request: pytest.FixtureRequest) -> None:
    bench: Bench = request.getfixturevalue(costs)
    found = settle(aimed(bench.original, Goal(drop=0.05)), bench)
    assert unsettled(bench.original)
    assert not unsettled(found.model)
    assert found.model.variants[0].goal == Goal(drop=0.05)
    assert [cost.stage for cost in found.costs] == [stage.name for stage in found.model.stages]
    assert "gates fitted on 960 examples (calibration and selection)" in found.notes[0]
    again = settle(aimed(bench.original, Goal(drop=0.05)), bench)
    assert again.model.digest == found.model.digest


def test_the_chain_keeps_to_its_goal_where_it_was_fitted(bench: Bench) -> None:
    found = settle(aimed(bench.original, Goal(drop=0.05)), bench)
    for split in ("calibration", "selection"):
        assert bench.score(bench.outputs(found.model, split), split) >= 93


def test_rows_leave_early_where_much_may_be_lost(bench: Bench) -> None:
    found = settle(aimed(bench.original, Goal(drop=0.3)), bench)
    assert early(found.model, bench) > 0.5, "the first stage costs half of the whole at most, and loses 24 points"


def early(model: Model, bench: Bench) -> float:
    """The share of rows that leave before the end."""
    left = bench.deployed_exits(model, "selection", bench.plan(model))
    return float((left < len(model.stages) - 1).mean())


def test_exits_are_where_scores_say(bench: Bench) -> None:
    model = with_thresholds(bench.original, [0.5, 0.6])
    scores = np.stack([each["sure"] for each in bench.explored(model, "test")[:-1]])
    left = bench.deployed_exits(model, "test", bench.plan(model))
    np.testing.assert_array_equal(left, depth_of(scores, [0.5, 0.6]))
    assert set(left) == {0, 1, 2}


def test_an_unreachable_goal_leaves_one_graph_without_gates(bench: Bench) -> None:
    astray = chain(bench.store, heads=(7, 8, 9))
    found = settle(aimed(astray, Goal(drop=0.01)), bench)
    assert len(found.model.stages) == 1
    assert astray.variants[0].gated
    assert not found.model.variants[0].gated, "nothing is left to be fitted again"
    assert "dropped, because they do not earn their place: front, middle" in found.notes
    want, got = (bench.outputs(model, "test")["logits"] for model in (astray, found.model))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_where_no_exit_is_left_nothing_is_fitted_again(bench: Bench) -> None:
    """Also when the race chose another plan than the one that costs were measured under."""
    found = settle(aimed(chain(bench.store, heads=(7, 8, 9)), Goal(drop=0.01)), bench)
    candidate = job.Candidate("astray", (), found.model, costs=found.costs)
    nothing: Any = None
    raced = Raced(Plan(()), nothing)
    assert raced.plan != bench.plan(found.model)
    assert refitted(candidate, raced, bench, nothing) is candidate


def test_a_cost_that_is_asked_for_is_reached(bench: Bench) -> None:
    dear, cheap = (settle(aimed(bench.original, Goal(cost=share)), bench) for share in (0.9, 0.5))
    assert cheap.costs
    assert early(cheap.model, bench) >= early(dear.model, bench)


def test_without_a_score_per_example_nothing_can_be_fitted(bench: Bench) -> None:
    regression = replace(bench, task=replace(bench.task, each=None))
    assert observe(bench.original, regression).quality[-1].all(), "the last answer agrees with itself"
    with pytest.raises(RefusedError, match="tells nothing of single examples"):
        qualities([{"map": np.zeros((2, 3, 4, 4), np.float32)}], regression, "selection")


def test_stages_are_timed_in_the_running_chain(measuring: Bench) -> None:
    costs = measuring.stage_costs(measuring.original)
    assert [cost.stage for cost in costs] == ["front", "middle", "back"]
    assert all(0 < cost.median_ms <= cost.high_ms for cost in costs)
    assert costs == measuring.stage_costs(measuring.original), "measured once, and kept"


def test_a_settled_chain_is_compared_by_its_mean(bench: Bench) -> None:
    chain = with_thresholds(bench.original, [0.4, 0.6])
    deep = with_thresholds(bench.original, [None, None])
    trials = {
        name: Candidate(bench.trial(model, bench.plan(model))) for name, model in (("deep", deep), ("gated", chain))
    }
    preset = replace(PRESETS["quick"], seconds=0.2, runs=400, rounds=2)
    found = compare(bench.host, trials, preset, reference="deep")
    gated = found["gated"]
    assert gated.typical is gated.latency["mean"]
    assert gated.deepest is not None
    assert gated.deepest.value is not None
    median = gated.latency["p50"].value
    assert median is not None
    assert gated.deepest.value > median, "slower than half of all runs"
    assert 0.05 < gated.deepest.conditions["share"] < 0.7
    assert gated.ratio is not None
    assert gated.ratio.conditions["of"] == "mean"
    assert gated.ratio.value is not None
    assert gated.ratio.value > 1.1, "nearly twice as fast: a fifth of the rows goes to the end"


def test_gates_forgets_thresholds_so_that_they_are_fitted_anew(bench: Bench) -> None:
    fitted = with_thresholds(bench.original, [0.5, 0.6])
    assert GATES.check(fitted, bench.target) is None
    refusal = GATES.check(
        replace(fitted, variants=(replace(fitted.variants[0], stages=fitted.stages[-1:]),)), bench.target
    )
    assert refusal is not None
    assert "no gates to fit" in refusal.reason
    context = Workbench(bench, "gates")
    opened = GATES.apply(fitted, Params(drop=2.0), context)
    assert unsettled(opened)
    assert opened.variants[0].goal == Goal(drop=0.02)
    assert GATES.apply(fitted, Params(cost=0.5), context).variants[0].goal == Goal(cost=0.5)
    assert not unsettled(context.settled(opened))


def test_nobody_at_the_end_is_not_told_as_the_end() -> None:
    setting = Setting("measured", {})
    found = deepest_of(setting, [1_000_000, 2_000_000], [0, 1], 2)
    assert found is not None
    assert found.value is None
    assert found.reason == "none of 2 runs went to the end"
    inside = deepest_of(setting, [1_000_000, 2_000_000], [0, 1], 0)
    assert inside is not None
    assert inside.value == 2.0
    assert deepest_of(setting, [1_000_000], [], 0) is None
