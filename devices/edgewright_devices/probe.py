"""Describes the host as the target `cpu`, from files that the kernel keeps; nothing is timed here."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from edgewright.types import Figure, Target


@dataclass(frozen=True)
class Rate:
    """Operations per core and cycle that a CPU feature allows, and why. A multiply-add counts as two."""

    feature: str
    ops: float
    why: str


FLOAT = {
    "x86_64": (
        Rate("avx512f", 64, "two 512-bit FMA"),
        Rate("fma", 32, "two 256-bit FMA"),
        Rate("avx", 16, "a 256-bit multiply and a 256-bit add"),
        Rate("", 8, "a 128-bit multiply and a 128-bit add"),
    ),
    "aarch64": (Rate("asimddp", 16, "two 128-bit FMLA"), Rate("", 8, "one 128-bit FMLA")),
}
INTEGER = {
    "x86_64": (
        Rate("avx512_vnni", 256, "two 512-bit VPDPBUSD"),
        Rate("avx_vnni", 128, "two 256-bit VPDPBUSD"),
        Rate("avx2", 42, "32 MACs by three 256-bit instructions, two per cycle"),
        Rate("", 21, "16 MACs by three 128-bit instructions, two per cycle"),
    ),
    "aarch64": (
        Rate("i8mm", 128, "two SMMLA of 32 MACs"),
        Rate("asimddp", 64, "two SDOT of 16 MACs"),
        Rate("", 16, "one SMLAL of 8 MACs"),
    ),
}
HALF_FEATURE = {"x86_64": "avx512_fp16", "aarch64": "asimdhp"}
MATTER = {"avx512_bf16", "avx512bw", "asimd", "sve", *HALF_FEATURE.values()} | {
    rate.feature for table in (FLOAT, INTEGER) for rates in table.values() for rate in rates if rate.feature
}
"""The CPU features worth naming in a target, of the hundred or more that a kernel lists."""

BANDWIDTH = {
    "x86_64": Figure(25.6, "GB/s", "assumed, not probed: one channel of DDR4-3200, 3.2 GT/s x 8 B"),
    "aarch64": Figure(12.8, "GB/s", "assumed, not probed: LPDDR4-3200 on 32 bits, 3.2 GT/s x 4 B"),
}
ASSUMED_GHZ = 2.0


def probe(root: Path = Path("/")) -> Target:
    """This host as a target. `root` is where `proc` and `sys` lie.

    Peaks are cores x clock x operations per cycle of the widest instructions that the CPU has.
    """
    isa = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")
    cpuinfo = _text(root / "proc/cpuinfo")
    features = _features(cpuinfo)
    cores = _cores(cpuinfo)
    clock = _clock(root, cpuinfo)
    return Target(
        name="cpu",
        title=f"this host: {_model(cpuinfo) or isa}",
        isa=isa,
        memory=_memory(root),
        compute=_compute(isa, features, cores, clock),
        bandwidth=BANDWIDTH.get(isa, BANDWIDTH["aarch64"]),
        cores=cores,
        meters=("rapl",),
        recipe=("simplify", "quantize"),
        features=features,
        notes="No power figure: what the host draws is measured, not assumed.",
    )


def _compute(isa: str, features: tuple[str, ...], cores: Figure, clock: Figure) -> dict[str, Figure]:
    floats = _rate(FLOAT.get(isa, FLOAT["aarch64"]), features)
    integers = _rate(INTEGER.get(isa, INTEGER["aarch64"]), features)
    halves = floats
    if HALF_FEATURE.get(isa) in features:
        halves = Rate(floats.feature, 2 * floats.ops, f"{floats.why}, of halves")
    return {
        "float32": _peak(floats, "GFLOP/s", cores, clock),
        "float16": _peak(halves, "GFLOP/s", cores, clock),
        "int8": _peak(integers, "GOP/s", cores, clock),
    }


def _rate(rates: tuple[Rate, ...], features: tuple[str, ...]) -> Rate:
    """The first rate whose feature the CPU has; the last one asks for none."""
    return next(rate for rate in rates if not rate.feature or rate.feature in features)


def _peak(rate: Rate, unit: str, cores: Figure, clock: Figure) -> Figure:
    source = (
        f"probed: {cores.value:.0f} cores x {clock.value:.2f} GHz x {rate.ops:.0f} operations per cycle "
        f"({rate.why} per cycle; {rate.feature or 'baseline'}); clock {clock.source}"
    )
    return Figure(cores.value * clock.value * rate.ops, unit, source)


def _features(cpuinfo: str) -> tuple[str, ...]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return tuple(sorted(MATTER.intersection(found.group(1).split()))) if found else ()


def _model(cpuinfo: str) -> str:
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _cores(cpuinfo: str) -> Figure:
    """Physical cores, at most as many as this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pairs = set(re.findall(r"^physical id\s*:\s*(\d+)$.*?^core id\s*:\s*(\d+)$", cpuinfo, re.MULTILINE | re.DOTALL))
    if not pairs:
        return Figure(float(usable), "cores", "probed: logical CPUs this process may use")
    cores = min(len(pairs), usable)
    return Figure(float(cores), "cores", "probed: physical cores in /proc/cpuinfo that this process may use")


def _clock(root: Path, cpuinfo: str) -> Figure:
    """The highest clock that is stated anywhere, in GHz."""
    highest = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").strip()
    if highest.isdigit():
        return Figure(int(highest) / 1e6, "GHz", "probed: cpufreq/cpuinfo_max_freq")
    named = re.search(r"@\s*([\d.]+)\s*GHz", cpuinfo)
    if named:
        return Figure(float(named.group(1)), "GHz", "probed: model name in /proc/cpuinfo")
    current = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", cpuinfo, re.MULTILINE)]
    if current:
        return Figure(max(current) / 1e3, "GHz", "probed: cpu MHz in /proc/cpuinfo")
    return Figure(ASSUMED_GHZ, "GHz", "assumed: the kernel states none")


def _memory(root: Path) -> Figure:
    found = re.search(r"^MemTotal:\s*(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    if found:
        return Figure(int(found.group(1)) * 1024.0, "B", "probed: MemTotal in /proc/meminfo")
    return Figure(float(2**30), "B", "assumed: 1 GiB, the kernel states none")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
