"""Applies one method: checked first, taken from the cache when it was done before, blamed by name when it fails."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from edgewright.asking.recipe import Method
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.deploying.trained import WEIGHTS, changed, revived, sealed, shelved
from edgewright.errors import RefusedError
from edgewright.protocols import OnnxTransform, TorchTransform
from edgewright.registry import TRANSFORMS, blame
from edgewright.stagewise.apply import applied, refused
from edgewright.store import key_of
from edgewright.types import Json, Model


def run_step(method: Method, model: Model, bench: Bench) -> Model:
    """Apply one method, or take its result from the cache.

    Raises: RefusedError when the method says it cannot; PluginError when it fails.
    """
    offer = method.offer
    refusal = refused(offer.value, model, bench.target)
    if refusal is not None:
        raise RefusedError(f"{method.name} cannot work on {model.name}: {refusal.reason}")
    context = Workbench(bench, step_key(method, model, bench))
    with blame(offer, f"applying {method.name!r} to {model.name} for {bench.target.name}"):
        known = bench.store.load_model(context.key, model.example)
        if known is None:
            return _worked(method, model, context)
        again = revived(known, _rewritten(method, model, context), context.key) if known.format == WEIGHTS else known
    # The same graph may have come from elsewhere before: only what this step did is taken over.
    return replace(again, name=model.name, source=model.source, history=(*model.history, known.history[-1]))


def _worked(method: Method, model: Model, context: Workbench) -> Model:
    """The method's result, kept in the cache where that can be."""
    transform = method.offer.value
    if isinstance(transform, OnnxTransform):
        result = applied(transform, model, method.params, context)
    else:
        result = transform.fit(_rewritten(method, model, context), _decision(method, model, context), context)
    result = _signed(result, method.offer.label)
    if result.format != "torch":
        return _kept(result, context)
    trains = isinstance(transform, TorchTransform) and changed(result, model)
    return _trained(result, method, model, context) if trains else result


def _trained(fitted: Model, method: Method, model: Model, context: Workbench) -> Model:
    """What was trained, built as every later run builds it; as it is where the method's rewrite cannot be repeated."""
    shelf = shelved(fitted, context.bench.store)
    try:
        again = revived(shelf, _rewritten(method, model, context), context.key)
    except RuntimeError:
        return sealed(fitted, context.key)
    _kept(shelf, context)
    return again


def _rewritten(method: Method, model: Model, context: Workbench) -> Model:
    transform = cast("TorchTransform", method.offer.value)
    return transform.rewrite(model, _decision(method, model, context))


def _decision(method: Method, model: Model, context: Workbench) -> Json:
    transform = cast("TorchTransform", method.offer.value)
    return context.remember("decision", lambda: transform.decide(model, method.params, context))


def _kept(result: Model, context: Workbench) -> Model:
    context.bench.store.save_model(context.key, result)
    context.bench.store.forget_scratch(context.key)
    return result


def step_key(method: Method, model: Model, bench: Bench) -> str:
    """Everything the result of a step depends on."""
    reads: dict[str, Any] = {
        "task": (bench.task.digest, bench.recipe.bounds.max_drop),
        "target": bench.target,
        "device": bench.device.device().fingerprint if bench.device else bench.target,
    }
    return key_of(
        method.offer.label,
        code_of(method.offer.value),
        method.name,
        method.params,
        model.digest,
        model.signature,
        bench.original.digest,
        bench.recipe.seed,
        bench.recipe.batch,
        bench.recipe.threads,
        bench.versions,
        [reads[name] for name in method.offer.value.reads],
    )


def code_of(value: object) -> str:
    """The digest of the package (or the module) that an offer is written in: its author edits without a new version."""
    name = type(value).__module__
    module = sys.modules.get(name.partition(".")[0])
    path = Path(getattr(module, "__file__", None) or "")
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    sha = hashlib.sha256()
    for file in files:
        if file.is_file():
            sha.update(file.read_bytes())
    return sha.hexdigest()


def _signed(model: Model, label: str) -> Model:
    """The last step carries who did it, whatever the plugin wrote there."""
    if not model.history:
        return model
    return replace(model, history=(*model.history[:-1], replace(model.history[-1], plugin=label)))


def lowered(model: Model, bench: Bench) -> Model:
    """The ONNX form of a model; a torch one is lowered once."""
    if model.format == "onnx":
        return model
    offer = bench.registry.get(TRANSFORMS, "lower")
    return run_step(Method(offer, offer.value.Params()), model, bench)
