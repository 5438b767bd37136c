"""A network that slims its tokens after some of its blocks, and what training looks at in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgewright_plugins.early_exit.net import Change, changed
from edgewright_plugins.early_exit.side import Cut
from edgewright_plugins.token_slim.slim import Recover, Slim, neighbours
from edgewright_plugins.tokens.masks import FittingMasks
from edgewright_plugins.tokens.schedule import Schedule
from edgewright_plugins.tokens.shape import Shape


class SlimNet(nn.Module):
    """The `backbone` with a module of `slims` behind each block that a module of `cuts` ends.

    Its own code decides how blocks are called. While it trains, `recover` has a module for each of the blocks that
    the modules at `compared` end; a finished network has none.
    """

    def __init__(self, backbone: nn.Module, shape: Shape, cuts: Sequence[str], slims: Sequence[nn.Module]) -> None:
        super().__init__()
        self.backbone, self.shape, self.cuts = backbone, shape, tuple(cuts)
        self.slims = nn.ModuleList(slims)
        self.recover: nn.ModuleList | None = None
        self.compared: tuple[str, ...] = ()

    def forward(self, *inputs: Tensor) -> Any:
        """What the network returns."""
        with changed(self.backbone, self._slimming()), FittingMasks():
            return self.backbone(*inputs)

    def seen(self, *inputs: Tensor) -> tuple[Any, list[Tensor]]:
        """What the network returns, and what was recovered of each block at `compared`: all tokens, as guessed."""
        found: list[Tensor] = []

        def noting(module: nn.Module) -> Change:
            def note(x: Tensor) -> Tensor:
                found.append(module(x))
                return x

            return note

        modules = cast("nn.ModuleList", self.recover)
        notes = [(Cut(path), noting(module)) for path, module in zip(self.compared, modules, strict=True)]
        # What a block gives is compared before its tokens are slimmed further.
        with changed(self.backbone, [*notes, *self._slimming()]):
            returned = self.backbone(*inputs)
        return returned, found

    def _slimming(self) -> list[tuple[Cut, Change]]:
        return [(Cut(path), cast("Change", slim)) for path, slim in zip(self.cuts, self.slims, strict=True)]

    def learning(self, schedule: Schedule, *, seed: int) -> None:
        """Give every block that sees fewer tokens a new module that recovers all."""
        shape = self.shape
        counts = schedule.counts(shape.tokens, len(shape.blocks))
        few = [(end, count) for end, count in zip(shape.ends, counts, strict=True) if count < shape.tokens]
        self.compared = tuple(end for end, _ in few)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = [Recover(shape.width, count, shape.tokens, prefix=shape.prefix) for _, count in few]
        self.recover = nn.ModuleList(made)

    def new(self) -> Iterable[nn.Parameter]:
        """All but the backbone's."""
        return (each for name, each in self.named_parameters() if not name.startswith("backbone."))

    def finish(self) -> None:
        """Delete what only training needs."""
        self.recover, self.compared = None, ()


def slimmed(backbone: nn.Module, shape: Shape, schedule: Schedule) -> SlimNet:
    """The backbone with new modules that start as means of neighbours."""
    grid = shape.grid or (shape.tokens,)
    slims: list[nn.Module] = []
    for keep in schedule.keep:
        groups, grid = neighbours(grid, keep)
        slims.append(Slim(shape.width, groups, prefix=shape.prefix))
        assert prod(grid) == keep
    return SlimNet(backbone, shape, [shape.ends[number - 1] for number in schedule.at], slims)


def features(module: nn.Module, ends: Sequence[str], inputs: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
    """What a network returns, and what its blocks that end at `ends` give."""
    found: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        found.append(x)
        return x

    with changed(module, [(Cut(end), note) for end in ends]):
        returned = module(*inputs)
    return returned, found
