"""Hands tasks to workshops, which are processes; what crashes or hangs costs its task alone."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any

from edgewright_exporters.tir.isa import Isa

LIMIT = 60.0
"""Seconds that one task may take; start-up is part of the first one."""

COMMAND = (sys.executable, "-m", "edgewright_exporters.onnx_kernels.workshop")

_Numbered = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with a value, or with the reason why it has none."""

    task: int
    value: Any = None
    error: str = ""


def perform(
    tasks: Sequence[Mapping[str, Any]],
    isa: Isa,
    *,
    processes: int = 1,
    limit: float = LIMIT,
    command: Sequence[str] = COMMAND,
    hear: Callable[[str], object] = str,
) -> Iterator[Outcome]:
    """The outcome of each task as soon as it is known; one process gives them in the order of `tasks`.

    `hear` gets what tasks say. None of the `processes` is left when the iterator ends or is closed.
    """
    numbered = list(enumerate(tasks))
    shares = [numbered[at::processes] for at in range(min(processes, len(tasks)))]
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(_Worker(share, isa, limit, command, hear))) for share in shares]
        while busy := [worker for worker in workers if worker.left]:
            ready = select.select([each.stream for each in busy], [], [], min(each.patience for each in busy))[0]
            for worker in busy:
                yield from worker.heard(said=worker.stream in ready)


class _Worker:
    """Works through its share of the tasks, in one process and in another one after each that was lost.

    `left` are the tasks without an outcome, `stream` is what the process says.
    """

    def __init__(
        self, share: Sequence[_Numbered], isa: Isa, limit: float, command: Sequence[str], hear: Callable[[str], object]
    ) -> None:
        self.left = list(share)
        self._isa, self._limit, self._command, self._hear = isa, limit, command, hear
        self._start()

    @property
    def stream(self) -> IO[bytes]:
        stream = self._process.stdout
        assert stream is not None
        return stream

    @property
    def patience(self) -> float:
        """For how many seconds more the process may say nothing."""
        return max(0.0, self._last + self._limit - time.monotonic())

    def heard(self, *, said: bool) -> Iterator[Outcome]:
        """What became of tasks, where the process has `said` something or its time is up."""
        part = os.read(self.stream.fileno(), 65536) if said else b""
        if part:
            yield from self._told(part)
        elif said or not self.patience:
            reason = _reason(_ended(self._process), self._limit, self._complaints)
            self.close()
            yield Outcome(self.left.pop(0)[0], error=reason)
            if self.left:
                self._start()

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self.stream.close()
        self._complaints.close()

    def _start(self) -> None:
        self._last, self._text = time.monotonic(), b""
        self._complaints = TemporaryFile()  # noqa: SIM115 - lives as long as the process
        with TemporaryFile() as order:
            order.write(json.dumps({"isa": self._isa.name, "tasks": self.left}).encode())
            order.seek(0)
            self._process = subprocess.Popen(
                self._command, stdin=order, stdout=subprocess.PIPE, stderr=self._complaints, env=_surroundings()
            )

    def _told(self, part: bytes) -> Iterator[Outcome]:
        self._last = time.monotonic()
        *lines, self._text = (self._text + part).split(b"\n")
        for event in map(json.loads, lines):
            if "says" in event:
                self._hear(event["says"])
            if "ends" in event:
                del self.left[0]
                yield Outcome(event["ends"], event.get("value"), event.get("error", ""))


def _surroundings() -> Mapping[str, str]:
    """Modules are found where they are found here: templates of plugins are imported by name."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """How a process ended that closed its output; None where it goes on."""
    try:
        return process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return None


def _reason(status: int | None, limit: float, said: IO[bytes]) -> str:
    if status is None:
        return f"it was not done after {limit:.0f} s"
    if status < 0:
        return f"its process died of {signal.Signals(-status).name}"
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return f"its process ended with {status}" + (f": {lines[-1]}" if lines else "")
