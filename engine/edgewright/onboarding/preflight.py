"""What a device is and has, asked of it before anything of ours runs there."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

from edgewright.agents.runnerfile import NAME
from edgewright.errors import DeviceError
from edgewright.machine import ARM_BITS, arm_features, emulation_signs, hottest, listed_features, throttle_signs
from edgewright.protocols import Link

PACKAGES = ("numpy", "onnxruntime")
"""What the agent and the usual runtime are made of."""

SITE = "site"
"""The folder below `Link.root` that the agent's Python looks into first, and the native runner for a library."""

RUNNER = f"runner/{NAME}"
"""Where the native runner lies below `Link.root`."""

PROBE_S, IMPORTS_S = 60.0, 400.0

NARROW = {"x86_64": "i686", "aarch64": "armv8l"}
"""What a system of 32 bits runs on, where the kernel has 64."""


@dataclass(frozen=True)
class Package:
    """How an import ended on the device: with a version, with `trouble`, or with neither where it is not installed."""

    version: str = ""
    trouble: str = ""
    providers: tuple[str, ...] = ()
    file: str = ""

    @property
    def works(self) -> bool:
        """Whether it can be imported."""
        return bool(self.version)


@dataclass(frozen=True)
class Interpreter:
    """The device's Python. `own` are the packages it has by itself, `found` those that our agent imports."""

    implementation: str
    version: str
    abi: str
    bits: int
    libc: tuple[str, str]
    own: Mapping[str, Package]
    found: Mapping[str, Package]


@dataclass(frozen=True)
class Runner:
    """The native runner of a device, and the onnxruntime it finds; `trouble` is why it does not start."""

    library: Package = Package()
    libc: tuple[str, str] = ("", "")
    trouble: str = ""


@dataclass(frozen=True)
class Preflight:
    """What was found. Texts are empty, and numbers None, where the system does not tell.

    `libc` is (`glibc`, `musl` or `bionic`, version); `clock_s` seconds since 1970; `emulation` and `throttled` the
    evidence; `capped` whether a clock is held below its maximum; `busy` who holds the device; `mark` what setup left.
    """

    isa: str
    kernel: str = ""
    model: str = ""
    soc: str = ""
    release: str = ""
    libc: tuple[str, str] = ("", "")
    cores: int | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    disk_free_bytes: int | None = None
    clock_s: int | None = None
    features: tuple[str, ...] = ()
    governor: str = ""
    capped: bool = False
    power_mode: str = ""
    temperature_c: float | None = None
    throttled: str = ""
    sensors: tuple[str, ...] = ()
    emulation: str = ""
    busy: str = ""
    mark: Mapping[str, Any] = field(default_factory=dict[str, Any])
    python: Interpreter | None = None
    runner: Runner | None = None


def onnxruntime_of(device: Preflight) -> Package | None:
    """The one that models run with there."""
    if device.python:
        return device.python.found["onnxruntime"]
    return device.runner.library if device.runner else None


def examine(link: Link, *, free: bool = False) -> Preflight:
    """Everything, imports included.

    Raises: DeviceError when the device does not answer, or is to be `free` and another client holds it.
    """
    said = _told(link)
    seen = parse_probe(said)
    if free and seen.busy:
        raise DeviceError(f"{link.address} is in use by {seen.busy}; wait for its end, or end that process")
    if link.python:
        return parse_probe(said, ask_interpreter(link))
    return replace(seen, runner=ask_runner(link))


def look(link: Link) -> Preflight:
    """What any shell can tell, in a moment. Raises: DeviceError when the device does not answer."""
    return parse_probe(_told(link))


def _told(link: Link) -> str:
    """Raises: DeviceError when it is no answer."""
    script = files("edgewright.onboarding").joinpath("probe.sh").read_bytes()
    _, said, errors = link.run(["sh", "-s", str(link.root)], stdin=script, timeout=PROBE_S)
    text = said.decode(errors="replace")
    try:
        parse_probe(text)
    except ValueError:
        what = (errors or said).decode(errors="replace").strip()[:80]
        raise DeviceError(f"{link.address} has no shell that tells what it is; it said {what!r}") from None
    return text


def ask_interpreter(link: Link) -> Interpreter:
    """What the device's Python is, and imports, by itself and with our site in front."""
    return _interpreted(link, f"{link.root}/{SITE}")


def try_imports(link: Link, folder: str, known: Interpreter) -> Interpreter:
    """The same of a Python that is `known`, with `folder` in front."""
    return replace(known, found=_interpreted(link, folder).found)


def _interpreted(link: Link, folder: str) -> Interpreter:
    script, site = files("edgewright.onboarding").joinpath("interpreter.py").read_text(), f"{link.root}/{SITE}"
    status, said, errors = link.run([link.python, "-c", script, site, folder, *PACKAGES], timeout=IMPORTS_S)
    if status:
        last = (errors.decode(errors="replace").strip().splitlines() or [f"it ended with {status}"])[-1]
        raise DeviceError(f"{link.python} of {link.address} does not work: {last[:200]}")
    return parse_interpreter(said.decode(errors="replace"))


def ask_runner(link: Link, library: str = "") -> Runner | None:
    """What the native runner finds there, `library` being in the place of the one it looks for; None without a runner.

    A shell waits for it: a signal that ends a library would look like a lost connection.
    """
    chosen = f"EDGEWRIGHT_ONNXRUNTIME={shlex.quote(library)} " if library else ""
    script = f'[ -f "$1" ] || exit 0; {chosen}"$1" probe; echo "ended $?"'
    _, said, errors = link.run(["sh", "-c", script, "sh", f"{link.root}/{RUNNER}"], timeout=PROBE_S)
    *told, ended = said.decode(errors="replace").strip().splitlines() or [""]
    if not ended:
        return None
    return parse_runner(told, int(ended.split()[-1]), errors.decode(errors="replace"))


# ------------------------------------------------------------------ reading what was told


def parse_runner(told: Sequence[str], status: int, errors: str) -> Runner:
    """From the lines it printed, the status that a shell told of it, and what it complained of."""
    if status or not told:
        last = (errors.strip().splitlines() or [f"it ended with {status}"])[-1]
        killed = f"it is ended by {signal.Signals(status - 128).name}" if 128 < status < 160 else ""
        return Runner(trouble=killed or last[:200])
    found: dict[str, Any] = json.loads(told[-1])
    name, _, version = found.pop("libc").partition(" ")
    library = Package(found["version"], found["trouble"], tuple(found.get("providers", ())), found["file"])
    return Runner(library, (name, version))


def parse_interpreter(said: str) -> Interpreter:
    """From the last line, the only one that is not some library's."""
    told: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    name, version = told.pop("libc")
    own, found = _packages(told.pop("own")), _packages(told.pop("found"))
    return Interpreter(**told, libc=(name, version), own=own, found=found)


def _packages(told: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Package]:
    return {
        name: Package(
            each.get("version", ""), each.get("trouble", ""), tuple(each.get("providers", ())), each.get("file", "")
        )
        for name, each in told.items()
    }


def parse_probe(said: str, python: Interpreter | None = None) -> Preflight:
    """From what `probe.sh` says. Raises: ValueError when it said nothing."""
    told: dict[str, list[str]] = {}
    for line in said.replace("\r\n", "\n").splitlines():
        key, tab, value = line.partition("\t")
        if tab:
            told.setdefault(key, []).append(value.strip())
    if "isa" not in told:
        raise ValueError("no line names the instruction set")
    first = {key: values[0] for key, values in told.items()}
    bits = python.bits if python else _number(first.get("bits", "")) or 64
    isa = first["isa"] if bits == 64 else NARROW.get(first["isa"], first["isa"])
    cpuinfo = "\n".join(told.get("cpuinfo", ()))
    return Preflight(
        isa=isa,
        kernel=first.get("kernel", ""),
        model=first.get("model") or _model(cpuinfo),
        soc=first.get("soc", ""),
        release=first.get("release", ""),
        libc=_libc(first, python),
        cores=_number(first.get("cores", "")),
        memory_bytes=_memory(told, "MemTotal"),
        memory_free_bytes=_memory(told, "MemAvailable"),
        disk_free_bytes=_disk(first.get("disk", "")),
        clock_s=_number(first.get("clock", "")),
        features=tuple(sorted(_features(isa, first.get("auxv", ""), cpuinfo))),
        governor=" ".join(told.get("governor", ())),
        capped=any(_capped(pair) for pair in told.get("khz", ())),
        power_mode=first.get("power_mode", ""),
        temperature_c=hottest(told.get("zone", ())),
        throttled=throttle_signs(told.get("cooler", ()), first.get("vcgencmd", ""), first.get("thermalservice", "")),
        sensors=tuple(dict.fromkeys(told.get("sensor", ()))),
        emulation=_emulation(isa, cpuinfo, told),
        busy=_holder(first.get("busy", ""), first.get("held", "")),
        mark=_mark(first.get("mark", "")),
        python=python,
    )


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _model(cpuinfo: str) -> str:
    found = re.search(r"^(?:Model|Hardware|model name)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _libc(first: Mapping[str, str], python: Interpreter | None) -> tuple[str, str]:
    """Python's own word counts most: it may stand on another C library than the shell."""
    if "android" in first:
        return "bionic", first["android"]
    if python and python.libc[0] == "glibc":
        return python.libc
    said = first.get("libc", "")
    if "musl" in said:
        found = re.search(r"Version (\d+\.\d+)", said)
        return "musl", found.group(1) if found else ""
    found = re.search(r"(?:glibc|GLIBC|GNU libc|ldd).*?(\d+\.\d+)", said)
    return ("glibc", found.group(1)) if found else ("", "")


def _memory(told: Mapping[str, Sequence[str]], name: str) -> int | None:
    lines = (line.split() for line in told.get("memory", ()) if line.startswith(name))
    return next((1024 * int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()), None)


def _disk(row: str) -> int | None:
    """The fourth column of POSIX `df`, in kilobytes; the first may hold blanks, so it is counted from the right."""
    words = row.split()
    kilobytes = _number(words[-3]) if len(words) >= 6 else None
    return None if kilobytes is None else 1024 * kilobytes


def _features(isa: str, auxv: str, cpuinfo: str) -> frozenset[str]:
    """On aarch64 the auxiliary vector is believed, as the agent does; it comes as pairs of 64-bit words."""
    words = [int(word) for word in auxv.split() if word.isdigit()]
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    if isa == "aarch64" and any(word in pairs for word in ARM_BITS):
        return arm_features(pairs)
    return listed_features(cpuinfo)


def _capped(pair: str) -> bool:
    numbers = [int(word) for word in pair.split() if word.isdigit()]
    return len(numbers) == 2 and numbers[1] < numbers[0]


def _emulation(isa: str, cpuinfo: str, told: Mapping[str, Sequence[str]]) -> str:
    if "1" in "".join(told.get("virtual", ())):
        return "an Android emulator"
    return emulation_signs(isa, cpuinfo, told.get("program", ()), interpreted="interpreted" in told)


def _holder(owner: str, held: str) -> str:
    """Who holds the device, and for how long, by its own clock; nobody where the owner is empty."""
    words = held.split()
    if not owner or len(words) != 4:
        return owner
    return f"{owner}, for {max(0.0, float(words[3]) - float(words[0])):.0f} s"


def _mark(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
