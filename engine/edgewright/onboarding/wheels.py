"""Wheels for a device, found by this host's pip: the device itself needs no network and no pip."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import InputError, RefusedError
from edgewright.store import Store, key_of

OLDEST_GLIBC = {"x86_64": 5, "i686": 5}
"""The minor version of glibc 2 that manylinux begins with; everywhere else it is `OLDEST_ELSEWHERE` (PEP 600)."""

OLDEST_ELSEWHERE = 17
OLDER_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""The names that some of those platforms had before (PEP 513, PEP 571, PEP 599)."""

PIP_S = 900
LOCAL_EPOCH = "315532800"
"""What a wheel built here is dated (1980, the first year of zip), so that the same sources give the same bytes."""


class NoWheel(RefusedError):
    """There is no such wheel for that device."""


@dataclass(frozen=True)
class Kind:
    """What decides which wheels a device takes: `python` as 3.13, `abi` as cp313, tags of platforms, newest first."""

    python: str
    abi: str
    platforms: tuple[str, ...]


@dataclass(frozen=True)
class Unpacked:
    """A folder of this host with packages for a device; `versions` by name, `size` in bytes."""

    place: Path
    versions: Mapping[str, str]
    size: int

    @property
    def digest(self) -> str:
        """One for all wheels that were unpacked there."""
        return self.place.name


def platforms(isa: str, libc: tuple[str, str]) -> tuple[str, ...]:
    """The tags of all wheels that run there, newest first: pip adds no older ones to those it is told.

    Raises: RefusedError for a C library that no wheels are made for.
    """
    name, version = libc
    numbers = re.fullmatch(r"(\d+)\.(\d+).*", version)
    major, minor = (int(numbers.group(1)), int(numbers.group(2))) if numbers else (0, 0)
    if name == "musl" and major == 1:
        return tuple(f"musllinux_1_{older}_{isa}" for older in range(minor, -1, -1))
    oldest = OLDEST_GLIBC.get(isa, OLDEST_ELSEWHERE)
    if name != "glibc" or major != 2 or minor < oldest:
        raise RefusedError(
            f"no wheels are made for {' '.join(libc).strip() or 'an unknown C library'} on {isa}; "
            f"allowed: glibc 2.{oldest} or newer, musl 1"
        )
    tags: list[str] = []
    for older in range(minor, oldest - 1, -1):
        tags.append(f"manylinux_2_{older}_{isa}")
        tags += [f"{OLDER_NAMES[older]}_{isa}"] if older in OLDER_NAMES else []
    return (*tags, f"linux_{isa}")


def is_path(requirement: str) -> bool:
    """Whether a requirement is a wheel or a project folder of this host, and no name."""
    return "/" in requirement or requirement.endswith(".whl")


def unpack(requirements: Sequence[str], kind: Kind, store: Store, *, upgrade: bool = False) -> Unpacked:
    """Those packages without what they depend on, kept in the cache under the digest of their wheels.

    What the same requirements gave for the same kind of device before is given again, unless `upgrade`. A requirement
    that is a wheel or a folder of this host is read anew each time.

    Raises: NoWheel when there is none for that device, RefusedError when the index is not reached, InputError.
    """
    known = store.folder("sites") / f"{key_of('wheels', list(requirements), vars(kind))[:32]}.json"
    local = any(is_path(each) for each in requirements)
    if known.is_file() and not upgrade and not local:
        found = _read(store.folder("sites") / json.loads(known.read_text())["site"])
        if found is not None:
            return found
    with tempfile.TemporaryDirectory(dir=store.folder("sites"), prefix=".wheels-") as scratch:
        wheels = _download(requirements, kind, Path(scratch) / "wheels")
        found = _unpack(wheels, kind, store.folder("sites"), Path(scratch) / "site")
    partial = known.with_name(f".{known.name}.{os.getpid()}")
    partial.write_text(json.dumps({"site": found.digest}))
    os.replace(partial, known)
    return found


def _download(requirements: Sequence[str], kind: Kind, folder: Path) -> Sequence[Path]:
    """The wheels, by name. Projects of this host are built first; a wheel that is not for the device is refused."""
    wanted = [_located(each, folder) if is_path(each) else each for each in requirements]
    _pip("download", *_options(kind), "--dest", str(folder), *wanted, about=requirements, kind=kind)
    wheels = sorted(folder.glob("*.whl"))
    names = [_version(wheel)[0] for wheel in wheels]
    if len(set(names)) < len(names):
        raise InputError(f"a distribution is named twice among {', '.join(requirements)}; leave one out")
    return wheels


def _located(path: str, folder: Path) -> str:
    """The wheel that a path names, or the one that the project there is built to. Raises: InputError."""
    place = Path(path).absolute()
    if place.is_file():
        return str(place)
    if not place.is_dir():
        raise InputError(f"--with {path} names no wheel and no project folder of this host; write a path that is there")
    built = folder / "built" / hashlib.sha256(str(place).encode()).hexdigest()[:8]
    _pip("wheel", "--no-deps", "--wheel-dir", str(built), str(place), about=(path,))
    return str(next(built.glob("*.whl")))


def _unpack(wheels: Sequence[Path], kind: Kind, folder: Path, scratch: Path) -> Unpacked:
    digests = sorted(hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels)
    goal = folder / key_of("site", digests, kind.abi)[:32]
    found = _read(goal)
    if found is not None:
        return found
    versions = dict(_version(wheel) for wheel in wheels)
    # Named by version and not by path: a path of this host would stand in what travels to the device.
    named = [f"{name}=={version}" for name, version in versions.items()]
    links = ("--no-index", f"--find-links={wheels[0].parent}")
    packages = scratch / "packages"
    # What was found fits the device's Python; here pip would ask for its own.
    links = (*links, "--ignore-requires-python")
    _pip("install", *_options(kind), "--no-compile", *links, f"--target={packages}", *named, about=named, kind=kind)
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())
    (scratch / "site.json").write_text(json.dumps({"versions": versions, "size": size}))
    os.replace(scratch, goal)
    return Unpacked(goal, versions, size)


def _read(place: Path) -> Unpacked | None:
    try:
        about = json.loads((place / "site.json").read_text())
    except OSError:
        return None
    return Unpacked(place, about["versions"], about["size"])


def _version(wheel: Path) -> tuple[str, str]:
    """The name and version that a wheel's file name states (PEP 427)."""
    name, version, *_ = wheel.name.split("-")
    return name.lower().replace("_", "-"), version


def _options(kind: Kind) -> Sequence[str]:
    abis = [f"--abi={abi}" for abi in (kind.abi, "abi3", "none")]
    tags = [f"--platform={tag}" for tag in kind.platforms]
    return ("--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={kind.python}", *abis, *tags)


OFFLINE = ("Failed to establish a new connection", "NewConnectionError", "Temporary failure in name resolution")


def _pip(*words: str, about: Sequence[str], kind: Kind | None = None) -> None:
    """Raises: NoWheel, or RefusedError with pip's own last word."""
    command = [sys.executable, "-m", "pip", words[0], "-q", "--disable-pip-version-check", *words[1:]]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": LOCAL_EPOCH}
    what = " and ".join(about)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PIP_S,
            check=False,
            env=environment,
            cwd=tempfile.gettempdir(),
        )
    except subprocess.TimeoutExpired:
        raise RefusedError(f"pip did not find {what} within {PIP_S} s; run the same command again") from None
    if done.returncode == 0:
        return
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
    if any(sign in done.stderr for sign in OFFLINE):
        raise RefusedError(f"this host does not reach its package index, where {what} would be taken from: {said[-1]}")
    if kind and any(sign in done.stderr for sign in ("No matching distribution", "not a supported wheel")):
        raise NoWheel(
            f"there is no wheel of {what} for Python {kind.python} on {kind.platforms[0]}; name another version, "
            "such as --with onnxruntime==1.19.2"
        )
    raise RefusedError(f"pip cannot get {what}: {(said or ['it says nothing'])[-1].removeprefix('ERROR: ')}")
