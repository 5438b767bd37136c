"""Applies one method: checked first, taken from the cache when it was done before, blamed by name when it fails."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewright.bench import Bench
from edgewright.context import Workbench
from edgewright.errors import RefusedError
from edgewright.protocols import OnnxTransform, TorchTransform
from edgewright.recipe import Method
from edgewright.registry import TRANSFORMS, blame
from edgewright.store import key_of
from edgewright.types import Model


def run_step(method: Method, model: Model, bench: Bench) -> Model:
    """Apply one method, or take its result from the cache.

    Raises: RefusedError when the method says it cannot; PluginError when it fails.
    """
    offer = method.offer
    refusal = offer.value.check(model, bench.target)
    if refusal is not None:
        raise RefusedError(f"{method.name} cannot work on {model.name}: {refusal.reason}")
    key = step_key(method, model, bench)
    known = bench.store.load_model(key, model.example)
    if known is not None:
        # The same graph may have come from elsewhere before: only what this step did is taken over.
        return replace(known, name=model.name, source=model.source, history=(*model.history, known.history[-1]))
    context = Workbench(bench, key)
    with blame(offer, f"applying {method.name!r} to {model.name} for {bench.target.name}"):
        result = _worked(offer.value, model, method.params, context)
    result = _signed(result, offer.label)
    if result.format != "torch":
        bench.store.save_model(key, result)
        bench.store.forget_scratch(key)
    return result


def _worked(transform: OnnxTransform | TorchTransform, model: Model, params: Any, context: Workbench) -> Model:
    if isinstance(transform, OnnxTransform):
        return transform.apply(model, params, context)
    decision = context.remember("decision", lambda: transform.decide(model, params, context))
    return transform.fit(transform.rewrite(model, decision), decision, context)


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
