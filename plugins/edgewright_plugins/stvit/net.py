"""A network some of whose blocks work on semantic tokens."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from edgewright_plugins.early_exit.net import Change, changed
from edgewright_plugins.early_exit.side import Cut
from edgewright_plugins.stvit.generate import Generate, Recover
from edgewright_plugins.stvit.instead import Instead
from edgewright_plugins.stvit.layer import Looking, layer_of
from edgewright_plugins.stvit.pools import Windows
from edgewright_plugins.stvit.shape import Semantic
from edgewright_plugins.tokens.masks import FittingMasks
from edgewright_plugins.tokens.schedule import Schedule
from edgewright_plugins.tokens.shape import Shape

LAYERS = 2
"""That generate semantic tokens, as in the paper."""


class SemanticNet(nn.Module):
    """The `backbone`, whose block at `start` makes semantic tokens, on which the blocks of `shape` behind it work.

    Its own code decides how blocks are called. Where what follows needs all tokens, `recover` makes them again.
    `whole` holds the network as it was, to learn from; a finished network has none.
    """

    def __init__(
        self, backbone: nn.Module, shape: Semantic, start: str, recover: Recover | None, whole: nn.Module
    ) -> None:
        super().__init__()
        self.backbone, self.shape, self.start, self.recover = backbone, shape, start, recover
        self.whole: tuple[nn.Module, ...] = (whole,)

    def forward(self, *inputs: Tensor) -> Any:
        """What the network returns."""
        with changed(self.backbone, self._recovering()), FittingMasks():
            return self.backbone(*inputs)

    def _recovering(self) -> list[tuple[Cut, Change]]:
        if self.recover is None:
            return []
        recover, met = self.recover, list[Tensor]()

        def note(x: Tensor) -> Tensor:
            met.append(x)
            return x

        return [(Cut(self.start, before=True), note), (Cut(self.shape.ends[-1]), lambda x: recover(x, met.pop()))]

    def new(self) -> Iterable[nn.Parameter]:
        """Weights that no training has seen."""
        for module in self.modules():
            if isinstance(module, Generate):
                yield module.guide
            if isinstance(module, Looking) and not module.copied:
                yield from module.parameters()

    def finish(self) -> None:
        """Forget the network as it was."""
        self.whole = ()


class Alone(nn.Module):
    """A layer in which tokens look at each other."""

    def __init__(self, layer: Looking) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [b, n, c] to tokens."""
        return self.layer(x, x)


def semantic(backbone: nn.Module, shape: Shape, schedule: Schedule) -> SemanticNet:
    """The backbone, in which `schedule.keep` semantic tokens go on from block `schedule.at`.

    The layers that generate them stand for the blocks that follow, and have their weights. Of a global transformer
    the other blocks stay; of one with windows each becomes a layer that looks at all semantic tokens.
    """
    assert isinstance(shape, Semantic)
    whole, (at,), (keep,) = copy.deepcopy(backbone), schedule.at, schedule.keep
    windows, count = Windows(shape.places, shape.window or shape.places), keep // shape.windows
    first, others = shape.blocks[at : at + LAYERS], shape.blocks[at + LAYERS :]
    layers = [layer_of(backbone, block, shape.width) for block in first]
    instead: dict[str, nn.Module] = {block.path: nn.Identity() for block in first}
    instead[first[0].path] = Generate(windows, count, layers, prefix=shape.prefix, width=shape.width)
    if shape.window:
        instead |= {block.path: Alone(layer_of(backbone, block, shape.width)) for block in others}
    for path, inner in instead.items():
        backbone.set_submodule(path, Instead(inner, shape.forms[path]))
    recover = None
    if shape.pooling not in ("token", "all"):
        recover = Recover(windows, count, Looking(shape.width, layers[0].heads, shape.width), prefix=shape.prefix)
    return SemanticNet(backbone, shape, first[0].path, recover, whole)
