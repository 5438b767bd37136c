"""Parameters: typed, checked, and refused in a sentence that names the nearest one."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import RecipeError
from edgewright.params import describe_params, parse_params


@dataclass(frozen=True)
class Params:
    mode: str = field(default="auto", metadata={"help": "how", "choices": ("auto", "static", "dynamic")})
    share: float = field(default=0.5, metadata={"help": "how much", "low": 0.0, "high": 1.0})
    examples: int = field(default=128, metadata={"help": "how many", "low": 1})
    per_channel: bool = True
    keep: tuple[str, ...] = ()
    drop: float | None = None


def test_text_becomes_values_of_the_declared_types():
    got = parse_params(
        Params, {"mode": "static", "share": "0.25", "per-channel": "no", "keep": "a+b", "drop": "0.1"}, "quantize"
    )
    assert got == Params("static", 0.25, 128, False, ("a", "b"), 0.1)


def test_toml_values_are_taken_as_they_are():
    assert parse_params(Params, {"examples": 7, "per_channel": False, "keep": ["x"]}, "q") == Params(
        examples=7, per_channel=False, keep=("x",)
    )


@pytest.mark.parametrize(
    ("given_params", "sentence"),
    [
        ({"mod": "static"}, "q has no parameter 'mod'; allowed: .*; did you mean 'mode'\\?"),
        ({"mode": "statik"}, "q: mode='statik' is not possible; .*did you mean 'static'\\?"),
        ({"share": "2"}, "q: share=2.0 is out of range; allowed: 0.0 to 1.0"),
        ({"share": "nan"}, "out of range"),
        ({"examples": "0"}, "allowed: 1 to inf"),
        ({"examples": "1.5"}, "is not a whole number"),
        ({"examples": 1.5}, "is not a whole number"),
        ({"examples": True}, "is not a whole number"),
        ({"per_channel": "maybe"}, "neither true nor false"),
        ({"mode": 3}, "is not text"),
        ({"keep": 3}, "is not a list"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(given_params, sentence):
    with pytest.raises(RecipeError, match=sentence):
        parse_params(Params, given_params, "q")


def test_a_parameter_without_default_must_be_given():
    @dataclass(frozen=True)
    class Needs:
        ratio: float

    with pytest.raises(RecipeError, match="prune needs the parameter 'ratio'"):
        parse_params(Needs, {}, "prune")


def test_the_description_carries_help_and_what_is_allowed():
    rows = {row["name"]: row for row in describe_params(Params)}
    assert rows["mode"]["allowed"] == "auto, static, dynamic"
    assert rows["share"]["help"] == "how much"
    assert rows["examples"]["default"] == 128


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=4))
def test_any_text_gives_params_or_a_recipe_error(raw):
    try:
        assert isinstance(parse_params(Params, raw, "q"), Params)
    except RecipeError as error:
        assert "\n" not in str(error).strip() or any("\n" in k + v for k, v in raw.items())
