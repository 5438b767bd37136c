"""The command line, as a user runs it: in a process of its own, with a cache of the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def engine(folder: Path, *argv: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`, torch on one thread; the cache lies there too unless another is named."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache or folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from edgewright.cli import main; main()", *argv]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
