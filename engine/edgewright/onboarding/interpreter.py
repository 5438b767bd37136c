"""Runs on the device, given SITE, FOLDER and names: prints as JSON what Python is there and how each import ends.

Each is a process of its own, because onnxruntime may be ended by a signal there: once with FOLDER in front, once
without. SITE is where an earlier setup lies, and counts for neither. Python 3.9, standard library only.
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

TRY = (
    "import json, sys; name = sys.argv[1]; found = __import__(name); "
    "providers = getattr(found, 'get_available_providers', list)(); "
    "print(json.dumps({'version': found.__version__, 'providers': providers, 'file': found.__file__}))"
)
IMPORT_S = 90


def attempt(name: str, path: Sequence[str]) -> dict[str, Any]:
    """How the import ends: version, providers and file, or the trouble, which is empty where there is no such thing."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path))
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRY, name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=IMPORT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"trouble": f"its import did not end within {IMPORT_S} s"}
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else f"its import ends with {done.returncode}"
    if done.returncode < 0:
        return {"trouble": f"its import is ended by {signal.Signals(-done.returncode).name}"}
    if done.returncode > 0:
        absent = last.endswith(f"No module named '{name}'")
        return {"trouble": "" if absent else last[:200]}
    return json.loads(done.stdout.decode().splitlines()[-1])


def main(site: str, folder: str, *names: str) -> None:
    """One line of JSON."""
    path = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each not in ("", site, folder)]
    own = {name: attempt(name, path) for name in names}
    told = {
        "implementation": sys.implementation.name,
        "version": platform.python_version(),
        "abi": "cp{}{}{}".format(sys.version_info[0], sys.version_info[1], getattr(sys, "abiflags", "")),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": list(platform.libc_ver()),
        "own": own,
        "found": {name: attempt(name, [folder, *path]) for name in names} if os.path.isdir(folder) else own,
    }
    print(json.dumps(told))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*sys.argv[1:])
