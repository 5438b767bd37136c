"""What Linux says of a machine, read without running anything: CPU features, and signs that it is emulated.

Part of the device set: Python 3.9, standard library only. The agent reads its own device with it, and the host reads
what a shell told of a device that has no agent yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

FEATURES = frozenset(
    (
        *("sse4_2", "avx", "avx2", "f16c", "fma", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
        *("avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
    )
)
"""The instruction sets that change how fast a kernel can be; cpuinfo lists a hundred others."""

AT_HWCAP, AT_HWCAP2 = 16, 26
ARM_BITS: Mapping[int, Mapping[str, int]] = {
    AT_HWCAP: {"asimd": 1, "asimdhp": 10, "asimddp": 20, "sve": 22},
    AT_HWCAP2: {"sve2": 1, "i8mm": 13, "bf16": 14, "sme": 23},
}
"""Where Linux tells a process on aarch64 what it can do (arch/arm64/include/uapi/asm/hwcap.h)."""

_X86 = ("x86_64", "i686")


def arm_features(words: Mapping[int, int]) -> frozenset[str]:
    """The features that the words of an auxiliary vector state, by `AT_HWCAP` and `AT_HWCAP2`."""
    return frozenset(
        name for word, bits in ARM_BITS.items() for name, bit in bits.items() if words.get(word, 0) >> bit & 1
    )


def listed_features(cpuinfo: str) -> frozenset[str]:
    """Those of `FEATURES` that cpuinfo lists; empty where it lists none."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return frozenset(match.group(1).split()) & FEATURES if match else frozenset()


def emulation_signs(isa: str, cpuinfo: str, programs: Iterable[str], *, interpreted: bool) -> str:
    """The evidence that instructions are emulated on a machine, or nothing.

    User-mode QEMU shows as a process's own executable or its parent's (`programs`), as a registered interpreter for
    the process's own instruction set (`interpreted`), or as an x86 cpuinfo under another set; full emulation names
    itself as the processor.
    """
    for program in programs:
        if program.startswith("qemu-"):
            return f"runs under {program}"
    if interpreted:
        return f"this kernel runs {isa} programs through qemu-{isa}"
    if isa not in _X86 and re.search(r"^vendor_id\s*:", cpuinfo, re.MULTILINE):
        return f"a processor of another instruction set than {isa}"
    name = re.search(r"QEMU TCG|QEMU Virtual CPU|VirtualApple", cpuinfo)
    return f"the processor calls itself {name.group()}" if name else ""
