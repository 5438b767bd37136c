"""`nested-if`: a chain becomes one file that leaves where the chain left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgewright import onnxkit
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.exits.settle import with_thresholds
from edgewright.gates import depth_of
from edgewright.protocols import NoParams
from edgewright.registry import TRANSFORMS, Registry
from edgewright.types import Goal, Model, Stage, TensorSpec
from edgewright_plugins.nested_if import NESTED_IF


def apply(model: Model, bench: Bench) -> Model:
    assert NESTED_IF.check(model, bench.target) is None
    return NESTED_IF.apply(model, NoParams(), Workbench(bench, "nested"))


def gates(model: Model, bench: Bench, count: int = 200) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Scores [gates, rows] of the chain when nothing leaves, and what the model takes."""
    feeds = [dict(feed) for feed in Workbench(bench, "feed").feed(model, "selection", limit=count)]
    scores: list[list[float]] = []
    for feed in feeds:
        values, found = [feed["image"]], []
        for stage in model.variants[0].stages:
            (results,) = onnxkit.run(stage.graph.path, [dict(zip(takes(stage), values, strict=True))])
            values = results[1 : 1 + len(stage.carry)]
            found += [float(results[-1][0])] if stage.gate else []
        scores.append(found)
    return np.array(scores, np.float32).T, feeds


def takes(stage: Stage) -> list[str]:
    return [value.name for value in onnxkit.read(stage.graph).graph.input]


def test_the_file_leaves_where_the_chain_does(bench: Bench) -> None:
    chain = bench.original
    scores, feeds = gates(chain, bench)
    thresholds = [float(np.quantile(row, 0.6)) for row in scores]
    made = apply(with_thresholds(chain, thresholds), bench)
    (stage,) = made.variants[0].stages
    assert (stage.inputs, stage.outputs, stage.exits, stage.gate) == (("image",), ("logits",), "exits", None)
    assert made.variants[0].gated
    exits = [int(found[1][0]) for found in onnxkit.run(stage.graph.path, feeds)]
    assert exits == depth_of(scores, thresholds).tolist()
    assert set(exits) == {0, 1, 2}
    assert made.history[-1].details == {"thresholds": {"front": thresholds[0], "middle": thresholds[1]}}


def test_rows_that_were_free_are_one(bench: Bench) -> None:
    made = apply(with_thresholds(bench.original, [0.5, 0.5]), bench)
    assert made.signature.inputs == (TensorSpec("image", "float32", (1, 3, 8, 8)),)
    ends = onnxkit.read(made.graph).graph
    assert [onnxkit.tensor_spec(value) for value in (*ends.input, *ends.output)] == [
        *made.signature.inputs,
        *made.signature.outputs,
        TensorSpec("exits", "int64", (1,)),
    ]


def test_gates_without_thresholds_are_fitted_to_the_goal_first(bench: Bench) -> None:
    goal = Goal(drop=0.5)
    chain = replace(bench.original, variants=(replace(bench.original.variants[0], goal=goal),))
    made = apply(chain, bench)
    assert made.variants[0].goal == goal
    assert made.variants[0].stages[0].exits == "exits"
    assert None not in made.history[-1].details["thresholds"].values()


def test_it_declines_when_no_exit_earns_its_place(bench: Bench) -> None:
    goal = Goal(drop=0.0)
    chain = replace(bench.original, variants=(replace(bench.original.variants[0], goal=goal),))
    made = apply(chain, bench)
    assert made.history[-1].declined
    assert not made.variants[0].gated


def test_an_output_of_the_model_keeps_its_name(bench: Bench) -> None:
    chain = with_thresholds(bench.original, [0.5, 0.5])
    other = TensorSpec("exits", "float32", ("rows", 5))
    stages = tuple(renamed(stage, bench) for stage in chain.variants[0].stages)
    signature = replace(chain.signature, outputs=(other,))
    made = apply(replace(chain, signature=signature, variants=(replace(chain.variants[0], stages=stages),)), bench)
    assert made.variants[0].stages[0].returns == ("exits", "exits_")


def renamed(stage: Stage, bench: Bench) -> Stage:
    """The stage with its output called `exits`."""
    proto = onnxkit.read(stage.graph)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = ["exits" if name == "logits" else name for name in names]
    proto.graph.output[0].name = "exits"
    return replace(stage, graph=bench.store.keep(onnxkit.pack(proto)), outputs=("exits",))


def test_it_says_what_it_cannot_work_on(bench: Bench) -> None:
    chain = bench.original
    plain = replace(chain, variants=(replace(chain.variants[0], stages=chain.variants[0].stages[-1:]),))
    refusal = NESTED_IF.check(plain, bench.target)
    assert refusal is not None
    assert "chain is no chain of stages with gates" in refusal.reason
    rows = replace(chain.signature, inputs=(TensorSpec("image", "float32", (8, 3, 8, 8)),))
    refusal = NESTED_IF.check(replace(chain, signature=rows), bench.target)
    assert refusal is not None
    assert "image float32 [8, 3, 8, 8] has more than one; deploy with --batch 1" in refusal.reason


def test_it_is_offered_and_gets_the_whole_chain() -> None:
    offer = Registry().get(TRANSFORMS, "nested-if")
    assert offer.value is NESTED_IF
    assert NESTED_IF.whole
