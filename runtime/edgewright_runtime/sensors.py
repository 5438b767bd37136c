"""Finds the rails that a meter's sources name on this device, and reads them."""

from __future__ import annotations

import errno
import glob
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from time import perf_counter_ns
from typing import Any, Optional

from edgewright.types import Source

COMMAND_S = 2.0
"""How long a command that prints readings may take."""


class Absent(Exception):
    """Why a source cannot be read here: one sentence, with what would help."""


@dataclass(frozen=True)
class Rail:
    """A source found in one folder. `wrap` and `whole` are as in a trace; `number` is that of its source."""

    number: int
    source: Source
    rail: str
    folder: str = ""
    wrap: Optional[float] = None
    whole: bool = False

    def described(self) -> dict[str, Any]:
        """What the host has to know of it."""
        return {"source": asdict(self.source), "rail": self.rail, "wrap": self.wrap, "whole": self.whole}


def read_file(path: str) -> bytes:
    """What stands in a file of the kernel's now, opened anew: an old descriptor may belong to a device that is gone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 256)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------ finding


def find_rails(sources: Sequence[Source], root: str) -> tuple[list[Rail], list[str]]:
    """The rails that can be read below `root`, and why others cannot."""
    rails: list[Rail] = []
    absent: list[str] = []
    for number, source in enumerate(sources):
        try:
            rails += list(_rails(number, source, root))
        except Absent as reason:
            absent.append(str(reason))
    return _distinct(rails), list(dict.fromkeys(absent))


def _rails(number: int, source: Source, root: str) -> Iterator[Rail]:
    """Raises: Absent."""
    if source.argv:
        _check_command(source)
        yield Rail(number, source, source.rail, whole=_among(source.rail, source.whole))
        return
    folders = sorted(glob.glob(_below(root, source.folder)))
    if not folders:
        raise Absent(f"{source.folder} is not there")
    for folder in folders:
        rail = _text(os.path.join(folder, source.label)) if source.label else source.rail
        named = bool(rail) and not _among(rail, source.skip) and (not source.only or _among(rail, source.only))
        if named:
            _check_readable(source, folder)
            wrap = _number(_text(os.path.join(folder, source.wrap))) if source.wrap else None
            paced = replace(source, period_ns=_period_ns(source, folder))
            yield Rail(number, paced, rail, folder, wrap, _among(rail, source.whole))


def _period_ns(source: Source, folder: str) -> int:
    told = _number(_text(os.path.join(folder, source.period))) if source.period else None
    return round(told * 1e6) if told else source.period_ns


def _check_readable(source: Source, folder: str) -> None:
    if source.state:
        found = _text(os.path.join(folder, source.state))
        if found and found not in source.states:
            raise Absent(
                f"{source.rail} tells nothing while it is {found!r}; it has to be {' or '.join(source.states)}"
            )
    for name in source.values:
        path = os.path.join(folder, name)
        try:
            read_file(path)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENODATA):
                continue  # it is asleep, and may wake
            raise Absent(_refused(path, source, error)) from error


def _refused(path: str, source: Source, error: OSError) -> str:
    """The reason, and where the user may not read it what to run."""
    fix = f"; run: {source.fix}" if source.fix and error.errno in (errno.EACCES, errno.EPERM) else ""
    return f"{path} cannot be read ({error.strerror}){fix}"


def _check_command(source: Source) -> None:
    try:
        said = command_output(source.argv)
    except OSError as error:
        raise Absent(f"{source.argv[0]} cannot be run ({error.strerror or error})") from error
    if any(found is None for found in _searched(source, said)):
        raise Absent(f"{' '.join(source.argv)} does not tell {source.rail}")


def _distinct(rails: Sequence[Rail]) -> list[Rail]:
    """Rails of one name are told apart by their folders."""
    names = [rail.rail for rail in rails]
    return [
        replace(rail, rail=f"{rail.rail} of {os.path.basename(rail.folder)}")
        if names.count(rail.rail) > 1 and rail.folder
        else rail
        for rail in rails
    ]


# ------------------------------------------------------------------ reading


def read_rails(rails: Sequence[Rail]) -> list[tuple[int, Any]]:
    """Of each rail when it was read (ns), and its raw values, or the number of the error that it failed with."""
    said: dict[tuple[str, ...], Any] = {}
    return [_timed(rail, said) for rail in rails]


def _timed(rail: Rail, said: dict[tuple[str, ...], Any]) -> tuple[int, Any]:
    start = perf_counter_ns()
    try:
        found: Any = _values(rail, said)
    except OSError as error:
        found = error.errno or errno.EIO
    return (start + perf_counter_ns()) // 2, found


def _values(rail: Rail, said: dict[tuple[str, ...], Any]) -> list[float]:
    """Raises: OSError, also for what is no number."""
    source = rail.source
    if not source.argv:
        return [_checked(_number(_text_of(os.path.join(rail.folder, name)))) for name in source.values]
    if source.argv not in said:
        said[source.argv] = command_output(source.argv)
    return [_checked(found) for found in _searched(source, said[source.argv])]


def command_output(argv: Sequence[str]) -> str:
    """Raises: OSError when it fails, or takes too long."""
    try:
        done = subprocess.run(list(argv), capture_output=True, timeout=COMMAND_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, "it takes too long") from error
    if done.returncode:
        raise OSError(errno.EIO, f"exit status {done.returncode}")
    return done.stdout.decode(errors="replace")


def _searched(source: Source, said: str) -> Iterator[Optional[float]]:
    for pattern in source.values:
        match = re.search(pattern, said)
        yield _number(match.group(1)) if match else None


def _checked(value: Optional[float]) -> float:
    if value is None:
        raise OSError(errno.EINVAL, "no number")
    return value


def _text_of(path: str) -> str:
    return read_file(path).decode(errors="replace").strip("\0 \n")


def _text(path: str) -> str:
    with suppress(OSError):
        return _text_of(path)
    return ""


def _number(text: str) -> Optional[float]:
    with suppress(ValueError):
        return int(text) if text.lstrip("-").isdigit() else float(text)
    return None


def _among(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))
