"""What a model would cost on a target that is not at hand."""

from __future__ import annotations

from edgewright.asking.request import Request
from edgewright.asking.targets import find_target
from edgewright.environment import Environment
from edgewright.registry import PREDICTORS, blame
from edgewright.types import Measurement, Target
from edgewright.verbs.subject import lowered_model


def predict(source: str, request: Request, env: Environment) -> tuple[Target, str, tuple[Measurement, ...]]:
    """The target, a note when its name was a family's, and latency and energy with their intervals."""
    target, note = find_target(request.target, env.registry)
    offer = env.registry.get(PREDICTORS, target.predictor)
    model = lowered_model(source, request, env)
    with blame(offer, f"predicting {source} for {target.name}"):
        found = tuple(offer.value.predict(model, target, quantity) for quantity in ("latency", "energy"))
    return target, note, found
