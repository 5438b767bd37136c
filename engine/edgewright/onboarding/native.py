"""Prepares a device without Python: it gets the native runner, and onnxruntime's own library where it has none."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.agents.runnerfile import build_runner, fetch_parts, machine_of, needed_glibc
from edgewright.errors import DeviceError, InputError, RefusedError
from edgewright.onboarding.placing import OLDER, SAID, Prepared, about, check_room, lead, send
from edgewright.onboarding.preflight import RUNNER, Preflight, Runner, ask_runner
from edgewright.onboarding.wheels import Kind, NoWheel, platforms, unpack
from edgewright.protocols import Link
from edgewright.store import Store
from edgewright.toolchain.ortheader import headers_place

LIBRARY = "libonnxruntime.so*"
OWN_MARK = "--with names onnxruntime, or a libonnxruntime.so of this host, for a device without Python"


@dataclass(frozen=True)
class Library:
    """A libonnxruntime.so of this host that is for the device; `source` is what it was asked for as."""

    path: Path
    version: str
    source: str

    @property
    def digest(self) -> str:
        """What it is called on the device."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:32]


def prepare_native(
    link: Link, store: Store, extra: Sequence[str], before: Preflight, *, upgrade: bool, say: SAID
) -> Prepared:
    """As `prepare`, for a device without Python; `before` is what was found there.

    Raises: RefusedError when no runner can be built or there is no library for the device, DeviceError when nothing
        that was tried works there. What models run with is then as it was.
    """
    asked = _asked(extra)
    sent = _put_runner(link, before, say)
    found = _started(link)
    libc = found.libc if not before.libc[0] else before.libc
    before = replace(before, runner=found, libc=libc)
    ours = found.library.file.startswith(f"{link.root}/")
    if found.library.works and not ours:
        notes = (f"onnxruntime {found.library.version} is the device's own ({found.library.file}) and stays as it is",)
        return Prepared(_runner_line(sent), sent, notes, before)
    local = asked[0].endswith(".so") or ".so." in asked[0]
    if found.library.works and not upgrade and not local and tuple(before.mark.get("asked", ())) == asked:
        return Prepared(_runner_line(sent), sent, (), before)
    done, library, troubles = _first_that_works(link, store, asked[0], before, upgrade=upgrade, say=say)
    same = before.mark.get("digest") == library.digest
    installed = () if same else (f"onnxruntime {done.library.version}",)
    size = 0 if same else library.path.stat().st_size
    mark = about(library.digest, asked, {"onnxruntime": done.library.version})
    after = replace(before, runner=done, mark=mark)
    return Prepared((*_runner_line(sent), *installed), sent + size, troubles, after)


def _asked(extra: Sequence[str]) -> tuple[str]:
    """What onnxruntime is to be. Raises: InputError, RefusedError for anything else."""
    if not extra:
        return ("onnxruntime",)
    for each in extra:
        library = Path(each).name.startswith("libonnxruntime")
        if library and not Path(each).is_file():
            raise InputError(f"--with {each} names no file of this host; {OWN_MARK}")
        if not library and not re.fullmatch(r"onnxruntime(?:[<>=!~ ].*)?", each):
            raise RefusedError(f"{each} is for Python, which the device lacks; {OWN_MARK}")
    if len(extra) > 1:
        raise InputError(f"{' and '.join(extra)} are one too many; {OWN_MARK}")
    return (extra[0],)


def _runner_line(sent: int) -> tuple[str, ...]:
    return ("native runner",) if sent else ()


# ------------------------------------------------------------------ the runner


def _put_runner(link: Link, device: Preflight, say: SAID) -> int:
    """The runner, built and sent; how many bytes that were. Raises: RefusedError when it cannot be for this device."""
    if device.libc[0] == "musl":
        raise RefusedError(
            f"{link.address} has musl as its C library; the native runner and onnxruntime are made for glibc and "
            "Android's; use a system with one of them"
        )
    machine = machine_of(link)
    say(f"building the native runner for {machine.isa}")
    fetch_parts(machine, headers_place())
    runner = build_runner(machine, headers_place())
    _check_libc(link, device, needed_glibc(runner))
    digest = hashlib.sha256(runner.read_bytes()).hexdigest()
    check = link.run(["sha256sum", f"{link.root}/{RUNNER}"])[1].decode(errors="replace")
    if check.startswith(digest):
        return 0
    size = runner.stat().st_size
    check_room(link, size, device)
    say(f"sending the native runner ({size / 1e6:.1f} MB)")
    link.put(runner, RUNNER)
    return size


def _check_libc(link: Link, device: Preflight, needed: int) -> None:
    """Raises: RefusedError when the device's C library is older than what the runner asks for."""
    name, version = device.libc
    found = re.match(r"2\.(\d+)", version)
    if name == "glibc" and found and int(found.group(1)) < needed:
        raise RefusedError(
            f"{link.address} has glibc {version}, and the native runner built here needs 2.{needed}; build it on a "
            "Debian or Ubuntu that is no newer than the device, or on a Debian that reaches its mirror"
        )


def _started(link: Link, library: str = "") -> Runner:
    """Raises: DeviceError when the runner does not start."""
    found = ask_runner(link, library)
    if found is None or found.trouble:
        trouble = found.trouble if found else "it is not there any more"
        raise DeviceError(f"the native runner does not start on {link.address}: {trouble}")
    return found


# ------------------------------------------------------------------ the library


def _first_that_works(
    link: Link, store: Store, asked: str, device: Preflight, *, upgrade: bool, say: SAID
) -> tuple[Runner, Library, tuple[str, ...]]:
    """What the runner finds with the library that became its own, and what became of the choices before it.

    Raises: NoWheel when there is nothing to try, DeviceError when nothing works.
    """
    troubles: list[str] = []
    tried: set[str] = set()
    for choice in (asked, *(f"onnxruntime{older}" for older in OLDER if asked == "onnxruntime")):
        try:
            library = _library(link, store, choice, device, upgrade=upgrade, say=say)
        except NoWheel as refusal:
            troubles.append(str(refusal))
            continue
        if library.digest in tried:
            continue
        tried.add(library.digest)
        found = _tried(link, library, asked, device, say)
        if found.library.works:
            lead(link, library.digest)
            return _started(link), library, tuple(troubles)
        troubles.append(f"onnxruntime {library.version} does not work there ({found.trouble or found.library.trouble})")
        if device.mark.get("digest") != library.digest:
            link.run(["rm", "-rf", f"{link.root}/sites/{library.digest}"])
    if not tried:
        raise NoWheel(troubles[0])
    raise DeviceError(f"nothing that was tried works on {link.address}, which is as it was: {'; '.join(troubles)}")


def _library(link: Link, store: Store, choice: str, device: Preflight, *, upgrade: bool, say: SAID) -> Library:
    """Wheels for Python hold it too: which Python they are for does not matter to it, so this host's is taken.

    Raises: RefusedError for a device that no wheel is for, NoWheel when this one is not.
    """
    if Path(choice).name.startswith("libonnxruntime"):
        return Library(Path(choice), "as it was given", choice)
    if device.libc[0] == "bionic":
        raise RefusedError(
            f"{link.address} runs Android, for which no wheel holds onnxruntime; unpack onnxruntime-android (an .aar "
            "of Maven) and name its jni/arm64-v8a/libonnxruntime.so with --with"
        )
    python = ".".join(map(str, sys.version_info[:2]))
    kind = Kind(python, f"cp{python.replace('.', '')}", platforms(device.isa, device.libc))
    say(f"looking for {choice} on {kind.platforms[0]}")
    site = unpack([choice], kind, store, upgrade=upgrade)
    found = next(iter(sorted((site.place / "packages" / "onnxruntime" / "capi").glob(LIBRARY))), None)
    version = site.versions["onnxruntime"]
    if found is None:
        raise NoWheel(
            f"the wheel of onnxruntime {version} holds no libonnxruntime.so; name another version with --with"
        )
    return Library(found, version, choice)


def _tried(link: Link, library: Library, asked: str, device: Preflight, say: SAID) -> Runner:
    """What the runner finds with a library that is sent beside what is there already."""
    size, digest = library.path.stat().st_size, library.digest
    if device.mark.get("digest") != digest:
        check_room(link, size, device)
        say(f"sending onnxruntime {library.version} ({size / 1e6:.0f} MB)")
        with tempfile.TemporaryDirectory(prefix="edgewright-library-") as folder:
            shutil.copyfile(library.path, Path(folder) / library.path.name)
            send(link, Path(folder), about(digest, (asked,), {"onnxruntime": library.version}))
    say("starting it there")
    found = ask_runner(link, f"{link.root}/sites/{digest}/{library.path.name}")
    if found is None:
        raise DeviceError(f"the native runner of {link.address} is not there any more; run the same command again")
    return found
