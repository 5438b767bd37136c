"""What stands at a cut of a backbone: where the cut is, the one form that every head has, and how it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

State = tuple[Tensor, ...]
"""What sides hand on to the sides after them."""


@dataclass(frozen=True)
class Cut:
    """After the block that the module at `path` ends, or `before` the one that it starts."""

    path: str
    before: bool = False


class Side(Protocol):
    """A module at a cut; heads are `nn.Module`s with this forward.

    `features` is what distillation compares after a forward, head tokens [b, n, c]; None where there are none.
    """

    features: Tensor | None

    def __call__(self, x: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """One step beside the backbone.

        Args:
            x: what the block gave, in its own layout: tokens [b, n, c], map [b, c, h, w] or map_last [b, h, w, c].
            state: what earlier sides hand on; empty at the first.

        Returns:
            What the backbone goes on with (`x` itself for plain heads), the new state, and logits [b, classes], or
            None where there is no exit.
        """
        ...


@dataclass(frozen=True, eq=False)
class Answer:
    """What a side gave: what the backbone goes on with, the state, its logits and its features, where it has any."""

    x: Tensor
    state: State
    logits: Tensor | None
    features: Tensor | None


def ask(side: Side, x: Tensor, state: State) -> Answer:
    """One step of `side`, which keeps nothing of it."""
    x, state, logits = side(x, state)
    features, side.features = side.features, None
    return Answer(x, state, logits, features)
