"""Parameters of plugins: a frozen dataclass states them; text from the command line or a file is checked against it."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from edgewright.errors import RecipeError, suggest

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


@dataclass(frozen=True)
class TrainingParams:
    """What a method that trains the whole network can be told; its own parameters come on top."""

    epochs: int = field(
        default=6, metadata={"help": "passes over the training split; 0 rounds without training", "low": 0}
    )
    batch: int = field(default=128, metadata={"help": "examples in a step", "low": 1})
    rate: float = field(
        default=0.0, metadata={"help": "highest learning rate; 0 for what the method has found good", "low": 0}
    )
    distill: float = field(
        default=0.5, metadata={"help": "share of the loss that compares with the original", "low": 0, "high": 1}
    )


def split_call(text: str, flag: str) -> tuple[str, dict[str, str]]:
    """`name:key=value,key=value` as name and parameters.

    Raises: RecipeError naming `flag`, for a parameter without a value or one that is said twice.
    """
    name, _, rest = text.partition(":")
    params: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"{flag} {text!r}: {part!r} is no parameter; write {name}:name=value,name=value")
        if key.strip() in params:
            raise RecipeError(f"{flag} {text!r} says {key.strip()!r} twice")
        params[key.strip()] = value.strip()
    return name.strip(), params


def parse_params(kind: type[Any], given: Mapping[str, Any], owner: str) -> Any:
    """An instance of the dataclass `kind` from text or TOML values.

    Raises: RecipeError naming `owner`, the parameter, what is allowed and the nearest name.
    """
    known = {f.name: f for f in fields(kind)}
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for raw, value in given.items():
        name = raw.replace("-", "_")
        if name not in known:
            raise RecipeError(f"{owner} has no parameter {raw!r}; {suggest(name, known)}")
        values[name] = _checked(known[name], hints[name], value, f"{owner}: {raw}")
    missing = [n for n, f in known.items() if n not in values and not _has_default(f)]
    if missing:
        raise RecipeError(f"{owner} needs the parameter {missing[0]!r}; write {owner}:{missing[0]}=...")
    return kind(**values)


def describe_params(kind: type[Any]) -> tuple[Mapping[str, Any], ...]:
    """For help and documentation: name, type, default, what is allowed and the help text of each parameter."""
    hints = get_type_hints(kind)
    return tuple(
        {
            "name": f.name,
            "type": _type_name(hints[f.name]),
            "default": f.default if f.default is not MISSING else None,
            "allowed": _allowed(f, hints[f.name]),
            "help": f.metadata.get("help", ""),
        }
        for f in fields(kind)
    )


def _has_default(f: Field[Any]) -> bool:
    return f.default is not MISSING or f.default_factory is not MISSING


def _checked(f: Field[Any], hint: Any, value: Any, where: str) -> Any:
    parsed = _parsed(hint, value, where)
    items = cast("Sequence[Any]", parsed) if isinstance(parsed, tuple) else (parsed,)
    choices = f.metadata.get("choices")
    for item in items:
        if choices is not None and item not in choices:
            raise RecipeError(f"{where}={item!r} is not possible; {suggest(str(item), map(str, choices))}")
        low, high = f.metadata.get("low"), f.metadata.get("high")
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            outside = (low is not None and item < low) or (high is not None and item > high)
            if outside or (isinstance(item, float) and not math.isfinite(item)):
                raise RecipeError(f"{where}={item} is out of range; allowed: {_allowed(f, hint)}")
    return parsed


def _parsed(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "auto") and str not in args):
            return None
        return _parsed(next(a for a in args if a is not type(None)), value, where)
    if origin is Literal:
        if value not in args:
            raise RecipeError(f"{where}={value!r} is not possible; {suggest(str(value), map(str, args))}")
        return value
    if origin is tuple:
        parts: Sequence[Any] = value.split("+") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            raise RecipeError(f"{where}={value!r} is not a list; write a+b+c on the command line, [a, b, c] in a file")
        return tuple(_parsed(args[0], part, where) for part in cast("Sequence[Any]", parts))
    if hint is bool:
        return _parse_bool(value, where)
    if hint is int:
        return _parse_number(int, value, where)
    if hint is float:
        return _parse_number(float, value, where)
    if not isinstance(value, str):
        raise RecipeError(f"{where}={value!r} is not text")
    return value


def _parse_bool(value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise RecipeError(f"{where}={value!r} is neither true nor false")


def _parse_number(kind: type[Any], value: Any, where: str) -> Any:
    word = "a whole number" if kind is int else "a number"
    if isinstance(value, bool) or (kind is int and isinstance(value, float)):
        raise RecipeError(f"{where}={value!r} is not {word}")
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise RecipeError(f"{where}={value!r} is not {word}") from None


def _allowed(f: Field[Any], hint: Any) -> str:
    if f.metadata.get("choices") is not None:
        return ", ".join(map(str, f.metadata["choices"]))
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    low, high = f.metadata.get("low"), f.metadata.get("high")
    if low is None and high is None:
        return ""
    return f"{'-inf' if low is None else low} to {'inf' if high is None else high}"


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
