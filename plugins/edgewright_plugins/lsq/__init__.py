"""Trains weights and activations of 2 to 8 bits with learned steps (LSQ: Esser et al. 2020, arXiv:1902.08153)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgewright.params import TrainingParams
from edgewright.protocols import Context, TorchTransform
from edgewright.types import Json, Model, Refusal, Target


@dataclass(frozen=True)
class Params(TrainingParams):
    """What `lsq` can be told."""

    bits: int = field(default=4, metadata={"help": "bits of a weight", "low": 2, "high": 8})
    activations: int = field(default=4, metadata={"help": "bits of a layer's input", "low": 2, "high": 8})
    edges: int = field(default=8, metadata={"help": "bits in the first and the last layer", "low": 2, "high": 8})
    optimizer: str = field(default="sgd", metadata={"help": "of the training", "choices": ("sgd", "adamw")})


class Lsq:
    """The transform `lsq`."""

    name = "lsq"
    summary = "train weights and activations of 2 to 8 bits, with steps that are learned"
    Params = Params
    takes = "torch"
    gives = "torch"
    needs = "training"
    reads = ("task",)

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models of several stages, and hosts without torch."""
        if len(model.stages) != 1:
            return Refusal(
                f"{model.name} has {len(model.stages)} stages, and lsq trains models of one; apply it before "
                "the method that splits the model: --apply lsq --apply early-exit"
            )
        if importlib.util.find_spec("torch") is None:
            return Refusal("lsq needs PyTorch, which is not installed: pip install 'edgewright[torch]'")
        return None

    def decide(self, model: Model, params: Params, context: Context) -> Json:
        """The grid of each layer's weight and input, and how to train.

        Raises: RefusedError when the model has no layer to round, or was given no training data.
        """
        from edgewright_plugins.lsq.job import decide

        return decide(model, params, context)

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The model with rounding layers; their inputs pass until they are calibrated."""
        from edgewright_plugins.lsq.job import rewrite

        return rewrite(model, decision)

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The model with trained weights and steps."""
        from edgewright_plugins.lsq.job import train_steps

        return train_steps(model, decision, context)


LSQ: Any = Lsq()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (LSQ,)
