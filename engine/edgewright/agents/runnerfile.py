"""Builds the native runner: the agent for devices without Python, compiled once from the sources that are installed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import DeviceError, PluginError, RefusedError, suggest
from edgewright.protocols import Link
from edgewright.toolchain import compilers
from edgewright.toolchain.compilers import CPP
from edgewright.toolchain.ortheader import Header, fetch_header, find_header
from edgewright.toolchain.sysroot import Sysroot, fetch_sysroot, find_sysroot

NAME = "edgewright-runner"
FLAGS = ("-std=c++17", "-O1", "-fno-plt", "-Wall", "-Wextra")
"""It moves bytes and waits; what computes is onnxruntime's. At -O2 it takes twice as long to build."""

UNITS = 2
"""Its sources are compiled in so many files that include them: the standard library's headers are most of the work."""

LIBRARIES = ("-static-libstdc++", "-static-libgcc", "-ldl", "-s")
"""What C++ needs goes into the program: a device has another version of it, or none."""

ISAS = tuple(CPP.packages)
"""What it is built for."""

ANDROID_API = 28
"""Android 9, the first whose C library has `glob`."""

NDK = "ANDROID_NDK_HOME"


@dataclass(frozen=True)
class Machine:
    """What the runner is built for: an instruction set as Linux calls it, and whether it is Android."""

    isa: str
    android: bool = False


def machine_of(link: Link) -> Machine:
    """What the device is. Raises: DeviceError when it does not tell, or no runner can be built for it."""
    code, said, _ = link.run(["sh", "-c", "uname -m; test -e /system/bin/linker64 && echo android"])
    isa, *more = said.decode(errors="replace").split() or [""]
    isa = {"arm64": "aarch64", "amd64": "x86_64"}.get(isa, isa)
    if isa not in ISAS:
        raise DeviceError(
            f"{link.address} has no python3 of version 3.9 or newer, and the native runner is not for {isa or code}; "
            f"{suggest(isa, ISAS)}"
        )
    return Machine(isa, "android" in more)


def build_runner(machine: Machine, cache: Path, *, header: Path | None = None, more: Sequence[str] = ()) -> Path:
    """The runner for `machine`, in a folder of `cache` of its own; the same sources are compiled once.

    Of several that ask at once, one builds it and the others wait.

    Args:
        machine: Where it will run.
        cache: Where it and a fetched header are kept.
        header: A file or folder with onnxruntime's C header; by default it is looked for.
        more: Further flags for compiler and linker, as a sanitizer needs them.

    Raises:
        RefusedError: when a compiler or the header is missing; the message says how to get it.
        PluginError: when the compiler fails, with its first complaint.
    """
    parts = _parts(machine, cache, header, more)
    folder = cache / f"runner-{machine.isa}-{_key(parts)}"
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache):
        if not (folder / NAME).is_file():
            with tempfile.TemporaryDirectory(dir=cache, prefix=".runner-") as scratch:
                _build(parts, Path(scratch))
                folder.mkdir(exist_ok=True)
                os.replace(Path(scratch) / NAME, folder / NAME)
    return folder / NAME


@contextmanager
def _alone(cache: Path) -> Generator[None]:
    """While the block runs, nobody else builds a runner there."""
    import fcntl

    with open(cache / ".runner.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch_parts(machine: Machine, cache: Path) -> None:
    """Fetch what building needs beside a compiler: the header, and for older devices an older C library.

    Raises: RefusedError when a compiler is missing, or the header cannot be fetched.
    """
    find_compiler(machine)
    try:
        find_header(cache)
    except RefusedError:
        fetch_header(cache)
    if not machine.android and find_sysroot(machine.isa, cache) is None:
        with suppress(RefusedError):  # the program will do for devices as new as this host
            fetch_sysroot(machine.isa, cache)


def needed_glibc(runner: Path) -> int:
    """The minor version of glibc 2 that a program asks for; 0 where it asks for none."""
    return max((int(minor) for minor in re.findall(rb"\0GLIBC_2\.(\d+)", runner.read_bytes())), default=0)


def find_compiler(machine: Machine) -> str:
    """The path of a C++ compiler that makes programs for `machine`. Raises: RefusedError that says how to get one."""
    if machine.android:
        return _android_compiler(machine)
    need = f"the native runner for {machine.isa} needs a C++ compiler"
    return compilers.find_compiler(CPP, machine.isa, f"{machine.isa}-linux-gnu", need)


def _android_compiler(machine: Machine) -> str:
    """Android's C library is another one, so its own compiler is needed. Not tried on a phone yet."""
    home = os.environ.get(NDK)
    name = f"toolchains/llvm/prebuilt/*/bin/{machine.isa}-linux-android{ANDROID_API}-clang++"
    found = next(iter(sorted(Path(home).glob(name))), None) if home else None
    if found is None:
        raise RefusedError(
            f"the native runner for Android needs its NDK ({name}); unpack one and name its folder with {NDK}"
        )
    return str(found)


def _sources() -> Sequence[Path]:
    spec = importlib.util.find_spec("edgewright_runtime")
    if spec is None or not spec.submodule_search_locations:
        raise DeviceError("the package edgewright_runtime is not installed, so no runner can be built; reinstall it")
    folder = Path(next(iter(spec.submodule_search_locations))) / "native"
    return sorted((*folder.glob("*.cpp"), *folder.glob("*.h")))


@dataclass(frozen=True)
class _Parts:
    """What it is built with. Without a `sysroot` it is built against the compiler's own libraries."""

    compiler: str
    header: Header
    sysroot: Sysroot | None
    flags: Sequence[str]


def _parts(machine: Machine, cache: Path, header: Path | None, more: Sequence[str]) -> _Parts:
    compiler = find_compiler(machine)
    older = "g++" in Path(compiler).name and not machine.android
    sysroot = find_sysroot(machine.isa, cache) if older else None
    return _Parts(compiler, find_header(cache, header), sysroot, (*FLAGS, *more))


def _key(parts: _Parts) -> str:
    version = subprocess.run([parts.compiler, "--version"], capture_output=True, text=True, check=False).stdout
    base = parts.sysroot.root.name if parts.sysroot else ""
    about = f"{parts.compiler} {version} {parts.header.version} {parts.flags} {LIBRARIES} {base}"
    sha = hashlib.sha256(about.encode())
    for source in _sources():
        sha.update(source.name.encode() + source.read_bytes())
    return sha.hexdigest()[:16]


def _build(parts: _Parts, scratch: Path) -> None:
    compiler, sysroot = parts.compiler, parts.sysroot
    include = [*(sysroot.compiling(compiler) if sysroot else ()), "-isystem", str(parts.header.folder)]
    sources = [source for source in _sources() if source.suffix == ".cpp"]
    units = [scratch / f"unit{number}.cpp" for number in range(UNITS)]
    for number, unit in enumerate(units):
        unit.write_text("".join(f'#include "{source}"\n' for source in sources[number::UNITS]))
    objects = [unit.with_suffix(".o") for unit in units]
    commands = [
        [compiler, *parts.flags, *include, "-c", str(unit), "-o", str(goal)] for unit, goal in zip(units, objects)
    ]
    with ThreadPoolExecutor(UNITS) as pool:
        list(pool.map(_do, commands))
    linking = sysroot.linking() if sysroot else ()
    _do([compiler, *parts.flags, *linking, *map(str, objects), "-o", str(scratch / NAME), *LIBRARIES])


def _do(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise PluginError(f"{command[0]} cannot build the runner: {lines[0] if lines else 'it says nothing'}")
