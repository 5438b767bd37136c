"""Lets a transformer go on with a few semantic tokens (STViT: Chang et al. 2023), and recovers all where they count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgewright.protocols import Context, TorchTransform
from edgewright.types import Json, Model
from edgewright_plugins.tokens.settings import Learned, faster
from edgewright_plugins.tokens.transform import FewerTokens

if TYPE_CHECKING:
    from edgewright_plugins.tokens.decide import Method


@dataclass(frozen=True)
class Params(Learned):
    """What `stvit` can be told."""

    tokens: int = field(
        default=0,
        metadata={
            "help": "how many semantic tokens go on, of each window where attention keeps to windows; 0 for 16 (9 of "
            "a window), or a quarter of all where that is fewer",
            "low": 0,
        },
    )
    at: int = field(
        default=0,
        metadata={"help": "after which of the blocks on equal tokens, from 1; 0 to choose by speedup", "low": 0},
    )
    speedup: float | None = faster(1.5)


class Stvit(FewerTokens):
    """The transform `stvit`."""

    name = "stvit"
    summary = "go on with a few semantic tokens that look at all others; for windows (Swin) and dense answers too"
    Params = Params
    needs = "training"

    @property
    def method(self) -> Method:
        """Generates semantic tokens."""
        from edgewright_plugins.stvit.job import METHOD

        return METHOD

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The network, trained with the original as teacher."""
        from edgewright_plugins.stvit.job import train_tokens

        return train_tokens(model, decision, context)


STVIT: Any = Stvit()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (STVIT,)
