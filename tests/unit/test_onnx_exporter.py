"""The exporter `onnx`, and the methods `simplify` and `half` as the pipeline calls them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest

from edgewright import onnxkit
from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.deploying.pipeline import prepare
from edgewright.environment import Environment
from edgewright.protocols import Context
from edgewright.registry import TARGETS, Registry
from edgewright.stagewise.apply import applied
from edgewright.store import Store
from edgewright.testing.samples import TORCH_NET, conv_net, write_task
from edgewright.types import Model, Signature, Stage, TensorSpec, Variant
from edgewright_exporters.onnx import EXAMPLES, ONNX, compare, source_outputs
from edgewright_plugins.half import HALF
from edgewright_plugins.simplify import SIMPLIFY


def workbench(folder: Path, source: str, task: str | None = None) -> Workbench:
    """What a step gets when nothing is to be measured: the real context, with no agent behind it."""
    env = Environment(Registry(), Store(folder / "cache"), lambda *_: None)
    target = env.registry.get(TARGETS, "cpu").value
    request = Request(model=source, task=task, apply=(), out=str(folder / "out"))
    job = prepare(request, target, env)
    agent: Any = None
    bench = Bench(
        env=env,
        target=target,
        recipe=job.recipe,
        task=job.task,
        original=job.model,
        reference=job.model,
        host=agent,
        device=None,
    )
    return Workbench(bench, "step")


@pytest.fixture
def context(tmp_path: Path) -> Workbench:
    """The convolutional sample with its data."""
    path = tmp_path / "conv.onnx"
    path.write_bytes(conv_net().SerializeToString())
    write_task(tmp_path / "conv.npz", conv_net())
    return workbench(tmp_path, str(path), str(tmp_path / "conv.npz"))


def test_artifact_describes_its_file(context: Workbench):
    (artifact,) = ONNX.export(context.original, context)
    assert (artifact.name, artifact.format, artifact.ir, artifact.opsets) == ("main", "onnx", 8, {"ai.onnx": 17})
    assert artifact.size == artifact.path.stat().st_size
    assert artifact.operators == {"Conv": 2, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1, "Relu": 2}
    onnx.checker.check_model(onnx.load(artifact.path), full_check=True)


def test_the_original_differs_from_itself_by_nothing(context: Workbench):
    (artifact,) = ONNX.export(context.original, context)
    assert artifact.numerics["max_abs"] == artifact.numerics["max_rel"] == 0.0
    assert 1 <= artifact.numerics["n"] <= EXAMPLES


def test_numerics_show_what_a_method_did(context: Workbench):
    halved = HALF.apply(context.original, HALF.Params(), context)
    (artifact,) = ONNX.export(halved, context)
    assert 0 < artifact.numerics["max_rel"] < 2e-3
    assert artifact.size < 0.7 * ONNX.export(context.original, context)[0].size


@pytest.mark.parametrize("method", [SIMPLIFY, HALF])
def test_method_adds_one_step_and_keeps_its_input(context: Workbench, method: Any):
    before = context.original.digest
    after = method.apply(context.original, method.Params(), context)
    again = method.apply(context.original, method.Params(), context)
    assert context.original.digest == before
    assert after.digest == again.digest
    assert [step.name for step in after.history] == [method.name]
    assert after.signature == context.original.signature
    assert after.history[0].notes
    assert method.check(context.original, context.target) is None


def test_half_says_when_it_saw_noise_only(tmp_path: Path):
    path = tmp_path / "conv.onnx"
    path.write_bytes(conv_net().SerializeToString())
    context = workbench(tmp_path, str(path))
    notes = HALF.apply(context.original, HALF.Params(), context).history[-1].notes
    assert notes[0] == "no task: overflow was looked for on noise only"


def test_half_refuses_a_model_in_16_bits(context: Workbench):
    spec = TensorSpec("x", "float16", (1, 4))
    model = dataclasses.replace(context.original, signature=Signature((spec,), (spec,)))
    refusal = HALF.check(model, context.target)
    assert refusal is not None
    assert "in 16 bits already" in refusal.reason


# ------------------------------------------------------------------ stages


def two_stages(context: Context) -> Model:
    """`y = relu(x) * 2`, cut after the Relu; the first stage could answer `y = relu(x)`."""
    head = """<ir_version: 8, opset_import: ["": 17]>
    head (float[n, 4] x) => (float[n, 4] y, float[n, 4] h) { h = Relu(x)  y = Identity(h) }"""
    tail = """<ir_version: 8, opset_import: ["": 17]>
    tail (float[n, 4] h) => (float[n, 4] y) { y = Add(h, h) }"""
    graphs = [context.keep(onnxkit.pack(onnx.parser.parse_model(text))) for text in (head, tail)]
    stages = (Stage("head", graphs[0], ("x",), ("y",), carry=("h",)), Stage("tail", graphs[1], (), ("y",)))
    specs = [TensorSpec(name, "float32", ("n", 4)) for name in ("x", "y")]
    signature = Signature((specs[0],), (specs[1],))
    return Model("cut", signature, (Variant("full", stages),), {"x": np.zeros((1, 4), np.float32)})


def test_stages_are_run_in_a_chain(context: Workbench):
    model = two_stages(context)
    feeds = [{"x": np.float32([[-1, 2, -3, 4], [1, 1, 1, 1]])}]
    (made,) = source_outputs(model, feeds)
    np.testing.assert_array_equal(made["y"], 2 * np.maximum(feeds[0]["x"], 0))
    assert compare(model, model.variants[0], feeds, [made]) == {"max_abs": 0.0, "max_rel": 0.0, "n": 2}


def test_every_stage_becomes_an_artifact_and_the_last_carries_the_error(context: Workbench):
    model = two_stages(context)
    bench = dataclasses.replace(context.bench, original=model, task=_vectors())
    head, tail = ONNX.export(model, dataclasses.replace(context, bench=bench))
    assert [(a.name, a.variant, a.stage) for a in (head, tail)] == [
        ("full-head", "full", "head"),
        ("full-tail", "full", "tail"),
    ]
    assert not head.numerics
    assert tail.numerics["max_abs"] == 0.0


def test_methods_work_on_each_stage(context: Workbench):
    model = two_stages(context)
    bench = dataclasses.replace(context.bench, original=model, task=_vectors())
    for method in (cast(Any, SIMPLIFY), cast(Any, HALF)):
        after = applied(method, model, method.Params(), dataclasses.replace(context, bench=bench))
        assert [stage.name for stage in after.stages] == ["head", "tail"]
        feeds = [{"x": np.float32([[-1, 2, -3, 4]])}]
        assert compare(after, after.variants[0], feeds, source_outputs(model, feeds))["max_rel"] < 2e-3


def _vectors():
    from edgewright.task import noise_task

    spec = TensorSpec("x", "float32", ("n", 4))
    return noise_task(Signature((spec,), (TensorSpec("y", "float32", ("n", 4)),)), seed=0)


# ------------------------------------------------------------------ torch


def test_torch_model_is_refused_and_is_what_its_export_is_compared_with(tmp_path: Path):
    torch = pytest.importorskip("torch")
    (tmp_path / "net.py").write_text(TORCH_NET, encoding="utf-8")
    context = workbench(tmp_path, f"{tmp_path / 'net.py'}:model")
    refusal = ONNX.check(context.original, context.target)
    assert refusal is not None
    assert "still a torch model" in refusal.reason
    feed = {name: np.ones_like(array) for name, array in context.original.example.items()}
    (made,) = source_outputs(context.original, [feed])
    with torch.no_grad():
        want = context.original.stages[0].graph.module(*(torch.tensor(array) for array in feed.values()))
    np.testing.assert_array_equal(made[context.original.signature.outputs[0].name], want.numpy())
