"""Reads the model and the task, and knows that they fit each other."""

from __future__ import annotations

from pathlib import Path

from edgewright.asking.recipe import Recipe
from edgewright.asking.recipefile import PROJECT_FILE
from edgewright.asking.request import Request
from edgewright.environment import Environment
from edgewright.errors import ModelError
from edgewright.protocols import Loader, LoadRequest
from edgewright.registry import LOADERS, Registry, blame
from edgewright.task import Task, load_task, noise_task
from edgewright.types import Model, Offer


def model_named(request: Request) -> str:
    """What the model is loaded from. Raises: ModelError when nothing names one."""
    if request.model is None:
        raise ModelError(
            f"no model was named, and {PROJECT_FILE} names none; give model.onnx, file.py:callable or .pt2"
        )
    return request.model


def load(request: Request, recipe: Recipe, env: Environment) -> tuple[Model, Task]:
    """The model and the task, known to fit each other.

    Raises: ModelError, TaskError.
    """
    source = model_named(request)
    folder = request.task is not None and Path(request.task).is_dir()
    early = load_task(request.task, seed=recipe.seed) if request.task and not folder else None
    offer = loader_for(source, env.registry)
    asked = LoadRequest(env.store, request.shapes, recipe.batch, recipe.seed, early)
    with blame(offer, f"loading {source}"):
        model = offer.value.load(source, asked)
    if request.task is None:
        task = noise_task(model.signature, recipe.seed)
    else:
        task = (early or load_task(request.task, model.signature, recipe.seed)).checked(model.signature)
    return model, task


def loader_for(source: str, registry: Registry) -> Offer[Loader]:
    """The one loader that takes `source`. Raises: ModelError when none or several do."""
    found = [offer for offer in registry.all(LOADERS) if offer.value.accepts(source)]
    built_in = [offer for offer in found if offer.plugin == "edgewright"]
    if len(built_in or found) != 1:
        if found:
            raise ModelError(
                f"{source} is taken by {' and '.join(o.label for o in found)}; leave one out with --no-plugin"
            )
        raise ModelError(
            f"no loader reads {source!r}; give model.onnx, file.py:callable, program.pt2 or a bundle folder"
        )
    return (built_in or found)[0]
