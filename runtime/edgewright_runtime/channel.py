"""The two ends of a line protocol over file descriptors, out of reach of libraries that print."""

from __future__ import annotations

import os
import select
from typing import Optional


class Lines:
    """Lines read from a descriptor, without a buffer that would hide what is waiting from `select`."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is read by nobody else."""
        self.descriptor = descriptor
        self._pending = b""
        self._ended = False

    def take(self) -> Optional[bytes]:
        """A whole line that has already arrived, if there is one."""
        line, newline, rest = self._pending.partition(b"\n")
        if not newline:
            return None
        self._pending = rest
        return line

    def fill(self) -> bool:
        """Read what is there, waiting for something; False at the end of the stream."""
        data = os.read(self.descriptor, 1 << 16)
        self._pending += data
        self._ended = not data
        return bool(data)

    def next(self, seconds: Optional[float] = None) -> Optional[bytes]:
        """The next line, waited for; None at the end of the stream, or when nothing comes for so long."""
        while True:
            line = self.take()
            if line is not None:
                return line
            if self._ended or not select.select([self.descriptor], [], [], seconds)[0] or not self.fill():
                return None

    @property
    def ended(self) -> bool:
        """Whether the stream has come to its end."""
        return self._ended

    def next_within(self, seconds: Optional[float]) -> Optional[bytes]:
        """The next line, if it comes in that time (None: whenever); None too at the end of the stream, see `ended`."""
        line = self.take()
        if line is None and not self._ended and select.select([self.descriptor], [], [], seconds)[0]:
            self.fill()
            line = self.take()
        return line


def wait_for(lines: Lines, watched: Lines) -> Optional[bytes]:
    """The next line of `lines`; None when it ends, EOFError when `watched` ends first."""
    while True:
        line = lines.take()
        if line is not None:
            return line
        ready, _, _ = select.select([lines.descriptor, watched.descriptor], [], [])
        if watched.descriptor in ready and not watched.fill():
            raise EOFError
        if lines.descriptor in ready and not lines.fill():
            return None


def private_streams() -> tuple[Lines, int]:
    """Our standard input and output under numbers of their own.

    What a library reads from 0 is empty, and what it prints to 1 goes to standard error.
    """
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Lines(source), sink


def send(descriptor: int, line: bytes) -> None:
    """Write all of a line."""
    while line:
        line = line[os.write(descriptor, line) :]
