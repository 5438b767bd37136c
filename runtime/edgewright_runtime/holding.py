"""A device is one client's at a time: the agent holds a lock there for as long as it lives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

from edgewright.errors import DeviceError


def hold(path: Path, owner: str) -> IO[str]:
    """The locked file, with the owner's name in it for those who come too late; the system unlocks it when we end.

    So it expires with its owner, however that ends, and no clock is asked. Raises: DeviceError when another holds it.
    """
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - lives as long as the agent
    if not _locked(file):
        file.seek(0)
        holder = file.read().strip() or "another client"
        file.close()
        raise DeviceError(f"the device is in use by {holder}; wait for its end, or end that process")
    file.truncate(0)
    file.write(owner)
    file.flush()
    return file


def _locked(file: IO[str]) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
