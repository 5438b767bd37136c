"""Everything that can go wrong, as one tree.

    EdgewrightError                 exit code 1
    ├── InputError                  2   something the user gave cannot be used
    │   ├── ModelError              2   the model file, callable or program
    │   ├── TaskError               2   the data or the metric
    │   ├── RecipeError             2   a method, parameter, bound or setting
    │   ├── TargetError             2   a target profile
    │   ├── BundleError             2   a bundle that is incomplete, changed, unsafe or for another CPU
    │   └── OutputError             2   a place that cannot be written
    ├── RefusedError                2   a plugin cannot do what was asked of it, and says what would help
    ├── DeviceError                 4   a device that cannot be reached, or was lost
    └── PluginError                 1   a plugin failed; names it, the step, the model and the target

A contract that is not met is a verdict, not an error: the command exits with 3.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class EdgewrightError(Exception):
    """The root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(EdgewrightError):
    """Something the user gave cannot be used. The message is one sentence."""

    exit_code = 2


class ModelError(InputError):
    """The model cannot be read, or does not fit what is asked of it."""


class TaskError(InputError):
    """The data or the metric cannot be used with this model."""


class RecipeError(InputError):
    """A method, parameter, bound or setting is unknown or out of range."""


class TargetError(InputError):
    """A target is unknown, or its profile is wrong."""


class BundleError(InputError):
    """A bundle is incomplete, was changed, reaches outside its folder, or was made for another processor."""


class OutputError(InputError):
    """The place where a result should go cannot be written."""


class RefusedError(EdgewrightError):
    """A plugin cannot do what was asked; the message says what would help."""

    exit_code = 2


class DeviceError(EdgewrightError):
    """A device cannot be reached, or was lost while it worked."""

    exit_code = 4


class PluginError(EdgewrightError):
    """A plugin failed. The cause is chained; the message names who, doing what, to what."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """The allowed names and the nearest one to `name`, ready to end a sentence.

    >>> suggest("quantise", ["quantize", "half"])
    "allowed: half, quantize; did you mean 'quantize'?"
    """
    names = sorted(allowed)
    listed = f"allowed: {', '.join(names) if names else 'none'}"
    return listed + _nearest(name, names)


def no_file(path: Path, kind: str = "file") -> str:
    """The beginning of a sentence about a file that is not there, with the nearest name that is."""
    try:
        beside = [each.name for each in path.parent.iterdir() if each.is_file()]
    except OSError:
        return f"no {kind} at {path}: there is no folder {path.parent}"
    return f"no {kind} at {path}{_nearest(path.name, beside)}"


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
