"""The exporter `tvm` as the pipeline calls it: chains, refusals by name, crashes, other machines, bundles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import parser

from edgewright import onnxkit
from edgewright.arrays import npz_bytes
from edgewright.asking.recipe import resolve
from edgewright.asking.request import Request
from edgewright.bundle import Contents, write_bundle
from edgewright.deploying.context import Workbench
from edgewright.deploying.pipeline import prepare
from edgewright.deploying.race import race
from edgewright.environment import Environment
from edgewright.errors import RefusedError
from edgewright.registry import TARGETS, Registry
from edgewright.store import Store
from edgewright.task import noise_task
from edgewright.testing.samples import attention_net
from edgewright.types import Artifact, GraphFile, Model, Placement, Plan, Signature, Stage, TensorSpec, Variant
from edgewright_exporters.tir.isa import Isa, isa_named
from edgewright_exporters.tir.linking import find_compiler
from edgewright_exporters.whole_model import TVM, exporting

AARCH64 = 183
"""The machine that an ELF header names."""

WITHOUT_ORT = """
import sys
sys.modules.update(dict.fromkeys(("onnxruntime", "onnx", "torch")))
import numpy as np, edgewright_runtime
with np.load(sys.argv[1] + "/example/inputs.npz") as data:
    answer = edgewright_runtime.load(sys.argv[1]).run(dict(data)).outputs["y"]
import tvm
print(float(np.abs(answer).sum()), answer.shape, tvm.base._RUNTIME_ONLY)
"""


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """The attention sample on noise, with the real context and no agent behind it."""
    folder = tmp_path_factory.mktemp("exporter")
    source = folder / "net.onnx"
    source.write_bytes(attention_net().SerializeToString())
    env = Environment(Registry(), Store(folder / "cache"), lambda *_: None)
    target = env.registry.get(TARGETS, "cpu").value
    request = Request(model=str(source), apply=(), exporter=("tvm",), on="local", out=str(folder / "out"))
    job = prepare(request, target, env)
    agent: Any = None
    return Workbench(_bench(env, job, agent), "step")


def _bench(env: Environment, job: Any, agent: Any) -> Any:
    from edgewright.bench import Bench

    return Bench(env, job.target, job.recipe, job.task, job.model, job.model, agent, None)


def graph(context: Workbench, text: str) -> GraphFile:
    return context.keep(onnxkit.pack(parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')))


def chain(context: Workbench) -> Model:
    """`h = norm(x)` in a first stage, `m = h w` in a second one, and a third that no template can do."""
    head = graph(
        context, "(float[1,8] x) => (float[1,8] h) <float[8] s = {1,2,3,4,5,6,7,8}> { h = LayerNormalization(x, s) }"
    )
    body = graph(context, "(float[1,8] h) => (float[1,1] m) <float[8,1] w = {1,2,3,4,5,6,7,8}> { m = MatMul(h, w) }")
    tail = graph(context, "(float[1,1] m) => (float[1,1] y) { y = Tanh(m) }")
    stages = (
        Stage("head", head, ("x",), (), carry=("h",)),
        Stage("body", body, (), (), carry=("m",)),
        Stage("tail", tail, (), ("y",)),
    )
    signature = Signature((TensorSpec("x", "float32", (1, 8)),), (TensorSpec("y", "float32", (1, 1)),))
    return Model("chain", signature, (Variant("full", stages),), {"x": np.ones((1, 8), np.float32)})


def about(context: Workbench, model: Model) -> Workbench:
    """The same context for another model, on noise."""
    bench = replace(context.bench, original=model, reference=model, task=noise_task(model.signature, seed=0))
    return replace(context, bench=bench)


@pytest.fixture(scope="session")
def artifacts(isa: Isa, context: Workbench) -> tuple[Artifact, ...]:
    """The chain, compiled."""
    model = chain(context)
    return tuple(TVM.export(model, about(context, model)))


# ------------------------------------------------------------------ what is written


def test_each_stage_is_an_artifact_and_the_last_one_tells_the_error(artifacts: tuple[Artifact, ...]):
    assert [each.name for each in artifacts] == ["full-head-tvm", "full-body-tvm", "full-tail-tvm"]
    assert {each.format for each in artifacts} == {"tvm"}
    assert artifacts[0].operators == {"edgewright::FloatKernel": 1}
    assert [bool(each.numerics) for each in artifacts] == [False, False, True]
    assert artifacts[2].numerics["max_rel"] < 1e-5
    assert artifacts[2].numerics["n"] > 0


def test_what_was_compiled_is_not_compiled_again(
    isa: Isa, context: Workbench, artifacts: tuple[Artifact, ...], monkeypatch: pytest.MonkeyPatch
):
    compile_no_more = (sys.executable, "-c", "raise SystemExit('compiled again')")
    monkeypatch.setattr(exporting, "COMMAND", compile_no_more)
    monkeypatch.setattr(exporting, "_numerics", lambda *_: {})
    model = chain(context)
    again = TVM.export(model, about(context, model))
    assert [each.digest for each in again] == [each.digest for each in artifacts]


def test_a_bundle_runs_where_there_is_no_onnxruntime(
    context: Workbench, artifacts: tuple[Artifact, ...], tmp_path: Path
):
    model = chain(context)
    placements = tuple(Placement("full", each.stage, each.name, "tvm", "CPU", {"threads": 1}) for each in artifacts)
    files = {"example/inputs.npz": npz_bytes(model.example)}
    plan = Plan(placements, artifacts)
    write_bundle(tmp_path / "b", Contents("chain", model.signature, model.variants, artifacts, plan, files, {}))
    command = [sys.executable, "-c", WITHOUT_ORT, str(tmp_path / "b")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.0", "(1,", "1)", "True"], "a norm of ones is zero, and so is its tanh"


def test_another_machine_s_code_is_made_here(isa: Isa, context: Workbench):
    arm = context.bench.registry.get(TARGETS, "raspberry-pi-4").value
    try:
        find_compiler(isa_named("armv8-a"))
    except RefusedError as missing:
        pytest.skip(str(missing))
    model = chain(context)
    context = about(context, model)
    made = TVM.export(model, replace(context, bench=replace(context.bench, target=arm)))
    for each in made:
        header = each.path.read_bytes()[:20]
        assert header[:5] == b"\x7fELF\x02"
        assert int.from_bytes(header[18:20], "little") == AARCH64
        assert not each.numerics, "nothing ran"


# ------------------------------------------------------------------ what is refused


REFUSED: Mapping[str, tuple[str, str]] = {
    "If": (
        """(bool c, float[1] x) => (float[1] y) {
          y = If(c)<then_branch = t () => (float[1] a) { a = Neg(x) },
                    else_branch = e () => (float[1] b) { b = Abs(x) }>
        }""",
        "TVM computes both branches of an If",
    ),
    "TopK": (
        "(float[9] x, int64[1] k) => (float[k] y) { y, i = TopK(x, k) }",
        "TVM takes no TopK whose k is known only when it runs",
    ),
    "LSTM": (
        "(float[2,1,1] x, float[1,4,1] w, float[1,4,1] r) => (float[2,1,1,1] y) { y = LSTM<hidden_size=1>(x, w, r) }",
        "TVM cannot import LSTM",
    ),
    "ConvInteger": (
        "(uint8[1,1,3,3] x, uint8[1,1,1,1] w) => (int32[1,1,3,3] y) { y = ConvInteger(x, w) }",
        "TVM cannot import ConvInteger",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_do_is_refused_by_name(isa: Isa, context: Workbench, name: str):
    text, says = REFUSED[name]
    refusal = TVM.check(context.original.with_graph(graph(context, text)), context.target)
    assert refusal is not None
    assert says in refusal.reason
    assert "--exporter onnx" in refusal.reason


def test_operators_of_others_are_refused_by_name(isa: Isa, context: Workbench):
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> g (float[1] x) => (float[1] y) { y = acme.Relu(x) }'
    )
    refusal = TVM.check(context.original.with_graph(context.keep(onnxkit.pack(proto))), context.target)
    assert refusal is not None
    assert "acme::Relu" in refusal.reason


def test_a_target_that_nothing_is_known_of_is_refused(context: Workbench):
    refusal = TVM.check(context.original, replace(context.target, name="old", isa="riscv64"))
    assert refusal is not None
    assert "riscv64" in refusal.reason


def test_what_only_the_importer_knows_is_told(compiled: Mapping[str, Any]):
    assert "not supported for frontend ONNX: Det" in compiled["no importer"]
    assert "nothing to compile" in compiled["nothing to do"]


def test_a_crash_is_told(isa: Isa, context: Workbench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exporting, "COMMAND", (sys.executable, "-c", "import os; os.abort()"))
    text = "(float[1,8] x) => (float[1,8] y) { y = Sin(x) }"
    with pytest.raises(RefusedError, match="the stage main stays with other exporters: its process died of SIGABRT"):
        TVM.export(context.original.with_graph(graph(context, text)), context)


# ------------------------------------------------------------------ how it races


def test_whoever_names_it_gets_the_runtime_that_opens_it():
    registry = Registry()
    cpu = registry.get(TARGETS, "cpu").value
    assert resolve(Request(exporter=("onnx", "tvm")), cpu, registry).runtimes == ("ort", "tvm")
    assert resolve(Request(exporter=("onnx", "kernels")), cpu, registry).runtimes == ("ort",)
    assert resolve(Request(exporter=("tvm",), runtime=("ort",)), cpu, registry).runtimes == ("ort",)


def test_alone_it_is_what_ships(context: Workbench, artifacts: tuple[Artifact, ...]):
    model = chain(context)
    raced = race({"original": model}, about(context, model).bench)["original"]
    assert [artifact.digest for artifact in raced.plan.artifacts] == [artifact.digest for artifact in artifacts]
    assert [placement.runtime for placement in raced.plan.placements] == ["tvm"] * 3
