"""What the preflight of a device comes to, line by line: what is there, what limits it, what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgewright.measuring.steadiness import HOT_C
from edgewright.onboarding.preflight import PACKAGES, Interpreter, Package, Preflight, Runner
from edgewright.reporting.tables import amount

LITTLE_DISK, LITTLE_MEMORY = 300e6, 200e6
"""Bytes: numpy, onnxruntime and a bundle of middling size; what they take in memory."""


@dataclass(frozen=True)
class Finding:
    """One line. `state` is `ok`, `note` (works, with a limit) or `missing`."""

    state: str
    what: str
    found: str


def findings(device: Preflight, address: str, now_s: float) -> Iterator[Finding]:
    """Everything about a device. `now_s` is this host's clock, seconds since 1970."""
    setup = f"run `engine device setup --on {address}`"
    yield Finding("ok", address, describe(device))
    yield from _system(device, now_s)
    yield from _python(device.python, setup) if device.python else _native(device.runner, setup)
    yield from _speed(device.features, device.isa)
    yield from _steadiness(device)


def describe(device: Preflight) -> str:
    """Model, processor and system in a line."""
    libc = " ".join(device.libc).strip() or "an unknown C library"
    memory = amount(device.memory_bytes, "B") if device.memory_bytes else ""
    cores = f"{device.cores} cores" if device.cores else ""
    return ", ".join(filter(None, (device.model, device.release, device.isa, cores, memory, libc, device.kernel)))


def _system(device: Preflight, now_s: float) -> Iterator[Finding]:
    yield _room("disk", device.disk_free_bytes, LITTLE_DISK)
    yield _room("memory", device.memory_free_bytes, LITTLE_MEMORY)
    if device.isa.startswith(("armv", "i686")):
        yield Finding("missing", "64 bits", f"{device.isa} runs 32-bit programs; onnxruntime has no wheels for it")
    if device.busy:
        yield Finding("note", "busy", f"in use by {device.busy}")
    if device.clock_s is not None and abs(device.clock_s - now_s) > 60:
        late = device.clock_s - now_s
        yield Finding(
            "note", "clock", f"{abs(late):.0f} s {'ahead' if late > 0 else 'behind'}; nothing here relies on it"
        )
    if device.emulation:
        yield _emulated(device.emulation)


def _room(what: str, free: int | None, little: float) -> Finding:
    if free is None:
        return Finding("note", what, "the device does not tell how much is free")
    least = f"; {amount(little, 'B')} are needed for onnxruntime and a bundle" if free < little else ""
    return Finding("note" if least else "ok", what, f"{amount(free, 'B')} free{least}")


def _native(runner: Runner | None, setup: str) -> Iterator[Finding]:
    yield Finding("note", "python", "none of version 3.9 or newer; the native runner takes its place")
    if runner is None or runner.trouble:
        why = f"it does not start: {runner.trouble}" if runner else "not there yet"
        yield Finding("missing", "native runner", f"{why}; {setup}")
        return
    yield Finding("ok", "native runner", f"starts on {' '.join(runner.libc).strip()}")
    found = runner.library
    providers = f"; {', '.join(found.providers)}" if found.providers else ""
    where = f"{found.version} in {found.file}{providers}"
    yield Finding(
        "ok" if found.works else "missing", "onnxruntime", where if found.works else f"{found.trouble}; {setup}"
    )


def _python(python: Interpreter, setup: str) -> Iterator[Finding]:
    yield Finding("ok", "python", f"{python.implementation} {python.version}, {python.abi}, {python.bits} bits")
    for name in PACKAGES:
        yield _package(name, python.found[name], python.own[name], setup)


def _package(name: str, found: Package, own: Package, setup: str) -> Finding:
    if not found.works:
        return Finding("missing", name, f"{found.trouble or 'not installed'}; {setup}")
    whose = "the device's own" if found.file == own.file else "put there by setup"
    providers = f"; {', '.join(found.providers)}" if found.providers else ""
    hidden = set(own.providers) - set(found.providers) if own.works else set[str]()
    if hidden:
        return Finding(
            "note", name, f"{found.version} hides the device's own with {', '.join(sorted(hidden))}; {setup}"
        )
    return Finding("ok", name, f"{found.version}, {whose}{providers}")


def _speed(features: tuple[str, ...], isa: str) -> Iterator[Finding]:
    yield Finding("ok", "features", " ".join(features) or "none known")
    yield _int8(features, isa)
    if isa == "aarch64":
        half = "asimdhp" in features
        yield Finding("ok" if half else "note", "float16", "computed" if half else "stored only; computed as float32")


def _int8(features: tuple[str, ...], isa: str) -> Finding:
    fast = {"avx512_vnni", "avx_vnni", "asimddp"} & set(features)
    if fast:
        return Finding("ok", "int8", f"dot-product instructions: {', '.join(sorted(fast))}")
    if isa.startswith("x86"):
        return Finding("note", "int8", "no int8 dot-product instructions: weights of 7 bits are faster than those of 8")
    return Finding("note", "int8", "no int8 dot-product instructions: int8 saves memory and seldom time here")


def _steadiness(device: Preflight) -> Iterator[Finding]:
    """What makes one measurement differ from the next."""
    yield _governor(device.governor)
    if device.capped:
        yield Finding("note", "clocks", "held below the processor's maximum")
    if device.power_mode:
        most = device.power_mode.startswith("MAXN")
        yield Finding(
            "ok" if most else "note", "power mode", device.power_mode + ("" if most else "; nvpmodel -q lists")
        )
    if device.throttled:
        yield Finding("note", "throttled", f"{device.throttled}: cool it or give it more power before measuring")
    if device.temperature_c is not None:
        hot = device.temperature_c >= HOT_C
        yield Finding(
            "note" if hot else "ok", "temperature", f"{device.temperature_c:.1f} °C{'; near its limit' * hot}"
        )
    sensors = ", ".join(device.sensors)
    yield Finding("ok" if sensors else "note", "sensors", sensors or "none of power or energy")


def _governor(governor: str) -> Finding:
    if governor in ("", "unknown", "performance"):
        return Finding("ok", "governor", governor or "unknown")
    return Finding("note", "governor", f"{governor}: clocks move while measuring; set `performance`")


def _emulated(evidence: str) -> Finding:
    why = f" ({evidence})" if evidence else ""
    return Finding("note", "emulation", f"this device is emulated{why}: whatever is timed on it is marked `simulated`")
