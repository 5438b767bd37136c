"""Runs on the device, given SITE, FOLDER and names: prints as JSON what Python is there and how each import ends.

Imports are left to child processes, because onnxruntime may be ended by a signal there: once with FOLDER in front,
and once without where it is SITE, in which an earlier setup lies and which counts for no other. Python 3.9, standard
library only.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

TRY = """
import json, sys
for name in sys.argv[1:]:
    try:
        found = __import__(name)
    except ModuleNotFoundError as missing:
        if missing.name != name:
            raise
        told = {"trouble": ""}
    else:
        providers = getattr(found, "get_available_providers", list)()
        told = {"version": found.__version__, "providers": providers, "file": found.__file__}
    print(json.dumps(told), flush=True)
"""
IMPORT_S = 90


def attempt(names: Sequence[str], path: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How importing each ends: version, providers and file, or the trouble, which is empty where it is not installed.

    They share a process until one ends it; those behind that one get a process of their own.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRY, *names],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=IMPORT_S,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(path)),
            check=False,
        )
        said, trouble = done.stdout, _trouble(done)
    except subprocess.TimeoutExpired as late:
        said, trouble = late.stdout or b"", f"its import did not end within {IMPORT_S} s"
    told = [json.loads(line) for line in said.decode().splitlines() if line.startswith("{")]
    found = dict(zip(names, told))
    if len(told) < len(names):
        name, *others = names[len(told) :]
        found[name] = {"trouble": trouble}
        found.update(attempt(others, path) if others else {})
    return found


def _trouble(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"its import is ended by {signal.Signals(-done.returncode).name}"
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"its import ends with {done.returncode}"


def main(site: str, folder: str, *names: str) -> None:
    """One line of JSON."""
    path = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each not in ("", site, folder)]
    own = attempt(names, path) if folder == site else {}
    told = {
        "implementation": sys.implementation.name,
        "version": platform.python_version(),
        "abi": "cp{}{}{}".format(sys.version_info[0], sys.version_info[1], getattr(sys, "abiflags", "")),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": list(platform.libc_ver()),
        "own": own,
        "found": attempt(names, [folder, *path]) if os.path.isdir(folder) else own,
    }
    print(json.dumps(told))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
