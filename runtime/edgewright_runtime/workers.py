"""Worker processes as the supervisor sees them: how one is started, asked, and what is told of its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from edgewright.errors import PluginError
from edgewright_runtime.channel import Lines, send, wait_for

if TYPE_CHECKING:
    from typing import Protocol

    class Started(Protocol):
        """A process that was started for us."""

        pid: int

        def kill(self) -> None: ...
        def wait(self) -> Optional[int]: ...


HINTS = {
    "SIGKILL": "the system may have run out of memory",
    "SIGILL": "the runtime may be built for another processor",
    "SIGSEGV": "the runtime crashed",
    "SIGABRT": "the runtime gave up",
}


class Streams(NamedTuple):
    """The descriptors that become 0, 1 and 2 of a process."""

    source: int
    sink: int
    errors: int


Start = Callable[[Streams], "Started"]


def afresh(program: Sequence[str]) -> Start:
    """Starts a worker as a new Python process; `program` is what stands behind the interpreter's name."""
    return lambda streams: subprocess.Popen(
        [sys.executable, *program, "worker", str(os.getpid())],
        stdin=streams.source,
        stdout=streams.sink,
        stderr=streams.errors,
    )


class Process:
    """One worker process."""

    def __init__(self, start: Start) -> None:
        """Start it; it waits for its first request."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        source, self._sink = os.pipe()
        answers, sink = os.pipe()
        self._lines = Lines(answers)
        try:
            self._started = start(Streams(source, sink, self._errors.fileno()))
        except BaseException:
            self._release()
            raise
        finally:
            os.close(source)
            os.close(sink)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._started.pid

    def ask(self, line: bytes, operation: str, watched: Lines) -> bytes:
        """The worker's answer to a request.

        Raises: PluginError when the process ends instead; EOFError when `watched` does.
        """
        try:
            send(self._sink, line + b"\n")
            reply = wait_for(self._lines, watched)
        except BrokenPipeError:
            reply = None
        if reply is None:
            self._errors.seek(0)
            raise PluginError(epitaph(self._started.wait(), self._errors.read(), operation))
        return reply + b"\n"

    def stop(self) -> None:
        """End it at once: it holds nothing that is worth a tidy exit."""
        self._started.kill()
        self._started.wait()
        self._release()

    def _release(self) -> None:
        os.close(self._sink)
        os.close(self._lines.descriptor)
        self._errors.close()


def epitaph(status: Optional[int], said: bytes, operation: str) -> str:
    """What is told of a process that ended during an operation: how (the status is negative for a signal), and why."""
    last = said[-2000:].decode(errors="replace").strip().splitlines()[-1:]
    because = f"; it last said: {last[0][:200]}" if last else ""
    return f"the process that ran the model {_ending(status)} during {operation!r}{because}"


def _ending(status: Optional[int]) -> str:
    if status is None:
        return "ended"
    if status >= 0:
        return f"ended with exit status {status}"
    name = signal.Signals(-status).name
    return f"was ended by {name}" + (f" ({HINTS[name]})" if name in HINTS else "")
