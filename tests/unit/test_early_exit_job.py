"""The method `early-exit` under a real context: decided once, replayed, trained, revived, lowered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.deploying.context import Workbench
from edgewright.deploying.trained import revived, sealed, shelved
from edgewright.errors import RecipeError, RefusedError
from edgewright.testing import Rig
from edgewright.types import Goal, Model, State

torch = pytest.importorskip("torch")

from edgewright_plugins.early_exit import EARLY_EXIT, Params  # noqa: E402
from edgewright_plugins.early_exit.choice import Choice  # noqa: E402
from edgewright_plugins.early_exit.weigh import places  # noqa: E402

QUICK = {"epochs": 2, "head_epochs": 1, "batch": 16}


def subject(rig: Rig, key: str) -> tuple[Model, Workbench]:
    """Three convolutions that do not know their task yet."""
    return rig.models("torch")["torch"], rig.context("torch", key)


def worked(model: Model, context: Workbench, **asked: Any) -> Model:
    decision = EARLY_EXIT.decide(model, Params(**QUICK, **asked), context)
    return EARLY_EXIT.fit(EARLY_EXIT.rewrite(model, decision), decision, context)


def weights(model: Model) -> dict[str, Any]:
    return model.stages[0].graph.module.state_dict()


def answers(model: Model, x: Any) -> list[Any]:
    net = model.stages[0].graph.module.chain.net
    with torch.no_grad():
        return list(net(x).logits)


def test_it_makes_a_chain_that_can_be_built_again(rig):
    model, context = subject(rig, "again")
    before = {name: tensor.clone() for name, tensor in model.graph.module.state_dict().items()}
    decision = EARLY_EXIT.decide(model, Params(at=(1, 2), **QUICK), context)
    assert json.loads(json.dumps(decision)) == decision
    rewritten = EARLY_EXIT.rewrite(model, decision)
    fitted = EARLY_EXIT.fit(rewritten, decision, context)
    assert [stage.name for stage in fitted.stages] == ["exit1", "exit2", "final"]
    assert fitted.variants[0].goal == Goal(drop=0.005)
    assert [stage.gate and stage.gate.threshold for stage in fitted.stages] == [None, None, None]
    again = revived(shelved(fitted, context), EARLY_EXIT.rewrite(model, decision), "key")
    assert again.digest == sealed(fitted, "key").digest
    x = torch.randn(2, 3, 8, 8)
    for found, wanted in zip(answers(again, x), answers(fitted, x), strict=True):
        torch.testing.assert_close(found, wanted)
    moved = weights(fitted)
    assert not all(torch.equal(tensor, moved[name]) for name, tensor in weights(rewritten).items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.graph.module.state_dict().items())


def test_it_says_where_exits_stand_and_what_they_are_worth(rig):
    model, context = subject(rig, "notes")
    step = worked(model, context, at=(1, 2)).history[-1]
    placed, trained, softened, judged = step.notes
    assert placed == "exits after blocks 1, 2; heads: linear"
    assert trained.startswith("both: loss ")
    assert "; heads: loss " in trained
    assert softened.count(".") == 2
    assert "exit1 " in judged
    assert "final " in judged


def test_heads_alone_leave_the_network_as_it_was(rig):
    model, context = subject(rig, "frozen")
    fitted = worked(model, context, at=(2,), train="heads", gate="patience", cost=0.6)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(answers(fitted, x)[-1], model.graph.module(x))
    assert fitted.variants[0].goal == Goal(cost=0.6)
    assert fitted.stages[0].gate.rule == "patience"
    assert not any("temperatures" in note for note in fitted.history[-1].notes)


def test_training_that_has_ended_is_not_done_again(rig):
    model, context = subject(rig, "resumed")
    first = worked(model, context, at=(2,))
    kept = {path: path.stat().st_mtime_ns for path in Path(context.scratch).rglob("training.pt")}
    assert len(kept) == 2
    second = worked(model, context, at=(2,))
    assert all(torch.equal(tensor, weights(second)[name]) for name, tensor in weights(first).items())
    assert first.history[-1] == second.history[-1]


def test_places_follow_from_predicted_costs_and_are_found_once(rig):
    model, context = subject(rig, "places")
    decision = EARLY_EXIT.decide(model, Params(exits=1, **QUICK), context)
    assert decision["blocks"] in ([1], [2])
    assert 0 < decision["shares"][0] < 1
    assert EARLY_EXIT.decide(model, Params(exits=1, **QUICK), context) == decision


def test_a_block_that_is_not_there_is_refused(rig):
    model, context = subject(rig, "there")
    with pytest.raises(RecipeError, match=r"at=3 is no block to leave behind; the network has 3 blocks.* after 1, 2"):
        EARLY_EXIT.decide(model, Params(at=(3,)), context)


def test_networks_without_a_block_to_leave_behind_are_refused(rig):
    from edgewright.torchkit.anatomy import Anatomy, examine

    model, context = subject(rig, "repeated")
    found = examine(model.graph.module, [torch.zeros(1, 3, 8, 8)])
    repeated = Anatomy(found.stem, tuple(replace(block, calls=2) for block in found.blocks), found.head, found.stages)
    with pytest.raises(RefusedError, match="no block to leave behind"):
        places(model, repeated, Choice(Params(), "linear", ()), context)


def test_what_is_no_classifier_of_one_stage_is_refused_before(rig):
    model, context = subject(rig, "check")
    assert EARLY_EXIT.check(model, rig.target) is None
    chain = EARLY_EXIT.rewrite(model, EARLY_EXIT.decide(model, Params(at=(1,)), context))
    spec = model.signature.outputs[0]
    boxes = replace(model.signature, outputs=(replace(spec, shape=(1, 20, 5)),))
    recurrent = replace(model.signature, state=(State("output", "input"),))
    for refused, reason in (
        (chain, "has 2 stages already"),
        (replace(model, signature=boxes), r"one output [n, classes]"),
        (replace(model, signature=replace(model.signature, outputs=(spec, spec))), "one output"),
        (replace(model, signature=recurrent), "recurrent"),
    ):
        assert reason in EARLY_EXIT.check(refused, rig.target).reason


def test_the_lowered_chain_answers_the_same(rig):
    model, context = subject(rig, "lowered")
    fitted = worked(model, context, at=(1,))
    lowered = context.lower(fitted)
    assert [stage.returns for stage in lowered.stages] == [("output", "hidden_1", "score"), ("output",)]
    assert lowered.variants[0].goal == fitted.variants[0].goal
    outputs = context.outputs(lowered, limit=8)
    inputs = np.concatenate([feed["input"] for feed in context.feed(model, "selection", limit=8)])
    wanted = answers(fitted, torch.from_numpy(inputs))[-1].numpy()
    np.testing.assert_allclose(outputs["output"], wanted, rtol=1e-4, atol=1e-5)
