"""Predicts which tokens look at which, and lets attention compute nothing else (Sparsifiner: Wei et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgewright.params import TrainingParams
from edgewright.protocols import Context, TorchTransform
from edgewright.types import Json, Model, Refusal, Target
from edgewright_plugins.tokens.obstacle import obstacle


@dataclass(frozen=True)
class Params(TrainingParams):
    """What `sparsifiner` can be told."""

    epochs: int = field(
        default=10, metadata={"help": "passes over the training split; 0 to fit the predictors alone", "low": 0}
    )
    keep: float = field(
        default=0.5, metadata={"help": "share of the pairs of tokens that attention computes", "low": 0.01, "high": 1}
    )
    tile: int = field(
        default=0,
        metadata={
            "help": "neighbouring queries that look at the same keys, 1 as in the paper; 0 for 16, or a quarter of all "
            "tokens where they are few",
            "low": 0,
        },
    )
    block: int = field(
        default=0,
        metadata={
            "help": "neighbouring keys that are left out together, 1 as in the paper; 0 for 8, or an eighth of all "
            "tokens where they are few",
            "low": 0,
        },
    )
    rank: int = field(
        default=0,
        metadata={"help": "channels of a head that its predictor sees; 0 for half of them, as in the paper", "low": 0},
    )


class Sparsifiner:
    """The transform `sparsifiner`."""

    name = "sparsifiner"
    summary = "predict for each input which tokens look at which, and compute no other attention"
    Params = Params
    takes = "torch"
    gives = "torch"
    needs = "training"
    reads = ("task",)

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models of several stages, recurrent ones, hosts without torch, and networks without attention."""
        return obstacle(model, self.name)

    def decide(self, model: Model, params: Params, context: Context) -> Json:
        """The attentions, and into which tiles and blocks their tokens are cut.

        Raises: RefusedError where attention does more than a mask goes with; RecipeError for a budget that cannot be
            met.
        """
        from edgewright_plugins.sparsifiner.job import decide

        return decide(model, params, context)

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The network with predictors that have learned nothing."""
        from edgewright_plugins.sparsifiner.job import rewrite

        return rewrite(model, decision)

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The network with trained predictors, used to attention that is sparse."""
        from edgewright_plugins.sparsifiner.job import train_sparse

        return train_sparse(model, decision, context)


SPARSIFINER: Any = Sparsifiner()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (SPARSIFINER,)
