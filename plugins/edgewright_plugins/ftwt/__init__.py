"""Predicts for each input which channels fire, and computes no others (FTWT: Elkerdawy et al. 2022)."""

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
    """What `ftwt` can be told."""

    epochs: int = field(
        default=10, metadata={"help": "passes over the training split; in the second half predictors rest", "low": 1}
    )
    keep: float | None = field(
        default=None,
        metadata={
            "help": "share of the network's multiply-accumulates that stay on average, predictors counted "
            "(default: 0.6, where nothing else says it)",
            "low": 0.01,
            "high": 0.99,
        },
    )
    speedup: float | None = field(
        default=None,
        metadata={
            "help": "how many times as fast the network shall be, by latency as measured",
            "low": 1.01,
            "high": 100,
        },
    )
    mass: float | None = field(
        default=None,
        metadata={"help": "share r of a layer's heat that the computed channels hold", "low": 0.01, "high": 1},
    )
    block: int = field(
        default=0,
        metadata={
            "help": "neighbouring channels that are left out together, at most half of a layer's; 1 as in the paper, 0 "
            "for as many as kernels on the target compute at once: 16 with AVX-512, else 8",
            "low": 0,
            "high": 64,
        },
    )
    mode: str = field(
        default="decoupled",
        metadata={
            "help": "decoupled: predictors learn beside the network; joint: the network also learns to be predictable",
            "choices": ("decoupled", "joint"),
        },
    )


class Ftwt:
    """The transform `ftwt`."""

    name = "ftwt"
    summary = "predict for each input which channels of a convolution fire, and compute no others"
    Params = Params
    takes = "torch"
    gives = "torch"
    needs = "training"
    reads = ("task", "target", "device")

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models of several stages, recurrent ones, and hosts without torch."""
        if len(model.stages) != 1:
            return Refusal(
                f"{model.name} has {len(model.stages)} stages, and ftwt trains models of one; apply it before "
                "the method that splits the model: --apply ftwt --apply early-exit"
            )
        if model.signature.state:
            return Refusal(f"{model.name} is recurrent; ftwt takes networks without states")
        if importlib.util.find_spec("torch") is None:
            return Refusal("ftwt needs PyTorch, which is not installed: pip install 'edgewright[torch]'")
        return None

    def decide(self, model: Model, params: Params, context: Context) -> Json:
        """The convolutions that skip, the mass that their computed channels hold, and what that leaves to do.

        Raises: RefusedError when no convolution can skip; RecipeError for a budget that cannot be met.
        """
        from edgewright_plugins.ftwt.job import decide

        return decide(model, params, context)

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The network with predictors, by which everything fires at first."""
        from edgewright_plugins.ftwt.job import rewrite

        return rewrite(model, decision)

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The network with trained predictors, its norms folded into the convolutions that skip."""
        from edgewright_plugins.ftwt.job import train_gates

        return train_gates(model, decision, context)


FTWT: Any = Ftwt()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (FTWT,)
