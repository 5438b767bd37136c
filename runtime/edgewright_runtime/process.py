"""What a worker needs from its operating system: an end with its parent, its place, and its own memory use."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when `parent` ends, even if a library never returns.

    Elsewhere the end of standard input has to do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def share_cpus(turn: int, count: int) -> list[int]:
    """Keep this process (and threads it starts later) on `count` of its CPUs, the same for all who say `turn`.

    Only the fastest CPUs count where they differ. Returns: the CPUs; empty where nothing was changed, because
    the system does not let us or there are no more than `count`.
    """
    if sys.platform != "linux":
        return []
    cpus = _fastest(sorted(os.sched_getaffinity(0)))
    if count >= len(cpus):
        return []
    chosen = [cpus[(turn + i) % len(cpus)] for i in range(count)]
    os.sched_setaffinity(0, chosen)
    return chosen


def _fastest(cpus: Sequence[int]) -> Sequence[int]:
    clocks = {cpu: _clock(cpu) for cpu in cpus}
    return [cpu for cpu in cpus if clocks[cpu] == max(clocks.values())]


def _clock(cpu: int) -> int:
    """The highest clock in kHz; 0 where it is not told."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq").read_text(encoding="utf-8")
    except OSError:
        return 0
    return int(text) if text.strip().isdigit() else 0


def peak_bytes() -> Optional[int]:
    """The most memory this process has held since it was started; None where the system does not tell."""
    return _status("VmHWM")


def resident_bytes() -> Optional[int]:
    """The memory this process holds now; None where the system does not tell."""
    return _status("VmRSS")


def _status(key: str) -> Optional[int]:
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(rf"^{key}:\s*(\d+) kB", text, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None
