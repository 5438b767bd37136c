"""Joins alike tokens between a transformer's blocks, without training (ToMe: Bolya et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgewright.protocols import Context, TorchTransform
from edgewright.types import Json, Model, Refusal, Target
from edgewright_plugins.tokens.obstacle import obstacle


@dataclass(frozen=True)
class Params:
    """What `token-merge` can be told."""

    speedup: float | None = field(
        default=None,
        metadata={
            "help": "how many times as fast the network shall be; the schedule that does it and changes the outputs "
            "least is chosen by latency as measured (default: 1.3, where neither keep nor at says it)",
            "low": 1.01,
            "high": 100,
        },
    )
    keep: tuple[int, ...] = field(
        default=(), metadata={"help": "how many tokens stay each time, as in 48+32; none to halve them", "low": 1}
    )
    at: tuple[int, ...] = field(
        default=(), metadata={"help": "after which blocks, from 1, as in 2+4; none for even distances", "low": 1}
    )


class TokenMerge:
    """The transform `token-merge`."""

    name = "token-merge"
    summary = "join alike tokens between the blocks of a transformer; nothing is trained"
    Params = Params
    takes = "torch"
    gives = "torch"
    needs = "calibration"
    reads = ("task", "target", "device")

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models of several stages, recurrent ones, hosts without torch, and networks without attention."""
        return obstacle(model, self.name)

    def decide(self, model: Model, params: Params, context: Context) -> Json:
        """After which blocks how many tokens stay.

        Raises: RefusedError for networks whose tokens cannot become fewer; RecipeError for a schedule that does not
            fit, or a speed-up that none reaches.
        """
        from edgewright_plugins.token_merge.job import decide

        return decide(model, params, context)

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The network that joins tokens. Raises: RefusedError when its code needs them all."""
        from edgewright_plugins.token_merge.job import rewrite

        return rewrite(model, decision)

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The same network; nothing trains."""
        from edgewright_plugins.token_merge.job import told

        return told(model, decision)


TOKEN_MERGE: Any = TokenMerge()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (TOKEN_MERGE,)
