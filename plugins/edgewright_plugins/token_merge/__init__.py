"""Joins alike tokens between a transformer's blocks, without training (ToMe: Bolya et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewright.protocols import Context, TorchTransform
from edgewright.types import Json, Model
from edgewright_plugins.tokens.settings import Scheduled, faster
from edgewright_plugins.tokens.transform import FewerTokens

if TYPE_CHECKING:
    from edgewright_plugins.tokens.decide import Method


@dataclass(frozen=True)
class Params(Scheduled):
    """What `token-merge` can be told."""

    speedup: float | None = faster(1.3)


class TokenMerge(FewerTokens):
    """The transform `token-merge`."""

    name = "token-merge"
    summary = "join alike tokens between the blocks of a transformer; nothing is trained"
    Params = Params
    needs = "calibration"

    @property
    def method(self) -> Method:
        """Joins alike tokens."""
        from edgewright_plugins.token_merge.job import METHOD

        return METHOD

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The same network; nothing trains."""
        from edgewright_plugins.token_merge.job import told

        return told(model, decision)


TOKEN_MERGE: Any = TokenMerge()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (TOKEN_MERGE,)
