"""What the verbs share: where the cache and the plugins are, how progress looks, and the common options."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from edgewright.asking.request import Request, parse_shape
from edgewright.bundle import plain
from edgewright.cli.interrupt import check
from edgewright.environment import Environment
from edgewright.registry import Registry
from edgewright.store import Store

F = TypeVar("F", bound=Callable[..., Any])

SCHEMA = 1
"""The version of every JSON document that the command line prints."""


@dataclass
class Console:
    """Human output on stderr. Progress rewrites one line on a terminal, and is a line per step elsewhere."""

    quiet: bool = False
    _last: str = ""
    _drawn: float = 0.0

    def say(self, text: str) -> None:
        """A line (or more) for people."""
        self._wipe()
        click.echo(text, err=True)

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        """What goes on now. Raises: KeyboardInterrupt when one was lost."""
        check()
        if self.quiet:
            return
        if not sys.stderr.isatty():
            if message != self._last:
                click.echo(f"  {message}", err=True)
                self._last = message
            return
        now = time.monotonic()
        if message == self._last and now - self._drawn < 0.1 and done < total:
            return
        self._wipe()
        self._last, self._drawn = message, now
        bar = f" [{'#' * round(20 * done / total):<20}] {done}/{total}" if total else " ..."
        click.echo(f"  {message}{bar}", err=True, nl=False)

    def _wipe(self) -> None:
        if sys.stderr.isatty() and self._last:
            click.echo("\r\x1b[2K", err=True, nl=False)


def open_registry(without: tuple[str, ...] = ()) -> Registry:
    """The plugins; `EDGEWRIGHT_PLUGINS=a,b` loads only these third-party ones, empty none."""
    named = os.environ.get("EDGEWRIGHT_PLUGINS")
    only = None if named is None else tuple(filter(None, named.split(",")))
    return Registry(only=only, without=without)


def open_store(cache: str | None) -> Store:
    """The cache: `--cache`, else `$XDG_CACHE_HOME/edgewright`, else `~/.cache/edgewright`."""
    if cache:
        return Store(Path(cache).absolute())
    base = os.environ.get("XDG_CACHE_HOME")
    return Store((Path(base) if base else Path.home() / ".cache") / "edgewright")


def open_environment(console: Console, without: tuple[str, ...], cache: str | None) -> Environment:
    """What the verb works with."""
    return Environment(open_registry(without), open_store(cache), console.progress)


def print_json(kind: str, document: Mapping[str, Any]) -> None:
    """One versioned document on stdout."""
    click.echo(json.dumps({"schema": SCHEMA, "kind": kind, **plain(document)}, indent=1))


def request_from(**given: Any) -> Request:
    """A Request from the options that `model_options` defines."""
    shapes = dict(parse_shape(text) for text in given.pop("shape", ()))
    names = {key: tuple(given.pop(key).split(",")) for key in ("runtime", "meter") if given.get(key)}
    fields: dict[str, Any] = {**given, **names, "shapes": shapes}
    return Request(**fields)


def model_options(function: F) -> F:
    """How a model is read: sizes, batch, threads, runtime, task, seed."""
    for option in reversed(
        (
            click.option(
                "--task", metavar="FILE.py:NAME|DATA", help="Data and metric: .npz, image folder, file.py:name."
            ),
            click.option(
                "--shape", multiple=True, metavar="NAME:1x3x224x224", help="Size of an input with free dimensions."
            ),
            click.option("--batch", type=int, metavar="N", help="Examples per run. [1]"),
            click.option("--threads", type=int, metavar="N", help="Threads of the runtime. [1]"),
            click.option("--runtime", metavar="auto|NAME,...", help="Runtimes to use; auto is the target's own list."),
            click.option("--seed", type=int, metavar="N", help="What every random choice starts from. [0]"),
        )
    ):
        function = option(function)
    return function


def shared_options(function: F) -> F:
    """What every verb takes."""
    for option in reversed(
        (
            click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
            click.option("--no-plugin", multiple=True, metavar="NAME", help="Leave a plugin out."),
            click.option("--cache", metavar="DIR", help="Folder of the cache."),
        )
    ):
        function = option(function)
    return function


PRESETS = ("quick", "default", "thorough")


def _is_preset(context: click.Context, option: click.Parameter, given: str | None) -> str | None:
    """What was given. Raises: RecipeError when that is no preset."""
    from edgewright.measuring.presets import find_preset

    return given and find_preset(given).name


preset_option = click.option(
    "--preset",
    metavar="|".join(PRESETS) + "[:k=v,...]",
    callback=_is_preset,
    shell_complete=lambda context, option, given: [name for name in PRESETS if name.startswith(given)],
    help="How long to measure: 1 s / 10 s / 60 s and 30 / 100 / 1000 runs, or quick:seconds=5,rounds=12. [default]",
)

meter_option = click.option(
    "--meter", metavar="auto|none|NAME,...", help="What to read energy with; auto is the target's own list."
)

device_target_option = click.option(
    "--target", "-t", metavar="NAME|FILE.toml", help="What the device counts as. [what it says it is]"
)

on_option = click.option("--on", metavar="ADDRESS", help="Where to run: local, ssh://user@host, adb://serial.")
