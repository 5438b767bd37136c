"""The supervisor's side of the poller: starts it, keeps it away from the load's CPUs, and takes its samples."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import perf_counter_ns
from typing import Any

from edgewright.errors import PluginError
from edgewright.protocol import decode, encode
from edgewright_runtime.channel import Lines, send, wait_for


class Poller:
    """A process that reads a meter until `stop`."""

    def __init__(self, program: Sequence[str], request: Mapping[str, Any], watched: Lines) -> None:
        """Start it and wait for the rails it found. Raises: PluginError when it ends instead."""
        self._process = subprocess.Popen(
            [sys.executable, *program, "poll", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._sink = self._process.stdin.fileno()
        self._lines = Lines(self._process.stdout.fileno())
        self._watched = watched
        send(self._sink, encode(request))
        self.found = self._answer()

    def keep_away(self, worker: int) -> None:
        """Leave the CPUs of the process `worker` to it, where there are others."""
        if sys.platform == "linux":
            with suppress(OSError):  # one of them has just ended
                others = os.sched_getaffinity(os.getpid()) - os.sched_getaffinity(worker)
                if others:
                    os.sched_setaffinity(self._process.pid, others)

    def stop(self) -> dict[str, Any]:
        """End it; its samples. Raises: PluginError when it ended before."""
        try:
            send(self._sink, b"{}\n")
            return self._answer()
        except BrokenPipeError:
            raise self._lost() from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _answer(self) -> dict[str, Any]:
        line = wait_for(self._lines, self._watched)
        if line is None:
            raise self._lost()
        return decode(line)

    def _lost(self) -> PluginError:
        return PluginError(f"the process that reads the meter ended with exit status {self._process.wait()}")


def rest(ns: int, *, busy: bool = False) -> dict[str, int]:
    """Do nothing for so long, or keep one core at work; when that began and ended."""
    begin = perf_counter_ns()
    if not busy:
        time.sleep(ns / 1e9)
    while perf_counter_ns() < begin + ns:
        pass
    return {"begin_ns": begin, "end_ns": perf_counter_ns()}
