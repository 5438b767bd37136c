"""How long to measure: three presets, and figures of one's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields

from edgewright.errors import RecipeError, suggest
from edgewright.params import parse_params, split_call


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How long to measure each candidate: both `seconds` and `runs` are reached, over `rounds` processes.

    The first `fresh` of them are started from nothing, but for a race: they tell what loading takes.
    """

    seconds: float = field(metadata={"low": 0, "high": 86400})
    runs: int = field(metadata={"low": 1})
    rounds: int = field(metadata={"low": 1, "high": 100})
    fresh: int = field(default=2, metadata={"low": 1, "high": 100})


@dataclass(frozen=True, kw_only=True)
class Preset(Figures):
    """Figures, and what they were asked for by."""

    name: str


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(name="quick", seconds=1, runs=30, rounds=6),
        Preset(name="default", seconds=10, runs=100, rounds=10),
        Preset(name="thorough", seconds=60, runs=1000, rounds=16),
    )
}


def find_preset(text: str) -> Preset:
    """A preset by name, or with figures of one's own: `quick:seconds=5,runs=100,rounds=12`. Its name is the whole text.

    Raises: RecipeError for an unknown name or figure, or one that is out of range.
    """
    name, figures = split_call(text, "--preset")
    if name not in PRESETS:
        raise RecipeError(f"there is no preset {name!r}; {suggest(name, PRESETS)}")
    usual = {each.name: getattr(PRESETS[name], each.name) for each in fields(Figures)}
    return Preset(name=text, **asdict(parse_params(Figures, {**usual, **figures}, f"--preset {name}")))


def in_passing(asked: str) -> str:
    """The preset of what is measured on the way to a decision: `quick`, or the one asked for where that is as brief."""
    quick, preset = PRESETS["quick"], find_preset(asked)
    brief = preset.seconds <= quick.seconds and preset.runs <= quick.runs and preset.rounds <= quick.rounds
    return asked if brief else quick.name
