"""Finds out what this device is: processor, memory, versions, providers, governor, and whether it is emulated."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgewright.machine import emulation_signs
from edgewright.types import Device
from edgewright_runtime.processor import find_features, find_isa, read_cpuinfo


def find_device() -> Device:
    """What this process runs on. Imports onnxruntime when it is there, to ask for its providers."""
    cpuinfo, isa = read_cpuinfo(), find_isa()
    versions, providers = _runtimes()
    facts = {
        "isa": isa,
        "cpu": _cpu(cpuinfo),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": _memory_bytes(),
        "os": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "python": platform.python_version(),
        "features": tuple(sorted(find_features(isa, cpuinfo))),
        "versions": versions,
        "providers": providers,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or "unknown",
        "emulated": bool(emulation(isa, cpuinfo)),
    }
    fingerprint = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return Device(fingerprint=fingerprint, soc=_soc(), **facts)  # pyright: ignore[reportArgumentType]


def emulation(isa: str, cpuinfo: str, proc: Path = Path("/proc")) -> str:
    """The evidence that instructions are emulated here, or nothing."""
    # QEMU answers for `self` and for our process id as if it were not there, but not for the thread.
    programs = [_program(proc / process) for process in ("thread-self", str(os.getppid()))]
    interpreted = (proc / "sys/fs/binfmt_misc" / f"qemu-{isa}").exists()
    return emulation_signs(isa, cpuinfo, programs, interpreted=interpreted)


def _program(process: Path) -> str:
    try:
        return os.path.basename(os.readlink(process / "exe"))
    except OSError:
        return ""


def _runtimes() -> tuple[Mapping[str, str], tuple[str, ...]]:
    versions = {"numpy": version("numpy"), **_installed("openvino", "apache-tvm")}
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        return versions, ()
    return {**versions, "onnxruntime": str(onnxruntime.__version__)}, tuple(onnxruntime.get_available_providers())


def _installed(*packages: str) -> Mapping[str, str]:
    """The versions of those that are there; not imported, because that takes a while and who runs them does it."""
    found: dict[str, str] = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _cpu(cpuinfo: str) -> str:
    board = _read("/proc/device-tree/model").strip("\0 \n") or _property("ro.product.model")
    if board:
        return board
    match = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or "unknown"


def _soc() -> str:
    """The last, most general name in the device tree, such as `brcm,bcm2711`."""
    return _read("/proc/device-tree/compatible").strip("\0 \n").split("\0")[-1] or _property("ro.soc.model")


def _property(name: str) -> str:
    """What Android says of itself; nothing elsewhere."""
    if shutil.which("getprop") is None:
        return ""
    done = subprocess.run(["getprop", name], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _memory_bytes() -> int:
    match = re.search(r"MemTotal:\s*(\d+) kB", _read("/proc/meminfo"))
    return int(match.group(1)) * 1024 if match else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
