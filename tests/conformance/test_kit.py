"""The kit itself: a bad plugin fails, and the failure says who and where."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.errors import PluginError
from edgewright.onnxkit import pack, read
from edgewright.protocols import Context, LoadRequest
from edgewright.registry import (
    EXPORTERS,
    LOADERS,
    PREDICTORS,
    RENDERERS,
    RUNTIMES,
    TARGETS,
    TRANSFORMS,
    Kind,
    Registry,
    Source,
)
from edgewright.testing import Case, Rig, cases
from edgewright.testing.composing import composes_with_the_built_ins
from edgewright.testing.rewriting import applies
from edgewright.testing.suite import CHECKS
from edgewright.types import Figure, Measurement, Model, Offer, Refusal, Report, Step, Target

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "edgewright-acme"


@dataclass(frozen=True)
class Params:
    """Parameters as they should be."""

    share: float = field(default=0.5, metadata={"help": "how much"})


@dataclass
class Soft:
    """Parameters that can be changed."""

    share: float = 0.5


@dataclass(frozen=True)
class Silent:
    """Parameters without help."""

    share: float = 0.5


@dataclass(frozen=True)
class Needy:
    """A parameter without a default."""

    share: float = field(metadata={"help": "how much"})


def note(model: Model) -> Model:
    """A step that is written down."""
    return model.after(Step("bolt", "edgewright-bolt"))


def rewrite(model: Model, context: Context, change: Callable[[Any], None]) -> Model:
    """The same model, its graph changed, the step written down."""
    proto = read(model.graph)
    change(proto.graph)
    return note(model.with_graph(context.keep(pack(proto))))


@dataclass(frozen=True)
class Bolt:
    """A transform whose every part can be replaced by a bad one."""

    name: str = "bolt"
    summary: str = "writes itself down and changes nothing"
    Params: type[Any] = Params
    takes: str = "onnx"
    gives: str = "onnx"
    needs: str = "nothing"
    reads: tuple[str, ...] = ()
    answer: Any = None
    work: Callable[[Model, Context], Any] = lambda model, context: note(model)

    def check(self, model: Model, target: Target) -> Any:
        return self.answer

    def apply(self, model: Model, params: Params, context: Context) -> Any:
        return self.work(model, context)


@dataclass(frozen=True)
class TorchBolt:
    """A torch transform whose decision and structure can be replaced by bad ones."""

    name: str = "bolt"
    summary: str = "writes itself down and changes nothing"
    Params: type[Any] = Params
    takes: str = "torch"
    gives: str = "torch"
    needs: str = "nothing"
    reads: tuple[str, ...] = ()
    decision: Any = None

    def check(self, model: Model, target: Target) -> Refusal | None:
        return None

    def decide(self, model: Model, params: Params, context: Context) -> Any:
        return self.decision

    def rewrite(self, model: Model, decision: Any) -> Model:
        return note(model)

    def fit(self, model: Model, decision: Any, context: Context) -> Model:
        return model


def failures(kind: Kind[Any], value: Any, rig: Rig) -> list[str]:
    """What the kit finds wrong with one offer; pairs of methods are left out, which take long."""
    found: list[str] = []
    for check in CHECKS[kind.plural]:
        if check is composes_with_the_built_ins:
            continue
        try:
            Case(kind, Offer(value, "edgewright-bolt", "0.3"), check).run(rig)
        except PluginError as failure:
            found.append(str(failure))
    return found


def test_a_good_transform_passes(rig: Rig) -> None:
    assert failures(TRANSFORMS, Bolt(), rig) == []


def test_the_example_plugin_passes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    source = Source("acme", "edgewright-acme", "0.3", partial(importlib.import_module, "edgewright_acme"))
    found = cases(Registry([source]), "edgewright-acme")
    assert {case.kind.plural for case in found} == {"packages", "transforms", "targets"}
    assert [case.run(rig) for case in found if case.check is not composes_with_the_built_ins] == [None] * (
        len(found) - 1
    )


def test_a_refusal_is_no_failure_and_gives_the_reason(rig: Rig) -> None:
    refusal = Refusal("bolt needs a model with bolts in it")
    case = Case(TRANSFORMS, Offer(Bolt(answer=refusal), "edgewright-bolt", "0.3"), applies)
    assert case.run(rig) is refusal


def raising(model: Model, context: Context) -> Model:
    raise ZeroDivisionError("division by zero")


def overwriting(model: Model, context: Context) -> Model:
    Path(model.graph.path).write_bytes(b"gone")  # type: ignore[union-attr]
    return note(model)


def touching_the_example(model: Model, context: Context) -> Model:
    next(iter(model.example.values()))[...] = 7
    return note(model)


def restless(model: Model, context: Context) -> Model:
    def stir(graph: Any) -> None:
        graph.doc_string = str(np.random.default_rng().integers(1 << 40))

    return rewrite(model, context, stir)


def renaming(model: Model, context: Context) -> Model:
    spec = model.signature.outputs[0]
    renamed = replace(model.signature, outputs=(replace(spec, name="other"),))
    return note(replace(model, signature=renamed))


def invalid(model: Model, context: Context) -> Model:
    def break_off(graph: Any) -> None:
        del graph.node[0]

    return rewrite(model, context, break_off)


def overflowing(model: Model, context: Context) -> Model:
    def blow_up(graph: Any) -> None:
        for weight in graph.initializer:
            if weight.name in ("w3", "head"):
                weight.raw_data = np.full(list(weight.dims), np.inf, np.float32).tobytes()

    return rewrite(model, context, blow_up)


BAD = {
    "name": (Bolt(name="Bolt_It"), "has a name: state: 'Bolt_It' is not kebab-case"),
    "summary": (Bolt(summary=""), "states itself: state: summary must be one line"),
    "takes": (Bolt(gives="tensorflow"), "states itself: state: gives must be one of torch, onnx"),
    "needs": (Bolt(needs="luck"), "states itself: state: needs must be one of nothing, calibration, training"),
    "reads": (Bolt(reads=("disk",)), "states itself: state: reads names ['disk']; it may name task, target, device"),
    "soft params": (Bolt(Params=Soft), "has params: params: <class"),
    "silent params": (Bolt(Params=Silent), 'has params: params: share has no metadata={"help": ...}'),
    "needy params": (Bolt(Params=Needy), "has params: params: share has no default"),
    "no refusal": (Bolt(answer=False), "answers before it works: check: it returns a bool; return None or a Refusal"),
    "no sentence": (Bolt(answer=Refusal("no")), "answers before it works: check: 'no' is not a sentence"),
    "crash": (Bolt(work=raising), "applies: apply: ZeroDivisionError: division by zero"),
    "nothing": (Bolt(work=lambda model, context: None), "applies: apply: it returns a NoneType; return a Model"),
    "example": (
        Bolt(work=touching_the_example),
        "leaves its input alone: apply: it changed its input, the conv sample",
    ),
    "restless": (
        Bolt(work=restless),
        "is the same twice: apply: it gives another model the second time, on the conv sample",
    ),
    "no step": (Bolt(work=lambda model, context: model), "writes itself down: apply: its history grew by []"),
    "two steps": (Bolt(work=lambda model, context: note(note(model))), "its history grew by ['bolt', 'bolt']"),
    "renamed": (Bolt(work=renaming), "keeps the signature: apply: the outputs were ['logits'] and are ['other']"),
    "format": (Bolt(gives="torch"), "is valid: apply: it gives onnx, not torch as stated"),
    "invalid": (Bolt(work=invalid), "is valid: apply: ValidationError"),
    "overflow": (Bolt(work=overflowing), "stays finite: mismatch: logits holds values that are not finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_transform_fails_and_says_where(case: str, rig: Rig) -> None:
    transform, sentence = BAD[case]
    found = failures(TRANSFORMS, transform, rig)
    assert any(sentence in failure for failure in found), found
    assert all(failure.startswith(f"edgewright-bolt/{transform.name}: transform ") for failure in found)


def test_a_transform_that_overwrites_a_file_is_caught(rig: Rig) -> None:
    found = failures(TRANSFORMS, Bolt(work=overwriting), rig)
    assert any("it changed its input, the conv sample" in failure for failure in found)
    assert failures(TRANSFORMS, Bolt(), rig) == []


@pytest.mark.torch
def test_a_torch_transform_passes_unless_its_decision_is_no_json(rig: Rig) -> None:
    pytest.importorskip("torch")
    assert failures(TRANSFORMS, TorchBolt(decision={"heads": [1, 2]}), rig) == []
    [failure] = failures(TRANSFORMS, TorchBolt(decision={"heads": (1, 2)}), rig)
    assert "applies: decide: dict is not what JSON gives back" in failure


def test_a_target_that_cannot_be_used_fails(rig: Rig) -> None:
    target = rig.target
    bare = replace(target, name="bolt-board", memory=Figure(1e9, "B", ""))
    assert any("state: memory has no source" in f for f in failures(TARGETS, bare, rig))
    zero = replace(target, compute={"float32": Figure(0.0, "GFLOP/s", "a data sheet")})
    assert any("compute float32 is 0.0; it must be positive" in f for f in failures(TARGETS, zero, rig))
    other = replace(target, compute={"fp32": Figure(10.0, "GFLOP/s", "a data sheet")})
    assert any("can be predicted: predict: KeyError: 'float32'" in f for f in failures(TARGETS, other, rig))
    lost = replace(target, runtimes=("warp",))
    assert any("state: no runtime named 'warp'" in f for f in failures(TARGETS, lost, rig))


@dataclass(frozen=True)
class Greedy:
    """A loader that takes everything and reads nothing."""

    name: str = "greedy"

    def accepts(self, source: str) -> bool:
        return True

    def load(self, source: str, request: LoadRequest) -> Model:
        raise OSError("no such file")


def test_a_greedy_loader_fails(rig: Rig) -> None:
    taken, loading, refusing = failures(LOADERS, Greedy(), rig)
    assert "tells sources apart: accepts: it takes ['', 'no-such-thing'" in taken
    assert "loads: load: OSError: no such file" in loading
    assert "must be a ModelError, not OSError" in refusing


@dataclass(frozen=True)
class Terse:
    """A renderer that leaves out why a value is missing."""

    name: str = "terse"
    suffix: str = ".json"

    def render(self, report: Report) -> str:
        return json.dumps({"model": report.model})


def test_a_renderer_that_hides_a_reason_fails(rig: Rig) -> None:
    [failure] = failures(RENDERERS, Terse(), rig)
    assert "render: 'no meter on this device' is not in the text" in failure


@dataclass(frozen=True)
class Oracle:
    """A predictor that is sure of itself."""

    name: str = "oracle"

    def predict(self, model: Model, target: Target, quantity: str) -> Measurement:
        return Measurement(quantity, 1.0, "ms", kind="predicted")

    def predict_ratio(self, first: Model, other: Model, target: Target, quantity: str) -> Measurement:
        return Measurement("ratio", 1.0, "", kind="predicted")


def test_a_prediction_without_an_interval_fails(rig: Rig) -> None:
    [failure] = failures(PREDICTORS, Oracle(), rig)
    assert "predict: latency 1.0 does not lie in its interval None" in failure


@dataclass(frozen=True)
class Careless:
    """An exporter that states a digest it did not compute."""

    inner: Any
    name: str = "careless"
    format: str = "onnx"

    def check(self, model: Model, target: Target) -> Refusal | None:
        return self.inner.check(model, target)

    def export(self, model: Model, context: Context) -> Any:
        return [replace(artifact, digest="0" * 64) for artifact in self.inner.export(model, context)]


def test_an_artifact_that_is_not_its_digest_fails(rig: Rig) -> None:
    failure, *_ = failures(EXPORTERS, Careless(rig.registry.get(EXPORTERS, "onnx").value), rig)
    assert "digest and file differ" in failure


def test_a_runtime_that_no_module_holds_fails(rig: Rig) -> None:
    found = failures(RUNTIMES, rig.registry.get(RUNTIMES, "ort").value, rig)
    assert found == [
        "edgewright-bolt/ort: runtime can be imported: state: "
        "no module holds the offered object under a name; assign it to one"
    ]


def test_cases_of_one_distribution_only(rig: Rig) -> None:
    assert {case.offer.plugin for case in cases(rig.registry, "edgewright")} == {"edgewright"}
    assert cases(rig.registry, "edgewright-bolt") == ()
