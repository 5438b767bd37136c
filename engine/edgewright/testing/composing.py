"""The check that methods get along: each built-in one before and after the method under test."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgewright.deploying.context import Workbench
from edgewright.errors import PluginError, RefusedError
from edgewright.protocols import OnnxTransform
from edgewright.registry import TRANSFORMS, Transform
from edgewright.registry.discovery import GROUP
from edgewright.stagewise.apply import refused
from edgewright.testing.rig import Rig
from edgewright.testing.trials import apply, tried
from edgewright.testing.verdicts import attempt, require, require_sentence
from edgewright.types import Model, Offer, Refusal

SAMPLE = "conv"
"""One is enough: what is looked for is what one method makes that another one does not take."""


def composes_with_the_built_ins(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """Before and after each built-in method that does not train: a refusal in a sentence, or a model that runs."""
    transform = offer.value
    if not isinstance(transform, OnnxTransform) or transform.needs == "training":
        return Refusal("methods that train are tried alone: in pairs they would keep a check busy for long")
    trials = tried(offer, rig)
    mine = next((trial.first for trial in trials.trials if trial.sample == SAMPLE), None)
    if mine is None:
        return Refusal("it takes no single ONNX graph") if trials.trials else trials.without
    for other in _partners(offer, rig):
        theirs = rig.once("made", other, lambda o=other: _made(o, rig))
        if theirs is not None and theirs.format == transform.takes:
            _pair(other, offer, theirs, rig, blamed=f"after {other.value.name}")
        # Of two built-in ones each is the other's partner: both orders are tried so.
        if offer.plugin != GROUP and mine.format == other.value.takes:
            _pair(offer, other, mine, rig, blamed=f"before {other.value.name}")
    return None


def _partners(offer: Offer[Transform], rig: Rig) -> Iterator[Offer[Transform]]:
    for other in rig.registry.all(TRANSFORMS):
        rewrites = isinstance(other.value, OnnxTransform) and other.value.needs != "training"
        if rewrites and other.plugin == GROUP and other.value.name != offer.value.name:
            yield other


def _made(offer: Offer[Transform], rig: Rig) -> Model | None:
    """What the method makes of the sample; None where it does not work on it."""
    model = rig.models(offer.value.takes).get(SAMPLE)
    if model is None or refused(offer.value, model, rig.target) is not None:
        return None
    return apply(offer.value, model, rig.context(SAMPLE, "made", offer.plugin, offer.value.name))


def _pair(first: Offer[Transform], second: Offer[Transform], between: Model, rig: Rig, *, blamed: str) -> None:
    """The second method on what the first one made of the sample."""
    try:
        refusal = require_sentence(attempt("check", lambda: refused(second.value, between, rig.target)), "check")
        if refusal is None:
            key = ("pair", f"{first.plugin}/{first.value.name}", f"{second.plugin}/{second.value.name}")
            context = rig.context(SAMPLE, *key)
            _check_runs(between, apply(second.value, between, context), context)
    except PluginError as failure:
        if isinstance(failure.__cause__, RefusedError):
            require_sentence(Refusal(str(failure.__cause__)), "apply")
            return
        raise PluginError(f"compose: {blamed}: {failure}") from failure


def _check_runs(before: Model, after: Model, context: Workbench) -> None:
    outputs = attempt("run", lambda: context.outputs(after, limit=4))
    for spec in before.signature.outputs:
        require(spec.name in outputs, "run", f"the output {spec.name!r} is missing")
        found = outputs[spec.name]
        require(bool(np.isfinite(found).all()), "mismatch", f"{spec.name} holds values that are not finite")
