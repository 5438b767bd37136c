"""A device is one client's at a time: the agent holds a lock there for as long as it lives.

The kernel keeps the lock, so it ends with the agent, however that ends. What stands in the file is for people: who
holds the device, since when, and when that client counts as gone. Times are seconds since the device was switched on,
by its own clock, so no host's clock matters.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Optional

from edgewright.errors import DeviceError

TELL_S = 10.0
"""How old what is told may be: writing more often would wear out the card that the file may lie on."""


class Lock:
    """The device, held. In the file: the owner; then since when, when last heard, and seconds until it is given up."""

    def __init__(self, path: Path, owner: str, idle_s: Optional[float] = None) -> None:
        """Take it. `idle_s` is the silence after which the agent ends. Raises: DeviceError when another holds it."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        if not _locked(self._file):
            said = os.pread(self._file, 4096, 0).decode("utf-8", "replace")
            self.close()
            raise DeviceError(
                f"the device is in use by {holder(said, uptime())}; wait for its end, or end that process"
            )
        self._owner, self._idle_s = owner, idle_s
        self._since = uptime()
        self._tell(self._since)

    def heard(self) -> None:
        """The client asked for something, or was answered."""
        now = uptime()
        if now - self._told >= TELL_S:
            self._tell(now)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)

    def _tell(self, now: float) -> None:
        self._told = now
        text = f"{self._owner}\n{self._since:.0f} {now:.0f} {self._idle_s or 0:.0f}\n".encode()
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))


def holder(said: str, now: float) -> str:
    """What the file says of who holds the device, for the next client; `now` is this device's uptime."""
    owner, _, times = said.partition("\n")
    try:
        since, heard, idle_s = (float(word) for word in times.split())
    except ValueError:
        return owner.strip() or "another client"
    silent = max(0.0, now - heard)
    came = f"{owner}; it came {max(0.0, now - since):.0f} s ago"
    if not idle_s:
        return came
    if silent < idle_s:
        return f"{came}, and loses the device in {idle_s - silent:.0f} s unless it is heard again"
    return f"{came}, and its last request has been worked on for {silent:.0f} s"


def uptime() -> float:
    """Seconds since this machine was switched on, those that it slept too: what /proc/uptime says."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


def _locked(file: int) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
