"""The exporter `kernels` as the pipeline calls it, and how tiles are chosen by time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from onnx import parser

from edgewright import onnxkit
from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.deploying.pipeline import prepare
from edgewright.environment import Environment
from edgewright.errors import RefusedError
from edgewright.registry import TARGETS, Registry
from edgewright.store import Store
from edgewright.task import noise_task
from edgewright.testing.samples import attention_net
from edgewright.types import Artifact, GraphFile, Model, Needs, Signature, Stage, TensorSpec, TorchGraph, Variant
from edgewright_exporters.onnx_kernels import KERNELS
from edgewright_exporters.onnx_kernels.choose import Measured, first_guess, object_place
from edgewright_exporters.onnx_kernels.obstacles import best_isa
from edgewright_exporters.onnx_kernels.templates import Kernel, job_of
from edgewright_exporters.tir.isa import Isa
from edgewright_runtime.ort_session import OrtSession


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """The attention sample on noise, with the real context and no agent behind it."""
    folder = tmp_path_factory.mktemp("exporter")
    source = folder / "net.onnx"
    source.write_bytes(attention_net().SerializeToString())
    env = Environment(Registry(), Store(folder / "cache"), lambda *_: None)
    target = env.registry.get(TARGETS, "cpu").value
    job = prepare(Request(model=str(source), apply=(), out=str(folder / "out")), target, env)
    agent: Any = None
    bench = Bench(env, target, job.recipe, job.task, job.model, job.model, agent, None)
    return Workbench(bench, "step")


@pytest.fixture(scope="session")
def ready(tvm: ModuleType, context: Workbench) -> Workbench:
    """The same where kernels can be made: with TVM, a compiler, and onnxruntime's header."""
    refusal = KERNELS.check(context.original, context.target)
    if refusal is not None:
        pytest.skip(refusal.reason)
    return context


@pytest.fixture(scope="session")
def artifact(ready: Workbench) -> Artifact:
    """The sample with kernels."""
    (made,) = KERNELS.export(ready.original, ready)
    return made


def graph(context: Workbench, text: str) -> GraphFile:
    return context.keep(onnxkit.pack(parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')))


def chain(context: Workbench) -> Model:
    """`y = norm(x)` in a first stage, `z = y w` in a second one, and a third that no kernel can do."""
    head = graph(
        context,
        """(float[1,8] x) => (float[1,8] h) <float[8] s = {1,2,3,4,5,6,7,8}> { h = LayerNormalization(x, s) }""",
    )
    body = graph(context, "(float[1,8] h) => (float[1,1] m) <float[8,1] w = {1,2,3,4,5,6,7,8}> { m = MatMul(h, w) }")
    tail = graph(context, "(float[1,1] m) => (float[1,1] y) { y = Exp(m) }")
    stages = (
        Stage("head", head, ("x",), (), carry=("h",)),
        Stage("body", body, (), (), carry=("m",)),
        Stage("tail", tail, (), ("y",)),
    )
    signature = Signature((TensorSpec("x", "float32", (1, 8)),), (TensorSpec("y", "float32", (1, 1)),))
    return Model("chain", signature, (Variant("full", stages),), {"x": np.zeros((1, 8), np.float32)})


# ------------------------------------------------------------------ what is written


def test_an_artifact_has_its_library_and_answers_as_the_source(artifact: Artifact):
    (library,) = artifact.companions
    assert (artifact.name, artifact.format, library.name) == ("main-kernels", "onnx", "kernels.so")
    assert (artifact.size, library.size) == (artifact.path.stat().st_size, library.path.stat().st_size)
    assert artifact.operators["edgewright::FloatKernel"] > 0
    assert artifact.opsets["edgewright"] == 1
    assert 0 < artifact.numerics["max_rel"] < 1e-5
    assert artifact.numerics["n"] > 0


def test_a_library_says_what_it_needs(artifact: Artifact, isa: Isa):
    assert artifact.companions[0].needs == Needs(isa.name, isa.machine, isa.requires)


def test_the_runtime_opens_it(ready: Workbench, artifact: Artifact):
    opened = OrtSession(str(artifact.path), {"libraries": [str(artifact.companions[0].path)]})
    feed = {name: ready.original.example[name] for name in opened.inputs}
    (want,) = onnxkit.run(onnxkit.pack(onnxkit.read(ready.original.graph)), [feed])
    for wanted, got in zip(want, opened.run(feed)):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_the_stages_of_a_chain_share_one_library(ready: Workbench):
    model = chain(ready)
    context = replace(ready, bench=replace(ready.bench, original=model))
    head, body, tail = KERNELS.export(model, replace(context, bench=_with_noise(context, model)))
    assert [each.name for each in (head, body, tail)] == ["full-head-kernels", "full-body-kernels", "full-tail-kernels"]
    assert head.companions == body.companions
    assert not tail.companions
    assert not head.numerics
    assert tail.numerics["max_rel"] < 1e-5


def _with_noise(context: Workbench, model: Model) -> Bench:
    return replace(context.bench, task=noise_task(model.signature, seed=0))


# ------------------------------------------------------------------ what is refused


def test_a_torch_model_is_refused(context: Workbench):
    model = context.original.with_graph(TorchGraph(None, "0"))
    refusal = KERNELS.check(model, context.target)
    assert refusal is not None
    assert "add `lower`" in refusal.reason


def test_a_target_without_templates_is_refused(context: Workbench):
    refusal = KERNELS.check(context.original, replace(context.target, name="old", isa="riscv64"))
    assert refusal is not None
    assert "riscv64" in refusal.reason


def test_a_model_without_work_is_refused(ready: Workbench):
    text = "(float[1,3,8,8] x) => (float[1,3,4,4] y) { e = Exp(x) y = MaxPool<kernel_shape=[2,2],strides=[2,2]>(e) }"
    with pytest.raises(RefusedError, match="no kernel fits"):
        KERNELS.export(ready.original.with_graph(graph(ready, text)), ready)


def test_a_missing_header_is_refused_with_the_way_to_get_it(
    ready: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    refusal = KERNELS.check(ready.original, ready.target)
    if refusal is None:
        pytest.skip("the system has onnxruntime's header")
    assert "doctor --fix" in refusal.reason


# ------------------------------------------------------------------ which tile


@pytest.fixture(scope="session")
def isa(context: Workbench) -> Isa:
    found = best_isa(context.target)
    assert found is not None
    return found


JOB = job_of("norm", {"rows": 3, "columns": 24})


@pytest.fixture(scope="session")
def measured(tvm: ModuleType, isa: Isa, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Where one job has been measured."""
    choose = Measured(tmp_path_factory.mktemp("choices"))
    choose([JOB], isa)
    return choose


def test_the_fastest_tile_is_chosen(measured: Measured, isa: Isa):
    times: Mapping[str, float] = (measured.known(JOB, isa) or {})["us"]
    assert len(times) == len(JOB.module.tiles(JOB.case, isa))
    assert times[str(measured([JOB], isa)[JOB])] == min(times.values())


def test_what_was_measured_before_is_not_measured_again(measured: Measured, isa: Isa, tmp_path: Path):
    shutil.copytree(measured.cache, tmp_path, dirs_exist_ok=True)
    (kept,) = (tmp_path / "choices").iterdir()
    kept.write_text(json.dumps({"us": {"0": 2.0, "1": 1.0}, "lost": {}}))
    assert Measured(tmp_path)([JOB], isa)[JOB] == 1


def test_a_result_cut_short_by_a_kill_is_measured_again(measured: Measured, isa: Isa, tmp_path: Path):
    shutil.copytree(measured.cache, tmp_path, dirs_exist_ok=True)
    (kept,) = (tmp_path / "choices").iterdir()
    kept.write_text(kept.read_text()[:5])
    Measured(tmp_path)([JOB], isa)
    assert set(json.loads(kept.read_text())["us"]) == {"0", "1", "2"}


def test_a_tile_that_cannot_be_made_is_lost_with_its_reason(tvm: ModuleType, isa: Isa, tmp_path: Path):
    choose = Measured(tmp_path)
    object_place(Kernel(JOB, 1), isa, tmp_path).mkdir(parents=True)
    choose([JOB], isa)
    found = choose.known(JOB, isa) or {}
    assert set(found["us"]) == {"0", "2"}
    assert "IsADirectoryError" in found["lost"]["1"]


def test_guesses_need_no_time(isa: Isa):
    assert first_guess([JOB], isa) == {JOB: 0}
