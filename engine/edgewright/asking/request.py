"""What a user asks for, as typed: nothing is resolved, and None means not said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

from edgewright.errors import RecipeError
from edgewright.params import split_call


@dataclass(frozen=True)
class MethodCall:
    """A method as the user wrote it: its name and raw parameters."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """Everything a user can ask of `engine deploy`, as typed; None means not said."""

    model: str | None = None
    target: str | None = None
    apply: tuple[MethodCall, ...] | None = None
    task: str | None = None
    on: str | None = None
    runtime: tuple[str, ...] | None = None
    meter: tuple[str, ...] | None = None
    exporter: tuple[str, ...] | None = None
    kernel: tuple[str, ...] | None = None
    bounds: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch: int | None = None
    threads: int | None = None
    seed: int | None = None
    tune: int | None = None
    preset: str | None = None
    allow_fallback: bool | None = None
    out: str | None = None


def parse_method(text: str) -> MethodCall:
    """`quantize:mode=static,keep=a+b` as a call.

    Raises: RecipeError for a parameter without a value or one that is said twice.
    """
    name, params = split_call(text, "--apply")
    if not name:
        raise RecipeError(f"--apply {text!r} names no method")
    return MethodCall(name, params)


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`image:1x3x224x224` as name and sizes. Raises: RecipeError."""
    if not _is_shape(text):
        meant = text.replace("=", ":").replace(",", "x")
        example = meant if meant != text and _is_shape(meant) else "image:1x3x224x224"
        raise RecipeError(f"--shape {text!r} is not NAME:SIZES; write {example}")
    name, _, sizes = text.rpartition(":")
    return name, tuple(map(int, sizes.split("x")))


def _is_shape(text: str) -> bool:
    return re.fullmatch(r".+:[1-9][0-9]*(x[1-9][0-9]*)*", text, re.ASCII) is not None


def merge(first: Request, second: Request) -> Request:
    """`first`, with what it leaves unsaid taken from `second`."""
    changes: dict[str, Any] = {}
    for f in fields(Request):
        mine, other = getattr(first, f.name), getattr(second, f.name)
        if isinstance(mine, Mapping):
            changes[f.name] = {**cast("Mapping[str, Any]", other), **cast("Mapping[str, Any]", mine)}
        elif mine is None:
            changes[f.name] = other
    return replace(first, **changes)
