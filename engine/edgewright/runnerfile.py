"""Builds the native runner: the agent for devices without Python, compiled once from the sources that are installed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import DeviceError, PluginError, RefusedError, suggest
from edgewright.ortheader import Header, find_header
from edgewright.protocols import Link

NAME = "edgewright-runner"
FLAGS = ("-std=c++17", "-O2", "-fno-plt", "-Wall", "-Wextra")
LIBRARIES = ("-static-libstdc++", "-static-libgcc", "-ldl", "-s")
"""What C++ needs goes into the program: a device has another version of it, or none."""

PACKAGES: Mapping[str, str] = {"x86_64": "g++-x86-64-linux-gnu", "aarch64": "g++-aarch64-linux-gnu"}
"""What makes programs for a machine of another kind, as Debian calls it."""

ANDROID_API = 24
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
    if isa not in PACKAGES:
        raise DeviceError(
            f"{link.address} has no python3 of version 3.9 or newer, and the native runner is not for {isa or code}; "
            f"{suggest(isa, PACKAGES)}"
        )
    return Machine(isa, "android" in more)


def build_runner(machine: Machine, cache: Path, *, header: Path | None = None) -> Path:
    """The runner for `machine`, in a folder of `cache` of its own; the same sources are compiled once.

    Args:
        machine: Where it will run.
        cache: Where it and a fetched header are kept.
        header: A file or folder with onnxruntime's C header; by default it is looked for.

    Raises:
        RefusedError: when a compiler or the header is missing; the message says how to get it.
        PluginError: when the compiler fails, with its first complaint.
    """
    compiler, found = find_compiler(machine), find_header(cache, header)
    folder = cache / f"runner-{machine.isa}-{_key(compiler, found)}"
    if not (folder / NAME).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".runner-") as scratch:
            _build(compiler, found, Path(scratch))
            folder.mkdir(exist_ok=True)
            os.replace(Path(scratch) / NAME, folder / NAME)
    return folder / NAME


def find_compiler(machine: Machine) -> str:
    """The path of a C++ compiler that makes programs for `machine`. Raises: RefusedError that says how to get one."""
    if machine.android:
        return _android_compiler(machine)
    native = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64") == machine.isa
    candidates = (f"{machine.isa}-linux-gnu-g++", *(("g++", "c++", "clang++") if native else ()))
    found = next(filter(None, map(shutil.which, candidates)), None)
    if found is None:
        packages = "g++" if native else PACKAGES[machine.isa]
        raise RefusedError(
            f"the native runner for {machine.isa} needs a C++ compiler, and none is here ({', '.join(candidates)} were "
            f"looked for); on Debian or Ubuntu `apt-get install {packages}` installs one"
        )
    return found


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


def _key(compiler: str, header: Header) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    sha = hashlib.sha256(f"{compiler} {version} {header.version} {FLAGS} {LIBRARIES}".encode())
    for source in _sources():
        sha.update(source.name.encode() + source.read_bytes())
    return sha.hexdigest()[:16]


def _build(compiler: str, header: Header, scratch: Path) -> None:
    sources = [source for source in _sources() if source.suffix == ".cpp"]
    objects = [scratch / f"{source.stem}.o" for source in sources]
    commands = [
        [compiler, *FLAGS, "-isystem", str(header.folder), "-c", str(source), "-o", str(goal)]
        for source, goal in zip(sources, objects)
    ]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(_do, commands))
    _do([compiler, *map(str, objects), "-o", str(scratch / NAME), *LIBRARIES])


def _do(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise PluginError(f"{command[0]} cannot build the runner: {lines[0] if lines else 'it says nothing'}")
