"""Hands tasks to workshops, one process at a time; what crashes or hangs costs its task alone."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any

from edgewright_exporters.tir.isa import Isa

LIMIT = 60.0
"""Seconds that one task may take; start-up is part of the first one."""

COMMAND = (sys.executable, "-m", "edgewright_exporters.onnx_kernels.workshop")


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with a value, or with the reason why it has none."""

    task: int
    value: Any = None
    error: str = ""


def perform(
    tasks: Sequence[Mapping[str, Any]], isa: Isa, *, limit: float = LIMIT, command: Sequence[str] = COMMAND
) -> Iterator[Outcome]:
    """The outcome of each task as soon as it is known; the order is that of `tasks`."""
    left = list(enumerate(tasks))
    while left:
        done = 0
        for outcome in _one_process(left, isa, limit, command):
            done += 1
            yield outcome
        left = left[done:]


def _one_process(
    left: Sequence[tuple[int, Mapping[str, Any]]], isa: Isa, limit: float, command: Sequence[str]
) -> Iterator[Outcome]:
    """Outcomes until all tasks are done, or one has brought the process down; at least one."""
    done = 0
    with TemporaryFile() as order, TemporaryFile() as said:
        order.write(json.dumps({"isa": isa.name, "tasks": left}).encode())
        order.seek(0)
        with _process(command, order, said) as process:
            for event in _events(process, limit):
                if "ends" in event:
                    done += 1
                    yield Outcome(event["ends"], event.get("value"), event.get("error", ""))
            if done < len(left):
                yield Outcome(left[done][0], error=_reason(_ended(process), limit, said))


@contextmanager
def _process(command: Sequence[str], order: IO[bytes], said: IO[bytes]) -> Generator[subprocess.Popen[bytes]]:
    """A workshop that reads `order` and complains to `said`; it is gone when the block ends, however it does."""
    with subprocess.Popen(command, stdin=order, stdout=subprocess.PIPE, stderr=said) as process:
        try:
            yield process
        finally:
            process.kill()


def _events(process: subprocess.Popen[bytes], limit: float) -> Iterator[Mapping[str, Any]]:
    """What the process says, line by line, until it ends or says nothing for too long."""
    text, stream = b"", process.stdout
    assert stream is not None
    while select.select([stream], [], [], limit)[0]:
        part = os.read(stream.fileno(), 65536)
        if not part:
            return
        *lines, text = (text + part).split(b"\n")
        yield from map(json.loads, lines)


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
