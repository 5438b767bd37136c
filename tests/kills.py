"""Kills a program as the system does when memory is short, and watches what becomes of those that it started."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MOST_SECONDS = 120.0


def kill_when(command: Sequence[str], ready: Callable[[int], bool]) -> Sequence[int]:
    """Start `command`, kill it with -9 once `ready` says so of its process id.

    Returns: the processes that it had then, its children's too.
    """
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + MOST_SECONDS
            while not ready(process.pid):
                assert process.poll() is None, "it ended by itself"
                assert time.monotonic() < end, "it never got that far"
                time.sleep(0.02)
            found = descendants(process.pid)
        finally:
            process.send_signal(signal.SIGKILL)
    return found


def descendants(pid: int) -> Sequence[int]:
    """Its children, their children, and so on."""
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(each for child in children for each in descendants(child))]


def left_of(processes: Sequence[int], seconds: float = 20.0) -> Sequence[int]:
    """Those that still live after a while; none as soon as none does."""
    end = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < end:
        time.sleep(0.05)
    return [each for each in processes if alive(each)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
