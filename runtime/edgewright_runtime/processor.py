"""What this processor is and can do, and whether it can run the machine code of a bundle."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Optional

from edgewright.errors import BundleError
from edgewright.machine import ARM_BITS, FEATURES, arm_features, listed_features
from edgewright.types import Companion, Needs

NARROW = {"x86_64": "i686", "aarch64": "armv8l"}
"""What a process of 32 bits runs on, where the kernel has 64."""

_INFO = Path("/proc/cpuinfo")


def read_cpuinfo() -> str:
    """What Linux says of the processor; nothing on other systems."""
    try:
        return _INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def find_isa() -> str:
    """The instruction set of this process, as Linux calls it."""
    isa = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")
    return isa if sys.maxsize > 2**32 else NARROW.get(isa, isa)


def find_features(isa: str, cpuinfo: str, auxval: Optional[Callable[[int], int]] = None) -> frozenset[str]:
    """Those of `FEATURES` that this processor has; empty where it does not say.

    On aarch64 the kernel tells each process in its auxiliary vector (`auxval`, by default this process's). cpuinfo is
    the fallback alone: in a container or an emulator it may be another machine's.
    """
    auxval = auxval or _auxval()
    if isa == "aarch64" and auxval is not None:
        return arm_features({word: auxval(word) for word in ARM_BITS})
    return listed_features(cpuinfo)


def _auxval() -> Optional[Callable[[int], int]]:
    """The C library's `getauxval`, where it has one."""
    try:
        found: Any = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError, TypeError):
        return None
    found.restype, found.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return found


def check_processor(library: Companion) -> None:
    """Find out before a library is opened whether this processor can run it.

    What the processor does not say of itself, and what old bundles do not say of their libraries, is not held against
    them. Raises: BundleError, with what it lacks.
    """
    if library.needs is None:
        return
    isa = find_isa()
    lacking = _lacking(library.needs, isa, find_features(isa, read_cpuinfo()))
    if lacking:
        raise BundleError(
            f"{library.name} of this bundle is made for {library.needs.name} and needs {lacking}; deploy again with "
            "the --target that this device is, or with --exporter onnx, which runs everywhere"
        )


def _lacking(needs: Needs, isa: str, features: Iterable[str]) -> str:
    """What a processor would need and what it is instead; nothing where it can do all."""
    if needs.isa != isa:
        return f"a processor of {needs.isa}, and this one is {isa}"
    features = set(features)
    missing = sorted(set(needs.features) & FEATURES - features)
    if not missing or not features:
        return ""
    return f"{', '.join(missing)}, which this CPU lacks (it has {', '.join(sorted(features))})"
