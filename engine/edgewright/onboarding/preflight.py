"""What a device is and has, asked of it before anything of ours runs there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgewright.errors import DeviceError
from edgewright.protocols import Link

PACKAGES = ("numpy", "onnxruntime")
"""What the agent and the usual runtime are made of."""

SYSTEM = """echo "machine=$(uname -m)"
echo "release=$(uname -sr)"
echo "free=$(df -Pk {root} | tail -n 1 | tr -s ' ' | cut -d' ' -f4)"
while read name value unit; do case $name in MemAvailable:) echo "memory=$value";; esac; done </proc/meminfo
echo "board=$( (tr -d '\\000' </proc/device-tree/model || getprop ro.product.model) 2>/dev/null)"
echo "power=$( (nvpmodel -q | tail -n 1) 2>/dev/null)"
echo "governor=$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null)"
cd /sys/class; echo "sensors=$(cat power_supply/*/type hwmon/*/name powercap/*/name 2>/dev/null | tr '\\n' ' ')"
echo "throttled=$(vcgencmd get_throttled 2>/dev/null)"
"""
"""For any shell, with or without Python."""

PYTHON = r"""
import json, platform, subprocess, sys
TRY = "import json, {0} as p; print(json.dumps([p.__version__, list(getattr(p, 'get_available_providers', list)())]))"
found = {}
for name in sys.argv[1:]:
    command = [sys.executable, *(["-I"] if sys.flags.isolated else []), "-c", TRY.format(name)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=90)
    except subprocess.TimeoutExpired:
        found[name] = {"trouble": "its import did not end within 90 s"}
        continue
    last = ([""] + done.stderr.decode(errors="replace").strip().splitlines())[-1]
    if done.returncode == 0:
        version, providers = json.loads(done.stdout.decode().splitlines()[-1])
        found[name] = {"version": version, "providers": providers}
    elif done.returncode < 0:
        found[name] = {"trouble": "its import is ended by signal %d" % -done.returncode}
    else:
        found[name] = {"trouble": "" if "No module named" in last else last[:200] or "its import fails"}
print(json.dumps({"python": list(sys.version_info[:2]), "libc": platform.libc_ver(), "packages": found}))
"""
"""Imports each package in a process of its own: onnxruntime may end by a signal there."""

ASK_S = 240.0


@dataclass(frozen=True)
class Package:
    """A package of the device's Python: its version, or the trouble with it; neither where it is not installed."""

    version: str = ""
    trouble: str = ""
    providers: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        """Whether it can be imported."""
        return bool(self.version)


@dataclass(frozen=True)
class Preflight:
    """What was found. Bytes are None, and texts empty, where the system does not tell.

    `own` are the packages that the device has by itself, `found` those that the agent would import.
    """

    machine: str
    release: str
    board: str
    free_bytes: int | None
    memory_bytes: int | None
    governor: str
    power_mode: str
    throttled: str
    sensors: tuple[str, ...]
    python: tuple[int, int] | None = None
    libc: tuple[str, str] = ("", "")
    own: Mapping[str, Package] = field(default_factory=dict[str, Package])
    found: Mapping[str, Package] = field(default_factory=dict[str, Package])


def examine(link: Link) -> Preflight:
    """Raises: DeviceError when the device does not answer."""
    facts = _system(link)
    if not link.python:
        return Preflight(**facts)
    own, found = _python(link, "-I"), _python(link)
    return Preflight(
        **facts,
        python=tuple(found["python"]),
        libc=tuple(found["libc"]),
        own=_packages(own),
        found=_packages(found),
    )


def _system(link: Link) -> dict[str, Any]:
    _, said, _ = link.run(["sh", "-c", SYSTEM.format(root=shlex.quote(str(link.root)))])
    facts = parse_system(said.decode(errors="replace"))
    return facts


def parse_system(said: str) -> dict[str, Any]:
    """The fields of a Preflight that the shell tells. Raises: DeviceError when it told none."""
    told = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if not told.get("machine"):
        raise DeviceError(f"the device does not tell what it is; it said {said.strip()[:80]!r}")
    return {
        "machine": told["machine"],
        "release": told.get("release", ""),
        "board": told.get("board", "").strip(),
        "free_bytes": _kibibytes(told.get("free", "")),
        "memory_bytes": _kibibytes(told.get("memory", "")),
        "governor": told.get("governor", ""),
        "power_mode": told.get("power", "").strip(),
        "throttled": told.get("throttled", "").removeprefix("throttled="),
        "sensors": tuple(dict.fromkeys(told.get("sensors", "").split())),
    }


def _kibibytes(text: str) -> int | None:
    return 1024 * int(text) if text.isdigit() else None


def _python(link: Link, *flags: str) -> dict[str, Any]:
    status, said, errors = link.run([link.python, *flags, "-c", PYTHON, *PACKAGES], timeout=ASK_S)
    if status:
        last = (errors.decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
        raise DeviceError(f"the Python of {link.address} does not work: {last[:200]}")
    return json.loads(said.decode().splitlines()[-1])


def _packages(told: Mapping[str, Any]) -> Mapping[str, Package]:
    return {
        name: Package(each.get("version", ""), each.get("trouble", ""), tuple(each.get("providers", ())))
        for name, each in told["packages"].items()
    }
