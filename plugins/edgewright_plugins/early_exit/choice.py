"""What was decided for a network: which heads stand at which cuts; as a value, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from edgewright.errors import RefusedError
from edgewright.torchkit.anatomy import Anatomy
from edgewright.types import Goal, Json
from edgewright_plugins.early_exit import Params
from edgewright_plugins.early_exit.heads import lgvit, perceiver
from edgewright_plugins.early_exit.side import Cut


@dataclass(frozen=True)
class Choice:
    """The decision.

    Attributes:
        params: what was asked for.
        family: `lgvit`, `perceiver` or `linear`.
        cuts: where the sides stand.
        kinds: what stands there, one per cut; empty where the family says it.
        blocks: the number of the last block before each exit, from 1.
        shares: of the whole cost that it takes to get there; empty where nobody measured.
        anatomy: the user's description of the network.
        seed: of the weights that the heads start with.
    """

    params: Params
    family: str
    cuts: tuple[Cut, ...]
    kinds: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    anatomy: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seed: int = 0

    @property
    def goal(self) -> Goal:
        """What the thresholds are to be fitted to."""
        return Goal(cost=self.params.cost) if self.params.cost else Goal(drop=self.params.drop / 100)


def to_json(choice: Choice) -> Json:
    """The choice as JSON holds it."""
    return cast("Json", json.loads(json.dumps(asdict(choice))))


def from_json(decision: Json) -> Choice:
    """The choice that `to_json` wrote."""
    said = {name: _tupled(value) for name, value in cast("dict[str, Any]", decision).items()}
    params = Params(**{name: _tupled(value) for name, value in said.pop("params").items()})
    return Choice(params=params, cuts=tuple(Cut(**cut) for cut in said.pop("cuts")), **said)


def _tupled(value: Any) -> Any:
    return tuple(cast("Sequence[Any]", value)) if isinstance(value, list) else value


def family_of(params: Params, anatomy: Anatomy) -> str:
    """The heads that fit a network, and exits where the user wants them.

    Raises: RefusedError when those that the user names do not fit.
    """
    needs = {
        "lgvit": "blocks that give a grid of two sizes",
        "perceiver": "feature maps at three resolutions or more, and has exits of its own (leave out exits and at)",
    }
    fitting = {
        "lgvit": all(lgvit.takes(stage) for stage in anatomy.stages),
        "perceiver": perceiver.takes(anatomy) and not params.at and not params.exits,
        "linear": True,
    }
    if params.heads == "auto":
        # Dynamic Perceiver has to be asked for: it answers better at equal time (docs/results/early-exit-resnet18.md),
        # but trains for longer, and who goes to the end pays a fifth more than without exits.
        return "lgvit" if fitting["lgvit"] and anatomy.tokens is not None else "linear"
    if not fitting[params.heads]:
        layouts = ", ".join(dict.fromkeys(stage.layout for stage in anatomy.stages))
        raise RefusedError(
            f"heads={params.heads} needs {needs[params.heads]}; this network has stages: {len(anatomy.stages)} "
            f"({layouts}); choose heads={' or heads='.join(name for name, fits in fitting.items() if fits)}"
        )
    return params.heads
