"""What Linux says of a machine, read without running anything: CPU features, and signs that it is emulated.

Part of the device set: Python 3.9, standard library only. The agent reads its own device with it, and the host reads
what a shell told of a device that has no agent yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Optional

FEATURES = frozenset(
    (
        *("sse4_2", "avx", "avx2", "f16c", "fma", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
        *("avx512f", "avx512bw", "avx512_vnni", "avx512_bitalg", "avx512_bf16", "avx512_fp16"),
        *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
    )
)
"""The instruction sets that change how fast a kernel can be; cpuinfo lists a hundred others."""

VNNI = frozenset(("avx512_vnni", "avx_vnni"))
"""x86 with either of these multiplies bytes of all 8 bits exactly, and at full speed."""

AT_HWCAP, AT_HWCAP2 = 16, 26
ARM_BITS: Mapping[int, Mapping[str, int]] = {
    AT_HWCAP: {"asimd": 1, "asimdhp": 10, "asimddp": 20, "sve": 22},
    AT_HWCAP2: {"sve2": 1, "i8mm": 13, "bf16": 14, "sme": 23},
}
"""Where Linux tells a process on aarch64 what it can do (arch/arm64/include/uapi/asm/hwcap.h)."""

THROTTLED = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
"""The bits of `vcgencmd get_throttled` that tell of now."""

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


def products_are_exact(features: Iterable[str]) -> bool:
    """Whether onnxruntime's usual kernels for signed weights are exact on an x86 CPU with these features.

    Without VNNI they cut sums of products off at 16 bits. Where it is asked for exact ones, it makes weights of more
    than 7 bits unsigned, which VNNI has no instruction for: static int8 then takes 2.7 times as long.
    """
    return not VNNI.isdisjoint(features)


def hottest(zones: Iterable[str]) -> Optional[float]:
    """The highest of thermal zones (`48312 cpu-thermal`, in thousandths) in °C.

    Zones below -40 are switched off, and those called PMIC tell a fixed value.
    """
    found = (re.fullmatch(r"(-?\d+)\s*(.*)", zone.strip()) for zone in zones)
    readings = [int(match.group(1)) / 1000 for match in found if match and "PMIC" not in match.group(2)]
    return max((reading for reading in readings if reading > -40), default=None)


def throttle_signs(coolers: Iterable[str], vcgencmd: str = "", thermalservice: str = "") -> str:
    """Whatever slows the clocks down at this moment, as the board's own tools call it; empty where nothing does.

    `coolers` are steps and kinds of the kernel's cooling devices (`2 cpufreq-cpu0`), of which fans slow nothing down;
    the others what `vcgencmd get_throttled` (Raspberry Pi) and `dumpsys thermalservice` (Android) print.
    """
    bits = re.search(r"throttled=(0x[0-9a-fA-F]+)", vcgencmd)
    signs = [name for bit, name in THROTTLED.items() if bits and int(bits.group(1), 16) >> bit & 1]
    status = re.search(r"Thermal Status:\s*(\d+)", thermalservice)
    signs += [f"thermal status {status.group(1)}"] if status and status.group(1) != "0" else []
    for cooler in coolers:
        state, _, kind = cooler.partition(" ")
        signs += [f"{kind} at step {state}"] if state.isdigit() and int(state) and "fan" not in kind.lower() else []
    return ", ".join(signs)


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
