"""How networks learn to do with fewer tokens: slower than what is new in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

from torch import nn

from edgewright.torchkit.training import Training, decayed_and_not
from edgewright_plugins.tokens.settings import Learned

DECAY = 0.05
SLOWER = 0.3
"""The share of the rate that the network learns with; new modules have all of it."""


class Renewed(Protocol):
    """A network that knows which of its weights are new."""

    def new(self) -> Iterable[nn.Parameter]:
        """Those that no training has seen."""
        ...


def groups(module: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups: what a `Renewed` network had before learns at `SLOWER` of the rate of what is new."""
    fresh = {id(each) for each in cast("Renewed", module).new()}
    found: list[dict[str, Any]] = []
    for group in decayed_and_not(module, DECAY):
        for new, share in ((False, SLOWER), (True, 1.0)):
            some = [each for each in group["params"] if (id(each) in fresh) == new]
            found.append({**group, "params": some, "lr": share})
    return [group for group in found if group["params"]]


def settings(params: Learned) -> Training:
    """The settings of the training."""
    return Training(epochs=params.epochs, batch=params.batch, rate=params.rate, weight_decay=DECAY)


def trained(losses: Sequence[float]) -> str:
    """What a step says of its training."""
    return f"loss {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last" if losses else "own loop"
