"""What a device is like at this moment: whatever may differ from one measurement to the next, or while one runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from edgewright.machine import hottest, throttle_signs

COMMAND_S = 5.0


def conditions(root: Path = Path("/")) -> Mapping[str, Any]:
    """Of the machine whose files lie below `root`. What it does not tell is None, empty, or an empty list.

    `clocks` has an entry per group of CPUs: what they run at, are held to, and can do at most, in MHz. `throttled`
    says what slows them now; `throttle_count` is how often x86 cores were slowed for heat since the start.
    """
    thermal = root / "sys/class/thermal"
    coolers = [f"{_text(c / 'cur_state')} {_text(c / 'type')}" for c in sorted(thermal.glob("cooling_device*"))]
    return {
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "temperature_c": hottest(f"{_text(z / 'temp')} {_text(z / 'type')}" for z in thermal.glob("thermal_zone*")),
        "clocks": list(_clocks(root)),
        "power_mode": _power_mode(),
        "throttled": throttle_signs(
            coolers, _said("vcgencmd", "get_throttled"), _said("dumpsys", "thermalservice") if _is_android() else ""
        ),
        "throttle_count": _throttle_count(root),
    }


def _clocks(root: Path) -> Iterator[Mapping[str, Any]]:
    """Phones and boards with big and little cores have several groups; a virtual machine has none."""
    for policy in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"), key=lambda p: (len(p.name), p)):
        names = {"mhz": "scaling_cur_freq", "limit_mhz": "scaling_max_freq", "most_mhz": "cpuinfo_max_freq"}
        figures = {key: _mhz(_text(policy / name)) for key, name in names.items()}
        yield {
            "cpus": _text(policy / "related_cpus"),
            "governor": _text(policy / "scaling_governor"),
            **figures,
        }


def _mhz(kilohertz: str) -> Optional[float]:
    return int(kilohertz) / 1000 if kilohertz.isdigit() else None


def _power_mode() -> str:
    """Jetson's, which caps clocks and switches cores off."""
    found = re.search(r"^NV Power Mode: *(.+)$", _said("nvpmodel", "-q"), re.MULTILINE)
    return found.group(1).strip() if found else ""


def _throttle_count(root: Path) -> Optional[int]:
    files = (root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count")
    counts = [int(text) for text in map(_text, files) if text.isdigit()]
    return sum(counts) if counts else None


def _is_android() -> bool:
    return shutil.which("getprop") is not None


def _said(*argv: str) -> str:
    """What a command prints; nothing where it is not there, fails or takes too long."""
    if shutil.which(argv[0]) is None:
        return ""
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _text(path: Path) -> str:
    """A file of the kernel's; nothing where it cannot be read, as of a zone that is switched off."""
    try:
        return path.read_bytes().decode(errors="replace").strip()
    except OSError:
        return ""
