"""Checks of transforms: what they say of themselves, their parameters, and what they answer before they work."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from edgewright.params import describe_params, parse_params
from edgewright.registry import Transform
from edgewright.stagewise.apply import refused
from edgewright.testing.rig import Rig
from edgewright.testing.trials import fingerprint, no_sample
from edgewright.testing.verdicts import attempt, require, require_sentence
from edgewright.types import Offer, Refusal


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


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING
