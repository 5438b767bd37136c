"""What a worker process needs from its operating system: an end when its parent ends, and its own memory use."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
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
