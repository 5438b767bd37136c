"""Kernels of third parties: called where they are named, and refused by name when they break or compute otherwise."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from onnx import parser

from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.deploying.pipeline import prepare
from edgewright.environment import Environment
from edgewright.errors import PluginError, RecipeError
from edgewright.registry import TARGETS, Registry
from edgewright.store import Store
from edgewright_exporters.onnx_kernels import KERNELS
from edgewright_exporters.onnx_kernels.builtin import BUILT_IN
from edgewright_exporters.onnx_kernels.choose import first_guess
from edgewright_exporters.onnx_kernels.plan import matches
from edgewright_exporters.onnx_kernels.proofs import check_plugins
from edgewright_exporters.onnx_kernels.rewrite import rewrite
from edgewright_exporters.onnx_kernels.templates import source_digest
from edgewright_exporters.onnx_kernels.wiring import wired
from edgewright_exporters.tir.isa import Isa, isa_named
from planted_kernels import plant

NUMBERS = ", ".join(str(n % 5 / 4) for n in range(64))
BLOCK = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[1,6,8] x) => (float[1,6,8] y)
    <float[8,8] w = {{{NUMBERS}}}, float[8] gamma = {{1, 2, 3, 4, 5, 6, 7, 8}},
     float[8] one = {{1, 1, 1, 1, 1, 1, 1, 1}}>
    {{ b = MatMul(x, w) s = Mul(b, gamma) a = Add(x, s) y = LayerNormalization(a, one) }}"""
CHANGES = {
    "good": (),
    "wrong": [("+ scaled, lanes)", "- scaled, lanes)")],
    "raising": [("    lanes = across", "    raise ValueError('no such tile')\n    lanes = across")],
    "wild": [("builder.store(y, place,", "builder.store(y, place + 2**28,")],
    "mistaken": [("return x + gamma", "return x - gamma")],
    "greedy": [("int(np.prod(shape[:-1]))", "99")],
    "lost": [("            if not is_standard(add", "            graph.nothing()\n            if not is_standard(add")],
    "elsewhere": [("output=y, gamma", "output='z', gamma")],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where they are installed."""
    folder = tmp_path_factory.mktemp("site")
    for name, changes in CHANGES.items():
        plant(folder, f"acme-{name}", *changes)
    return folder


@pytest.fixture(scope="module")
def installed(site: Path) -> Any:
    """Makes them importable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield


@pytest.fixture(scope="module")
def block(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A product, a scaled branch and a normalisation, on noise, with the real context and no agent behind it."""
    folder = tmp_path_factory.mktemp("exporter")
    source = folder / "block.onnx"
    source.write_bytes(parser.parse_model(BLOCK).SerializeToString())
    env = Environment(Registry(), Store(folder / "cache"), lambda *_: None)
    target = env.registry.get(TARGETS, "cpu").value
    job = prepare(Request(model=str(source), apply=(), out=str(folder / "out")), target, env)
    agent: Any = None
    return Workbench(Bench(env, target, job.recipe, job.task, job.model, job.model, agent, None), "step")


def calling(context: Workbench, *names: str) -> Workbench:
    """The same where the recipe names these kernels."""
    return replace(context, bench=replace(context.bench, recipe=replace(context.bench.recipe, kernels=names)))


@pytest.fixture(scope="module")
def ready(tvm: ModuleType, block: Workbench) -> Workbench:
    """The same where kernels can be made."""
    refusal = KERNELS.check(block.original, block.target)
    if refusal is not None:
        pytest.skip(refusal.reason)
    return block


def symbols(artifact: Any) -> list[str]:
    held = [a for node in onnx.load(str(artifact.path)).graph.node for a in node.attribute if a.name == "symbol"]
    return [each.s.decode() for each in held]


def checked(context: Workbench, isa: Isa) -> None:
    """What the exporter does once it knows which tiles it takes, and before it links."""
    proto = onnx.load_from_string(context.original.graph.path.read_bytes())  # pyright: ignore
    found = rewrite(proto, isa, first_guess, context.kernels)
    check_plugins(context.original, found.kernels.values(), isa, context)


def test_it_is_called_beside_the_built_in_ones_and_answers_as_the_model(ready: Workbench):
    (artifact,) = KERNELS.export(ready.original, calling(ready, "acme-good", "auto"))
    called = symbols(artifact)
    assert sorted(name.split("_")[0] for name in called) == ["acme", "gemm", "norm"]
    assert 0 <= artifact.numerics["max_rel"] < 1e-5
    library = ctypes.CDLL(str(artifact.companions[0].path))
    assert all(hasattr(library, name) for name in called)


def test_nothing_calls_a_kernel_that_nobody_named(block: Workbench):
    assert block.kernels == BUILT_IN
    assert [each.by.plugin for each in matches(wired(parser.parse_model(BLOCK)), block.kernels) if each.by] == [
        "edgewright"
    ] * 2


def test_what_several_find_is_done_by_the_first(block: Workbench):
    wiring = wired(parser.parse_model(BLOCK))
    for names in (("acme-good", "acme-wrong"), ("acme-wrong", "acme-good")):
        found = matches(wiring, calling(block, *names).kernels)
        assert [each.by.plugin for each in found if each.by] == [names[0]]


def test_the_recipe_knows_its_kernels(block: Workbench):
    with pytest.raises(RecipeError, match=r"no kernel named 'acme-god'; .*did you mean 'acme-good'"):
        _ = calling(block, "acme-god").kernels
    without = Registry(without=("acme-good",))
    env = replace(block.bench.env, registry=without)
    with pytest.raises(RecipeError, match="no kernel named 'acme-good'"):
        _ = replace(calling(block, "acme-good"), bench=replace(calling(block, "acme-good").bench, env=env)).kernels


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("wrong", "is not used: compiled for .*'y' is off by"),
        ("raising", "is not used: compiled for .* ValueError: no such tile"),
        ("wild", "is not used: compiled for .* died of SIGSEGV"),
    ],
)
def test_machine_code_that_is_not_its_reference_is_refused(name: str, sentence: str, ready: Workbench, isa: Isa):
    with pytest.raises(PluginError, match=f"^acme-{name} 0.1.0: the kernel 'acme-{name}' {sentence}"):
        checked(calling(ready, f"acme-{name}"), isa)


def test_it_is_not_exported(ready: Workbench):
    with pytest.raises(PluginError, match=r"^acme-wrong 0\.1\.0: the kernel 'acme-wrong' is not used"):
        KERNELS.export(ready.original, calling(ready, "acme-wrong", "auto"))


def test_for_other_processors_the_same_case_is_compared_here(ready: Workbench):
    with pytest.raises(PluginError, match="compiled for x86-64"):
        checked(calling(ready, "acme-wrong"), isa_named("armv8-a"))
    checked(calling(ready, "acme-good"), isa_named("armv8-a"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mistaken", "would change block: its reference is off by"),
        ("greedy", "takes 792 float32 behind the pointer 'x', and 'x' holds 48 float32"),
        ("lost", "failed while looking for places of the kernel 'acme-lost': AttributeError"),
        ("elsewhere", "names 'z', which is no value of the graph"),
    ],
)
def test_what_does_not_fit_the_graph_is_refused_before_it_is_compiled(
    name: str, sentence: str, block: Workbench, here: Any
):
    with pytest.raises(PluginError, match=rf"^acme-{name} 0\.1\.0.*{sentence}"):
        checked(calling(block, f"acme-{name}"), here[0])


def test_an_edit_makes_what_was_kept_stale(installed: None, site: Path):
    before = source_digest("acme_good.kernel")
    assert before not in (source_digest(), source_digest("acme_wrong.kernel"))
    with (site / "acme_good" / "__init__.py").open("a") as file:
        file.write("\n# edited\n")
    source_digest.cache_clear()
    assert source_digest("acme_good.kernel") != before
    assert source_digest("gemm") == source_digest()


@pytest.fixture(scope="module")
def isa(here: Any) -> Isa:
    return here[0]
