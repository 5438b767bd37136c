"""Sees what code does to the network and to files, through Python's own audit events (PEP 578).

What libraries of machine code and child processes do is not seen.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
LOCAL = ("", "localhost", "::1", "0.0.0.0", "::")
PLACES = {"os.mkdir": (0, 1), "os.remove": (0, 1), "os.rmdir": (0, 1), "os.rename": (0, 2), "os.symlink": (1, 2)}
"""Which arguments of an audit event are paths that it changes; its last one is the open folder they are in, or -1."""

ANYWHERE = ("/dev", "/proc", "/sys")
"""Where opening a file for writing makes none."""


@dataclass
class Seen:
    """Hosts that were to be reached, and what was written outside `roots` and the folder for temporary files."""

    roots: Sequence[Path] = ()
    network: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    def told(self, event: str, args: tuple[Any, ...]) -> None:
        """Take note of an audit event. Raises: OSError for one that would reach another host."""
        host = _host(event, args)
        if host is not None:
            self.network.append(host)
            raise OSError(f"the conformance kit lets nothing reach {host}")
        for path in _written(event, args):
            place = os.path.abspath(path)
            if not self._allowed(place) and place not in self.written:
                self.written.append(place)

    def _allowed(self, place: str) -> bool:
        if "__pycache__" in place:
            return True
        roots = (*map(str, self.roots), tempfile.gettempdir(), *ANYWHERE)
        return any(place == root or place.startswith(f"{root}{os.sep}") for root in roots)


_watching: list[Seen] = []
_hooked: list[bool] = []


@contextmanager
def watching(seen: Seen) -> Generator[None]:
    """Let `seen` be told of everything that happens in this process meanwhile."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_told)  # stays for as long as the process: Python has no way back
    _watching.append(seen)
    try:
        yield
    finally:
        _watching.remove(seen)


def _told(event: str, args: tuple[Any, ...]) -> None:
    for seen in tuple(_watching):
        seen.told(event, args)


def _host(event: str, args: tuple[Any, ...]) -> str | None:
    """The other host that a socket is to reach, or whose name is looked up."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = args[:1]
    else:
        return None
    if not isinstance(address, tuple):  # a socket of this host alone has a path
        return None
    host = address[0].decode() if isinstance(address[0], bytes) else str(address[0] or "")
    return None if host in LOCAL or host.startswith("127.") else host


def _written(event: str, args: tuple[Any, ...]) -> Sequence[str]:
    if event == "open":
        paths = args[:1] if isinstance(args[2], int) and args[2] & WRITING else ()
    elif event in PLACES:
        start, end = PLACES[event]
        inside = args[-1] not in (-1, None)  # names in an open folder, as shutil.rmtree uses them, are not known here
        paths = () if inside else args[start:end]
    else:
        return ()
    return [os.fsdecode(path) for path in paths if isinstance(path, (str, bytes, os.PathLike))]
