"""Slims a transformer's tokens between its blocks, and trains it to need no more (SiT: Zong et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgewright.protocols import Context, TorchTransform
from edgewright.types import Json, Model
from edgewright_plugins.tokens.settings import Learned, Scheduled
from edgewright_plugins.tokens.transform import FewerTokens

if TYPE_CHECKING:
    from edgewright_plugins.tokens.decide import Method


@dataclass(frozen=True)
class Params(Learned, Scheduled):
    """What `token-slim` can be told."""

    recalibrate: float = field(
        default=2.0, metadata={"help": "weight of the loss that recovers all tokens; 0 for none", "low": 0, "high": 100}
    )


class TokenSlim(FewerTokens):
    """The transform `token-slim`."""

    name = "token-slim"
    summary = "fewer tokens after some blocks of a transformer: mixtures that are learned from the original"
    Params = Params
    needs = "training"

    @property
    def method(self) -> Method:
        """Mixes tokens, at the start as means of neighbours."""
        from edgewright_plugins.token_slim.job import METHOD

        return METHOD

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The network, trained; what only training needs is gone."""
        from edgewright_plugins.token_slim.job import train_slims

        return train_slims(model, decision, context)


TOKEN_SLIM: Any = TokenSlim()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (TOKEN_SLIM,)
