"""Runs on the device, given FOLDER, KEY and NAME: makes FOLDER/site lead to FOLDER/sites/NAME in one step.

Holds the device's lock meanwhile. What the link led to before is removed; without NAME the link itself is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys


def main(folder: str, name: str = "") -> int:
    """0; 75 when another client holds the device."""
    os.chdir(folder)
    with open("lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 75
        lock.truncate(0)
        lock.write("engine device setup\n")
        lock.flush()
        _lead(name)
        for other in os.listdir("sites") if os.path.isdir("sites") else ():
            if other != name:
                shutil.rmtree(os.path.join("sites", other), ignore_errors=True)
    return 0


def _lead(name: str) -> None:
    if not name:
        if os.path.islink("site"):
            os.unlink("site")
        return
    if os.path.lexists("site.new"):
        os.unlink("site.new")
    os.symlink(os.path.join("sites", name), "site.new")
    os.replace("site.new", "site")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
