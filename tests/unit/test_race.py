"""The race between forms: what is quicker and right ships, and what is wrong or broken is told and left out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from edgewright.bench import Bench
from edgewright.bundle import open_bundle
from edgewright.deploying.race import race
from edgewright.registry import Registry, Source, installed
from edgewright.testing import Rig
from edgewright.types import GraphFile, Model, Signature, Stage, TensorSpec, Variant

FORMS = """
from dataclasses import replace
import numpy as np
import onnx
import onnx.parser
from edgewright.bench import stage_artifacts
from edgewright.errors import RefusedError
from edgewright.types import Refusal

EDGEWRIGHT_API = 1

def without_detours(proto):
    into = {}
    for node in list(proto.graph.node):
        if node.op_type == "Neg":
            into[node.output[0]] = into.get(node.input[0], node.input[0])
            proto.graph.node.remove(node)
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = into.get(name, name)
    return proto.SerializeToString()

def of_another_scale(proto):
    next(iter(proto.graph.initializer)).CopyFrom(
        onnx.numpy_helper.from_array(3 * onnx.numpy_helper.to_array(proto.graph.initializer[0]), proto.graph.initializer[0].name)
    )
    return proto.SerializeToString()

class Form:
    format = "onnx"
    def __init__(self, name, write):
        self.name, self.write = name, write
    def check(self, model, target):
        return Refusal("it is shy") if self.name == "shy" else None
    def export(self, model, context):
        (usual,) = stage_artifacts(model)
        file = context.keep(self.write(onnx.load(str(usual.path))))
        named = {"name": f"{usual.name}-{self.name}", "size": file.path.stat().st_size}
        return [replace(usual, path=file.path, digest=file.digest, **named)]

def edgewright_exporters():
    return (Form("lean", without_detours), Form("wrong", of_another_scale), Form("torn", lambda proto: b"torn"),
            Form("shy", None))
"""  # noqa: E501 - a module of its own


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rig: Rig) -> Iterator[Bench]:
    """With a network that turns its input round four hundred times, and exporters with and without that."""
    (tmp_path / "forms_of_test.py").write_text(FORMS)
    monkeypatch.syspath_prepend(tmp_path)
    source = Source("forms", "edgewright-forms", "1", partial(importlib.import_module, "forms_of_test"))
    usual = rig.benches["conv"]
    bench = replace(
        usual,
        env=replace(usual.env, registry=Registry([*installed(), source])),
        recipe=replace(usual.recipe, exporters=("onnx", "lean", "wrong", "torn", "shy"), runtimes=("ort", "null")),
        device=usual.host,
    )
    model = with_detours(bench)
    yield replace(bench, original=model, reference=model)
    sys.modules.pop("forms_of_test")


def with_detours(bench: Bench) -> Model:
    """The network behind four hundred changes of sign."""
    graph = bench.reference.graph
    assert isinstance(graph, GraphFile)
    proto = onnx.load(str(graph.path))
    first = proto.graph.input[0].name
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            if name == first:
                node.input[position] = "turned400"
    names = [first, *(f"turned{number}" for number in range(1, 401))]
    turns = [onnx.helper.make_node("Neg", [a], [b]) for a, b in zip(names, names[1:], strict=False)]
    nodes = [*turns, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    stage = replace(bench.reference.stages[0], graph=bench.store.keep(proto.SerializeToString()))
    variant = replace(bench.reference.variants[0], stages=(stage,))
    return replace(bench.reference, variants=(variant,))


def test_the_quicker_form_ships_and_the_others_say_why_not(bench: Bench) -> None:
    found = race({"original": bench.reference}, bench)["original"]
    assert [artifact.name for artifact in found.plan.artifacts] == ["main-lean"]
    assert found.cost.ratio.value is not None
    assert found.cost.ratio.value > 1.2
    assert [each.form for each in found.entrants if each.won] == ["lean"]
    assert {each.form for each in found.entrants if each.speedup} == {"onnx", "lean"}
    reasons = {each.runs or each.form: each.reason for each in found.entrants if not each.speedup}
    assert reasons.keys() == {"null null", "wrong", "torn", "shy"}
    assert "its outputs are" in reasons["null null"], "a runtime that answers zeros would be quick"
    assert "its outputs are" in reasons["wrong"]
    assert "shy cannot export" in reasons["shy"]
    assert reasons["torn"]
    bundle = open_bundle(bench.trial(bench.reference, found.plan))
    assert [artifact.digest for artifact in bundle.artifacts] == [found.plan.artifacts[0].digest]


@pytest.mark.parametrize("at_hand", [True, False])
def test_the_only_form_is_what_the_plan_runs(bench: Bench, at_hand: bool) -> None:
    bench = replace(bench, recipe=replace(bench.recipe, exporters=("lean",)), device=bench.device if at_hand else None)
    plan = race({"original": bench.reference}, bench)["original"].plan
    assert [artifact.name for artifact in plan.artifacts] == ["main-lean"]
    assert [placement.artifact for placement in plan.placements] == ["main-lean"]


def test_forms_that_cannot_race_without_a_device_are_told(bench: Bench) -> None:
    found = race({"original": bench.reference}, replace(bench, device=None))["original"]
    assert not found.plan.artifacts
    assert [each.form for each in found.entrants] == ["lean", "wrong", "torn", "shy"]
    assert "ship this form with --exporter lean" in found.entrants[0].reason


def test_a_part_that_takes_something_else_than_the_task_gives_is_timed_on_its_own_example(rig: Rig) -> None:
    usual = replace(rig.benches["conv"], device=rig.benches["conv"].host)
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "part (float[1, 17, 48] image) => (float[1, 17, 48] y) { y = Neg(image) }"
    )
    spec = TensorSpec("image", "float32", (1, 17, 48))
    stage = Stage("main", usual.store.keep(proto.SerializeToString()), ("image",), ("y",))
    example = {"image": np.ones((1, 17, 48), np.float32)}
    part = Model("part", Signature((spec,), (replace(spec, name="y"),)), (Variant("main", (stage,)),), example)
    assert usual.costs({"part": part})["part"].value.kind == "measured"
