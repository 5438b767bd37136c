"""Dynamic Perceiver (Han et al. 2023, arXiv:2306.11248): a latent beside a convolutional network answers early.

Sides stand around the last two resolution stages of the network. The exits are two, behind the looks before those
stages, and the last side gives the answer. The paper's third exit, the network's own head, serves in training alone:
between it and the answer lies one small attention, so there is nothing to save.

Departures: the latent begins two stages before the end, since a first exit that had seen earlier maps as well knew no
more; it is as wide as the map it looks at, at up to 64 places where the paper has 49; one look per stage, without
attention to itself (see `latent`); layer norms where the paper has batch norms between linear layers; the network
itself comes trained, and goes on unchanged at first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgewright.errors import RefusedError
from edgewright.torchkit.anatomy import Anatomy, TokenGrid
from edgewright_plugins.early_exit.heads.latent import Look, Mix, Write
from edgewright_plugins.early_exit.side import Cut, State

LEAST_STAGES = 3
"""The fewest resolution stages that a network must have."""
BESIDE = 2
"""How many of its last stages the latent goes along with; there is an exit before each."""


def takes(anatomy: Anatomy) -> bool:
    """Whether the network has the form: maps at three resolutions or more."""
    maps = [stage for stage in anatomy.stages if stage.layout == "map" and stage.grid and len(stage.grid) == 2]
    return len(maps) == len(anatomy.stages) >= LEAST_STAGES and len(anatomy.blocks[0].in_shape) == 4


def cuts(anatomy: Anatomy) -> tuple[Cut, ...]:
    """Before each of the last stages, and after the last one."""
    ends = {block.stage: block.end for block in anatomy.blocks}
    return tuple(Cut(end) for end in ends.values())[-BESIDE - 1 :]


def sides(anatomy: Anatomy, classes: int, *, tokens: int = 32) -> list[nn.Module]:
    """The sides for `cuts`, new.

    Args:
        anatomy: of the network they stand beside.
        classes: how many there are.
        tokens: of the latent at first; half as many at the next stage.

    Raises: RefusedError for a network of another form.
    """
    if not takes(anatomy):
        raise RefusedError(
            f"Dynamic Perceiver needs feature maps at {LEAST_STAGES} resolutions or more, and this network has "
            f"{len(anatomy.stages)} stages; choose heads=linear, or heads=lgvit where there are tokens"
        )
    first, second, last = anatomy.stages[-BESIDE - 1 :]
    return [Begin(first, tokens, classes), Between(first, second, tokens, classes), End(second, last, classes)]


class Verdict(nn.Module):
    """Logits from what was seen [b, width] and, where it is `informed`, from those of the exit before it."""

    def __init__(self, width: int, classes: int, *, informed: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pass_on = nn.Sequential(nn.Linear(classes, classes), nn.ReLU()) if informed else None
        self.linear = nn.Linear(width + (classes if informed else 0), classes)

    def forward(self, seen: Tensor, before: Tensor | None = None) -> Tensor:
        """Logits [b, classes]; `before` likewise."""
        seen = self.norm(seen)
        if self.pass_on is None or before is None:
            return self.linear(seen)
        return self.linear(torch.cat([seen, self.pass_on(before)], 1))


class Begin(nn.Module):
    """The latent as it was learned looks at a map, and an exit."""

    def __init__(self, seen: TokenGrid, tokens: int, classes: int) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.randn(1, tokens, seen.width) * 0.02)
        self.look = Look(seen.width, seen.grid or (), seen.width)
        self.verdict = Verdict(seen.width, classes, informed=False)
        self.features: Tensor | None = None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """The state is the latent and the logits."""
        z = self.look(x, self.latent)
        logits = self.verdict(z.mean(1))
        return x, (z, logits), logits


class Between(nn.Module):
    """Behind a stage of the network: the latent writes to the map and looks at it again, and an exit."""

    def __init__(self, before: TokenGrid, seen: TokenGrid, tokens: int, classes: int) -> None:
        super().__init__()
        self.mix = Mix(tokens, before.width, seen.width)
        self.write = Write(seen.width, seen.width)
        self.look = Look(seen.width, seen.grid or (), seen.width)
        self.verdict = Verdict(seen.width, classes, informed=True)
        self.features: Tensor | None = None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """The state is the latent and the logits."""
        z, before = state
        z = self.mix(z)
        x = self.write.added(x, z)
        z = self.look(x, z)
        logits = self.verdict(z.mean(1), before)
        return x, (z, logits), logits


class End(nn.Module):
    """The answer, from the last map as the latent writes to it, the latent, and the last exit's logits.

    The network goes on with the map as it was, so that its own head stays what it is.
    """

    def __init__(self, before: TokenGrid, last: TokenGrid, classes: int) -> None:
        super().__init__()
        self.write = Write(last.width, before.width)
        self.verdict = Verdict(last.width + before.width, classes, informed=True)
        self.features: Tensor | None = None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Logits of the answer; the state ends here."""
        z, before = state
        seen = torch.cat([self.write.mean(x, z), z.mean(1)], 1)
        return x, (), self.verdict(seen, before)
