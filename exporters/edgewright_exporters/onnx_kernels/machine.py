"""What this machine is, as far as it decides which kernels run here and how fast."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from edgewright_exporters.tir.isa import Isa

CPUINFO = Path("/proc/cpuinfo")


def runs_here(isa: Isa) -> bool:
    """Whether this machine can execute kernels for `isa`."""
    return platform.machine() == isa.machine and set(isa.requires) <= set(_line("flags|Features").split())


def cpu_name() -> str:
    """What the CPU calls itself."""
    return _line("model name") or platform.machine()


def _line(name: str) -> str:
    """The first line of this name in what Linux says of its CPUs; nothing on other systems."""
    try:
        text = CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(rf"^(?:{name})\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
