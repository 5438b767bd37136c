"""Where plugins come from, and whether a plugin module is written as the engine expects."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, cast

from edgewright import hookspecs
from edgewright.errors import PluginError, suggest

GROUP = "edgewright"
"""The entry-point group; also the distribution that brings the built-ins."""

PREFIX = "edgewright_"
"""How the name of every hook begins."""


@dataclass(frozen=True)
class Source:
    """Where a plugin comes from. `name` is its entry point's, or the path of a module that a plugin lists."""

    name: str
    distribution: str
    version: str
    load: Callable[[], ModuleType]

    @property
    def built_in(self) -> bool:
        """Whether it comes with the engine."""
        return self.distribution == GROUP

    @property
    def label(self) -> str:
        """`acme (edgewright-acme 0.3)`."""
        return f"{self.name} ({self.distribution} {self.version})"

    @property
    def names(self) -> tuple[str, str]:
        """What a user may call it: its own name, or its distribution's."""
        return self.name, self.distribution


@dataclass(frozen=True)
class Absent:
    """Something that is not there, and why: a broken plugin or offer, or one that was left out on request."""

    name: str
    distribution: str
    version: str
    reason: str


def absent(source: Source, reason: str) -> Absent:
    """The record that `source`, or a part of it, cannot be used."""
    return Absent(source.name, source.distribution, source.version, reason)


def installed() -> tuple[Source, ...]:
    """The plugins of every installed distribution, none of them imported yet."""
    entries = importlib.metadata.entry_points(group=GROUP)
    return tuple(Source(entry.name, entry.dist.name, entry.dist.version, entry.load) for entry in entries if entry.dist)


def listed(module: ModuleType, source: Source) -> tuple[Source, ...]:
    """The modules that a plugin names in `MODULES`, each to be loaded and reported on its own.

    Raises: PluginError when `MODULES` is not a tuple of strings (one in brackets lacks its comma).
    """
    paths = cast("object", getattr(module, "MODULES", ()))
    if not isinstance(paths, (tuple, list)):
        found = _a(type(paths).__name__)
        raise PluginError(f"MODULES in {module.__name__} is {found}; it must be a tuple of module names")
    names = [str(path) for path in cast("tuple[object, ...]", paths)]
    return tuple(
        Source(name, source.distribution, source.version, partial(importlib.import_module, name)) for name in names
    )


def check_interface(module: object) -> None:
    """Raises: PluginError when an entry point gives no module, or one that speaks another `EDGEWRIGHT_API`."""
    if not isinstance(module, ModuleType):
        raise PluginError(f"its entry point gives {_a(type(module).__name__)}; it must name a module")
    spoken = getattr(module, "EDGEWRIGHT_API", None)
    wanted = f"EDGEWRIGHT_API = {hookspecs.API}"
    if spoken is None:
        raise PluginError(f"{module.__name__} does not say which plugin interface it is for; add {wanted}")
    if spoken != hookspecs.API:
        raise PluginError(
            f"{module.__name__} is written for EDGEWRIGHT_API = {spoken}, and this engine speaks "
            f"{wanted}; install versions that fit each other"
        )


def check_names(module: ModuleType) -> None:
    """Raises: PluginError when a hook's name is taken by something that is not a function."""
    for name in _hooks():
        value = vars(module).get(name)
        if value is not None and not inspect.isfunction(value):
            raise PluginError(f"{name} in {module.__name__} is {_a(type(value).__name__)}; it must be a function")


def check_hook(name: str, function: Callable[..., Any], *, wraps: bool) -> None:
    """Raises: PluginError when `function` is not the hook `name` as specified.

    pluggy passes over a misspelt hook in silence, and drops, passes or refuses arguments with defaults
    depending on its version.
    """
    known = _hooks()
    if name not in known:
        raise PluginError(f"unknown hook {name!r}; {suggest(name, known)}")
    if wraps:
        raise PluginError(f"{name} is a wrapper; hooks cannot be wrapped, return what the plugin offers")
    allowed = inspect.signature(known[name]).parameters
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in allowed:
            given = suggest(parameter.name, allowed)
            raise PluginError(f"{name} takes an argument {parameter.name!r}, which it is not given; {given}")
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty:
            raise PluginError(f"{name}: write the argument {parameter.name!r} without a default, `*` or `/`")


def _hooks() -> dict[str, Callable[..., Any]]:
    return {name: spec for name, spec in vars(hookspecs).items() if name.startswith(PREFIX)}


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"
