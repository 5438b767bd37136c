"""Checks of transforms: what they say of themselves, their parameters, and what they do to small models."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgewright import onnxkit
from edgewright.bundle import plain
from edgewright.context import Workbench
from edgewright.params import describe_params, parse_params
from edgewright.protocols import Context, OnnxTransform
from edgewright.registry import Transform
from edgewright.stagewise.apply import applied, refused
from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import attempt, require, require_sentence, require_type
from edgewright.trained import changed, revived, sealed, shelved
from edgewright.types import GraphFile, Model, Offer, Refusal


def states_itself(offer: Offer[Transform], rig: Rig) -> None:
    """Summary, formats, needs and what it reads are words that the engine knows."""
    transform = offer.value
    require(0 < len(transform.summary) <= 100, "state", "summary must be one line of at most 100 characters")
    for member, allowed in (("takes", ("torch", "onnx")), ("gives", ("torch", "onnx"))):
        require(getattr(transform, member) in allowed, "state", f"{member} must be one of {', '.join(allowed)}")
    needs = ("nothing", "calibration", "training")
    require(transform.needs in needs, "state", f"needs must be one of {', '.join(needs)}")
    unknown = set(transform.reads) - {"task", "target", "device"}
    require(not unknown, "state", f"reads names {sorted(unknown)}; it may name task, target, device")


def has_params(offer: Offer[Transform], rig: Rig) -> None:
    """`Params` is a frozen dataclass whose fields have types, defaults and help, so that `NAME` alone works."""
    params = offer.value.Params
    frozen = is_dataclass(params) and getattr(params, "__dataclass_params__").frozen  # noqa: B009 - pyright does not know it
    require(frozen, "params", f"{params!r} must be a frozen dataclass")
    attempt("params", lambda: describe_params(params))
    for field in fields(params):
        require(_has_default(field), "params", f"{field.name} has no default")
        require(bool(field.metadata.get("help")), "params", f'{field.name} has no metadata={{"help": ...}}')
    same = attempt("params", lambda: parse_params(params, {}, "conformance")) == params()
    require(same, "params", "two instances made of the defaults are not equal")


def answers_before_it_works(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """`check` returns None or a reason that is a sentence, and changes nothing."""
    transform = offer.value
    models = rig.models(transform.takes)
    for model in models.values():
        before = fingerprint(model)
        require_sentence(attempt("check", lambda m=model: refused(transform, m, rig.target)), "check")
        require(fingerprint(model) == before, "check", f"it changed {model.name}")
    return None if models else no_sample(transform.takes)


def applies(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """On every sample it accepts: a new model that keeps the signature, is valid, runs, and is the same twice."""
    transform = offer.value
    refusal: Refusal | None = no_sample(transform.takes)
    worked = False
    for sample, model in rig.models(transform.takes).items():
        refusal = refused(transform, model, rig.target)
        if refusal is None:
            _applies_to(offer, model, sample, rig)
            worked = True
    return None if worked else refusal


def fingerprint(model: Model) -> tuple[Any, ...]:
    """What must not change while somebody else works on the model, files and arrays included."""
    arrays = tuple((name, array.tobytes()) for name, array in model.example.items())
    return model.digest, model.signature, model.history, _graphs(model), arrays


def no_sample(format: str) -> Refusal:
    """Why a check was left out where a format has no sample."""
    return Refusal(f"there is no {format} sample here; install the {format} extra to check it")


def _applies_to(offer: Offer[Transform], model: Model, sample: str, rig: Rig) -> None:
    before = fingerprint(model)
    label = f"{offer.plugin}/{offer.value.name}"
    first, second = (_apply(offer.value, model, rig.context(sample, label, turn)) for turn in ("first", "second"))
    require(fingerprint(model) == before, "apply", f"it changed its input, the {sample} sample")
    repeats = first.digest == second.digest and _graphs(first) == _graphs(second)
    require(repeats, "apply", f"it gives another model the second time, on the {sample} sample")
    _check_history(offer.value.name, model, first)
    _check_signature(model, first)
    require(first.format == offer.value.gives, "apply", f"it gives {first.format}, not {offer.value.gives} as stated")
    if first.format == "onnx":
        _check_graphs(first)
    _check_runs(first, rig.context(sample, label, "run"))


def _apply(transform: Transform, model: Model, context: Workbench) -> Model:
    params = attempt("params", transform.Params)
    if isinstance(transform, OnnxTransform):
        after = attempt("apply", lambda: applied(transform, model, params, context))
    else:
        decision = attempt("decide", lambda: transform.decide(model, params, context))
        require(_survives_json(decision), "decide", f"{type(decision).__name__} is not what JSON gives back")
        rewritten = attempt("rewrite", lambda: transform.rewrite(model, decision))
        after = attempt("fit", lambda: transform.fit(rewritten, decision, context))
        require_type(after, Model, "fit")
        if changed(after, model):
            _check_built_again(after, attempt("rewrite", lambda: transform.rewrite(model, decision)), context)
    require_type(after, Model, "apply")
    return after


def _check_built_again(fitted: Model, rewritten: Model, context: Context) -> None:
    """A later run has the decision and the weights alone; they must give what was trained."""
    again = attempt("rewrite", lambda: revived(shelved(fitted, context), rewritten, "built again"))
    found, wanted = (context.outputs(model, limit=4) for model in (again, sealed(fitted, "fitted")))
    same = all(np.allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5) for name in wanted)
    require(same, "rewrite", "with the trained weights it answers otherwise; keep all of it in parameters and buffers")


def _check_history(name: str, before: Model, after: Model) -> None:
    steps = [step.name for step in after.history[len(before.history) :]]
    kept = after.history[: len(before.history)] == before.history
    require(kept and steps == [name], "apply", f"its history grew by {steps}; it must grow by one step named {name!r}")
    attempt("apply", lambda: json.dumps(plain(after.history[-1])))


def _check_signature(before: Model, after: Model) -> None:
    for part in ("inputs", "outputs"):
        old, new = ([s.name for s in getattr(m.signature, part)] for m in (before, after))
        require(old == new, "apply", f"the {part} were {old} and are {new}; keep their names and order")


def _check_graphs(model: Model) -> None:
    for stage in model.stages:
        graph = stage.graph
        assert isinstance(graph, GraphFile)
        require(_content(graph.path) == graph.digest, "apply", f"the file of {stage.name} is not what its digest says")
        attempt("apply", lambda g=graph: onnx.checker.check_model(onnxkit.read(g)))


def _check_runs(model: Model, context: Context) -> None:
    outputs = attempt("run", lambda: context.outputs(model, limit=4))
    for spec in model.signature.outputs:
        require(spec.name in outputs, "run", f"the output {spec.name!r} is missing")
        found = outputs[spec.name]
        fits = found.ndim == len(spec.shape) and str(found.dtype) == spec.dtype
        require(fits, "mismatch", f"{spec.describe()} came out as {found.dtype} {list(found.shape)}")
        finite = found.dtype.kind != "f" or bool(np.isfinite(found).all())
        require(finite, "mismatch", f"{spec.name} holds values that are not finite")


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _survives_json(value: Any) -> bool:
    return attempt("decide", lambda: json.loads(json.dumps(value))) == value


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _graphs(model: Model) -> tuple[str, ...]:
    return tuple(
        _content(stage.graph.path) if isinstance(stage.graph, GraphFile) else _weights(stage.graph)
        for stage in model.stages
    )


def _weights(graph: Any) -> str:
    sha = hashlib.sha256()
    for name, tensor in graph.module.state_dict().items():
        sha.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return sha.hexdigest()
