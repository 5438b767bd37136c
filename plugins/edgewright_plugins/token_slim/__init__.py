"""Slims a transformer's tokens between its blocks, and trains it to need no more (SiT: Zong et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgewright.protocols import Context, TorchTransform
from edgewright.types import Json, Model, Refusal, Target
from edgewright_plugins.tokens.obstacle import obstacle


@dataclass(frozen=True)
class Params:
    """What `token-slim` can be told."""

    speedup: float | None = field(
        default=None,
        metadata={
            "help": "how many times as fast the network shall be; the schedule that does it and loses least is "
            "chosen by latency as measured (default: 1.5, where neither keep nor at says it)",
            "low": 1.01,
            "high": 100,
        },
    )
    keep: tuple[int, ...] = field(
        default=(), metadata={"help": "how many tokens stay each time, as in 32+16; none to halve them", "low": 1}
    )
    at: tuple[int, ...] = field(
        default=(), metadata={"help": "after which blocks, from 1, as in 2+4; none for even distances", "low": 1}
    )
    epochs: int = field(default=10, metadata={"help": "passes over the training split", "low": 1})
    batch: int = field(default=128, metadata={"help": "examples in a step", "low": 1})
    rate: float = field(
        default=1e-3,
        metadata={"help": "highest learning rate, of what is new; the network has 0.3 of it", "low": 1e-9},
    )
    distill: float = field(
        default=0.5,
        metadata={"help": "share of the answers' loss that compares with the original", "low": 0, "high": 1},
    )
    recalibrate: float = field(
        default=2.0, metadata={"help": "weight of the loss that recovers all tokens; 0 for none", "low": 0, "high": 100}
    )


class TokenSlim:
    """The transform `token-slim`."""

    name = "token-slim"
    summary = "fewer tokens after some blocks of a transformer: mixtures that are learned from the original"
    Params = Params
    takes = "torch"
    gives = "torch"
    needs = "training"
    reads = ("task", "target", "device")

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models of several stages, recurrent ones, hosts without torch, and networks without attention."""
        return obstacle(model, self.name)

    def decide(self, model: Model, params: Params, context: Context) -> Json:
        """After which blocks how many tokens stay.

        Raises: RefusedError for networks whose tokens cannot become fewer; RecipeError for a schedule that does not
            fit, or a speed-up that none reaches.
        """
        from edgewright_plugins.token_slim.job import decide

        return decide(model, params, context)

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The network with new modules, which start as means of neighbours."""
        from edgewright_plugins.token_slim.job import rewrite

        return rewrite(model, decision)

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The network, trained; what only training needs is gone."""
        from edgewright_plugins.token_slim.job import train_slims

        return train_slims(model, decision, context)


TOKEN_SLIM: Any = TokenSlim()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (TOKEN_SLIM,)
