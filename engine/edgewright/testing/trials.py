"""Methods at work on the sample models: done once, and looked at by many checks."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.deploying.context import Workbench
from edgewright.deploying.trained import changed, revived, sealed, shelved
from edgewright.errors import PluginError
from edgewright.protocols import Context, OnnxTransform
from edgewright.registry import Transform
from edgewright.stagewise.apply import applied, refused
from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import attempt, require, require_sentence, require_type
from edgewright.types import GraphFile, Model, Offer, Refusal

NOTED = frozenset(
    (
        *("task", "target", "max_drop", "scratch", "folder", "keep", "progress", "remember", "feed", "outputs"),
        *("score", "cost", "stage_costs", "settled", "profile", "lower"),
    )
)
"""What a method may ask its context for, but for what its result always depends on."""


class Cut(Exception):
    """Ends a step in the middle, as a lost device or a full disk would; no plugin can expect it."""


@dataclass(frozen=True, eq=False)
class Noting(Workbench):
    """A context that notes what it is asked for, and fails at the `cut`-th time where that is not 0."""

    asked: list[str] = field(default_factory=list[str])
    cut: int = 0

    def __getattribute__(self, name: str) -> Any:
        """Raises: Cut."""
        if name in NOTED:
            asked: list[str] = object.__getattribute__(self, "asked")
            asked.append(name)
            if len(asked) == object.__getattribute__(self, "cut"):
                raise Cut("the conformance kit ended the step here")
        return super().__getattribute__(name)


@dataclass(frozen=True, eq=False)
class Trial:
    """A method applied to a sample, to the first one twice; `asked` is what it wanted of its context, in order."""

    sample: str
    model: Model
    intact: bool
    first: Model
    second: Model | None
    asked: Sequence[str]
    trained: bool


@dataclass(frozen=True, eq=False)
class Tried:
    """What became of a method on all samples: why it works on none, or how it failed."""

    trials: Sequence[Trial]
    refusal: Refusal | None
    failure: PluginError | None = None

    @property
    def without(self) -> Refusal:
        """Why there is nothing to look at."""
        return Refusal("it could not be applied; see `applies`") if self.failure else self.refusal or Refusal("")


def tried(offer: Offer[Transform], rig: Rig) -> Tried:
    """The method on every sample that it accepts, done once per rig."""
    return rig.once("tried", offer, lambda: _try(offer, rig))


def _try(offer: Offer[Transform], rig: Rig) -> Tried:
    transform, refusal = offer.value, no_sample(offer.value.takes)
    trials: list[Trial] = []
    for sample, model in rig.models(transform.takes).items():
        try:
            refused_for = require_sentence(attempt("check", lambda m=model: refused(transform, m, rig.target)), "check")
            if refused_for is None:
                trials.append(_trial(offer, sample, model, rig, twice=not trials))
        except PluginError as failure:
            return Tried(trials, None, failure)
        refusal = refused_for or refusal
    return Tried(trials, None if trials else refusal)


def _trial(offer: Offer[Transform], sample: str, model: Model, rig: Rig, *, twice: bool) -> Trial:
    before, asked = fingerprint(model), list[str]()
    first = apply(offer.value, model, Noting(*_bench(rig, sample, offer, "first"), asked))
    intact = fingerprint(model) == before
    again = rig.models(offer.value.takes)[sample]
    second = apply(offer.value, again, Noting(*_bench(rig, sample, offer, "second"))) if twice else None
    trained = isinstance(offer.value, OnnxTransform) is False and changed(first, model)
    return Trial(sample, model, intact, first, second, tuple(asked), trained)


def cut_short(offer: Offer[Transform], trial: Trial, rig: Rig) -> Model | Exception | None:
    """The method on the trial's sample, with a context that fails half way: what came out of it, done once per rig.

    None when it asks its context for nothing, so that there is no half way.
    """
    return rig.once(f"cut {trial.sample}", offer, lambda: _cut(offer, trial, rig))


def _cut(offer: Offer[Transform], trial: Trial, rig: Rig) -> Model | Exception | None:
    if not trial.asked:
        return None
    context = Noting(*_bench(rig, trial.sample, offer, "cut"), cut=len(trial.asked) // 2 + 1)
    try:
        return apply(offer.value, rig.models(offer.value.takes)[trial.sample], context)
    except Exception as cause:  # noqa: BLE001 - whatever becomes of the error is what the checks look at
        return cause


def resumed(offer: Offer[Transform], trial: Trial, rig: Rig) -> Model:
    """The method once more where it was cut short, in modules that know nothing of what happened before."""
    with afresh(offer) as transform:
        return apply(
            transform, rig.models(transform.takes)[trial.sample], Noting(*_bench(rig, trial.sample, offer, "cut"))
        )


def alone(offer: Offer[Transform], trial: Trial, rig: Rig) -> Model:
    """The method on the trial's sample, in modules that have worked on nothing else before."""
    with afresh(offer) as transform:
        context = Noting(*_bench(rig, trial.sample, offer, "alone"))
        return apply(transform, rig.models(transform.takes)[trial.sample], context)


@contextmanager
def afresh(offer: Offer[Any]) -> Generator[Any]:
    """What is offered, its package imported anew, as a new process would; the modules there were come back afterwards.

    Raises: PluginError when it cannot be had so.
    """
    path, _, name = offer.entry.partition(":")
    require(bool(name), "load", "no module holds the offered object under a name; assign it to one")
    top = path.partition(".")[0]
    kept = {key: module for key, module in sys.modules.items() if key.partition(".")[0] == top}
    for key in kept:
        del sys.modules[key]
    try:
        yield attempt("load", lambda: getattr(importlib.import_module(path), name))
    finally:
        for key in [key for key in sys.modules if key.partition(".")[0] == top]:
            del sys.modules[key]
        sys.modules.update(kept)


def _bench(rig: Rig, sample: str, offer: Offer[Transform], turn: str) -> tuple[Any, str]:
    context = rig.context(sample, f"{offer.plugin}/{offer.value.name}", rig.number(offer), turn)
    return context.bench, context.key


# ------------------------------------------------------------------ one application


def apply(transform: Transform, model: Model, context: Workbench) -> Model:
    """With default parameters. Raises: PluginError saying where it failed; Cut where the context is cut short."""
    params = attempt("params", transform.Params)
    if isinstance(transform, OnnxTransform):
        after = attempt("apply", lambda: applied(transform, model, params, context), (Cut,))
    else:
        decision = context.remember("decision", lambda: _decided(transform, model, params, context))
        rewritten = attempt("rewrite", lambda: transform.rewrite(model, decision), (Cut,))
        after = attempt("fit", lambda: transform.fit(rewritten, decision, context), (Cut,))
        require_type(after, Model, "fit")
        if changed(after, model):
            _check_built_again(after, attempt("rewrite", lambda: transform.rewrite(model, decision)), context)
    require_type(after, Model, "apply")
    return after


def _decided(transform: Any, model: Model, params: Any, context: Context) -> Any:
    decision = attempt("decide", lambda: transform.decide(model, params, context), (Cut,))
    kept = attempt("decide", lambda: json.loads(json.dumps(decision)))
    require(kept == decision, "decide", f"{type(decision).__name__} is not what JSON gives back")
    return decision


def _check_built_again(fitted: Model, rewritten: Model, context: Workbench) -> None:
    """A later run has the decision and the weights alone; they must give what was trained."""
    plain = Workbench(context.bench, context.key)
    again = attempt("rewrite", lambda: revived(shelved(fitted, plain), rewritten, "built again"))
    found, wanted = (plain.outputs(model, limit=4) for model in (again, sealed(fitted, "fitted")))
    same = all(np.allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5) for name in wanted)
    require(same, "rewrite", "with the trained weights it answers otherwise; keep all of it in parameters and buffers")


# ------------------------------------------------------------------ what a model is


def no_sample(format: str) -> Refusal:
    """Why a check was left out where a format has no sample."""
    return Refusal(f"there is no {format} sample here; install the {format} extra to check it")


def fingerprint(model: Model) -> tuple[Any, ...]:
    """What must not change while somebody else works on the model, files and arrays included."""
    arrays = tuple((name, array.tobytes()) for name, array in model.example.items())
    return model.digest, model.signature, model.history, graphs(model), arrays


def graphs(model: Model) -> tuple[str, ...]:
    """The digest of what each stage really holds: the content of its file, or the weights of its module."""
    return tuple(
        content(stage.graph.path) if isinstance(stage.graph, GraphFile) else _weights(stage.graph)
        for stage in model.stages
    )


def same(one: Model, other: Model) -> bool:
    """Whether two models are the same, whatever they state."""
    return one.digest == other.digest and graphs(one) == graphs(other)


def content(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _weights(graph: Any) -> str:
    sha = hashlib.sha256()
    for name, tensor in graph.module.state_dict().items():
        sha.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return sha.hexdigest()
