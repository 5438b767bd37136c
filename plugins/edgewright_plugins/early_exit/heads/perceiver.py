"""Dynamic Perceiver (Han et al. 2023, arXiv:2306.11248): a latent beside a convolutional network answers early.

Sides stand between the last resolution stages of the network. The exits are two, behind the last two stages of the
latent, and the last side gives the answer. The paper's third exit, the network's own head, serves in training alone:
between it and the answer lies one small attention, so there is nothing to save.

Departures: the latent accompanies the last three stages, since looking at the first map costs as much and tells less;
one round of attention per stage where the paper has several; layer norms where it has batch norms between linear
layers; the network itself comes trained, and goes on unchanged at first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgewright.errors import RefusedError
from edgewright.torchkit.anatomy import Anatomy, TokenGrid
from edgewright_plugins.early_exit.heads.latent import Mix, Places, Round, Write
from edgewright_plugins.early_exit.side import Cut, State

STAGES = 3
"""How many stages of the network have a latent beside them, and the fewest that a network must have."""
EXITS = 2


def takes(anatomy: Anatomy) -> bool:
    """Whether the network has the form: maps at three resolutions or more."""
    maps = [stage for stage in anatomy.stages if stage.layout == "map" and stage.grid and len(stage.grid) == 2]
    return len(maps) == len(anatomy.stages) >= STAGES and len(anatomy.blocks[0].in_shape) == 4


def cuts(anatomy: Anatomy, stages: int = STAGES) -> tuple[Cut, ...]:
    """Before each of the last `stages` stages, and after the last one."""
    ends = {block.stage: block.end for block in anatomy.blocks}
    places = (Cut(anatomy.blocks[0].path, before=True), *(Cut(end) for end in ends.values()))
    return places[-stages - 1 :]


def sides(anatomy: Anatomy, classes: int, *, tokens: int = 32, depth: int = 1, stages: int = STAGES) -> list[nn.Module]:
    """The sides for `cuts`, new.

    Args:
        anatomy: of the network they stand beside.
        classes: how many there are.
        tokens: of the latent at its first stage; each later one has half as many.
        depth: rounds of attention per stage.
        stages: how many of the network's stages have a latent beside them.

    Raises: RefusedError for a network of another form.
    """
    if not takes(anatomy):
        raise RefusedError(
            f"Dynamic Perceiver needs feature maps at {STAGES} resolutions or more, and this network has "
            f"{len(anatomy.stages)} stages; choose heads=linear, or heads=lgvit where there are tokens"
        )
    _, channels, height, width = anatomy.blocks[0].in_shape
    maps = [TokenGrid(height * width, channels, "map", 0, (height, width)), *anatomy.stages][-stages - 1 :]
    beside = [Stage(before, after.width, depth) for before, after in zip(maps[:-1], maps[1:], strict=True)]
    between = [
        _between(maps[number : number + 2], max(1, tokens >> number - 1), classes, stage, left=stages - 1 - number)
        for number, stage in enumerate(beside)
        if number
    ]
    return [Begin(tokens, beside[0]), *between, End(maps[-1], classes)]


def _between(maps: list[TokenGrid], tokens: int, classes: int, stage: Stage, *, left: int) -> Between:
    """The side between two stages, whose `maps` are known; the last two of them, by what is `left`, are exits."""
    before, after = maps
    mix, write = Mix(tokens, before.width, after.width), Write(before.width, before.grid or (), after.width)
    verdict = Verdict(after.width, classes, informed=left == 0) if left < EXITS else None
    return Between(mix, write, stage, verdict)


class Stage(nn.Module):
    """One stage of the latent: rounds of attention to itself and the map."""

    def __init__(self, seen: TokenGrid, width: int, depth: int) -> None:
        """`seen` is the map it looks at, `width` the latent's."""
        super().__init__()
        self.width = width
        self.places = Places(seen.width, seen.grid or (), width)
        self.rounds = nn.ModuleList(Round(width) for _ in range(depth))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """The latent [b, l, width] behind this stage."""
        places = self.places(x)
        for each in self.rounds:
            z = each(z, places)
        return z


class Verdict(nn.Module):
    """Logits from what was seen [b, width] and, where it is `informed`, from those of the exit before it."""

    def __init__(self, width: int, classes: int, *, informed: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pass_on = nn.Sequential(nn.Linear(classes, classes), nn.ReLU()) if informed else None
        self.linear = nn.Linear(width + (classes if informed else 0), classes)

    def forward(self, seen: Tensor, before: Tensor | None) -> Tensor:
        """Logits [b, classes]; `before` likewise."""
        seen = self.norm(seen)
        if self.pass_on is None or before is None:
            return self.linear(seen)
        return self.linear(torch.cat([seen, self.pass_on(before)], 1))


class Begin(nn.Module):
    """The latent as it was learned looks at the first map."""

    def __init__(self, tokens: int, stage: Stage) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.randn(1, tokens, stage.width) * 0.02)
        self.stage = stage
        self.features: Tensor | None = None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """The state is the latent."""
        return x, (self.stage(x, self.latent.expand(x.shape[0], -1, -1)),), None


class Between(nn.Module):
    """Behind a stage of the network: the latent writes to the map and looks at it again; maybe an exit."""

    def __init__(self, mix: Mix, write: Write, stage: Stage, verdict: Verdict | None) -> None:
        super().__init__()
        self.mix, self.write, self.stage, self.verdict = mix, write, stage, verdict
        self.features: Tensor | None = None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """The state is the latent, and the logits of the last exit where there was one."""
        z, *before = state
        z = self.mix(z)
        x = self.write(x, z)
        z = self.stage(x, z)
        if self.verdict is None:
            return x, (z,), None
        logits = self.verdict(z.mean(1), before[0] if before else None)
        return x, (z, logits), logits


class End(nn.Module):
    """The answer, from the last map as the latent writes to it, the latent, and the last exit's logits.

    The network goes on with the map as it was, so that its own head stays what it is.
    """

    def __init__(self, last: TokenGrid, classes: int) -> None:
        super().__init__()
        self.write = Write(last.width, last.grid or (), last.width)
        self.verdict = Verdict(2 * last.width, classes, informed=True)
        self.features: Tensor | None = None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Logits of the answer; the state ends here."""
        z, before = state
        seen = torch.cat([self.write(x, z).flatten(2).mean(2), z.mean(1)], 1)
        return x, (), self.verdict(seen, before)
