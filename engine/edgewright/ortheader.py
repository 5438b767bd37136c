"""Finds ONNX Runtime's C header, which its Python wheel lacks, and fetches it when that is asked for."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import InputError, RefusedError

NAME = "onnxruntime_c_api.h"
OLDEST = 17
"""The API that lets a kernel share the session's threads."""

SYSTEM = (Path("/usr/include"), Path("/usr/local/include"))
SUITE = "trixie"
"""The first Debian with the package; a header has no dependencies, so any Debian can unpack it."""

PACKAGE = "libonnxruntime-dev"
FETCHED = "onnxruntime-include"
BY_HAND = "or unpack a release of onnxruntime for C and name its folder `include`"
MOST_SECONDS = 300


@dataclass(frozen=True)
class Header:
    """Where the header lies, and the API it describes (21 is that of onnxruntime 1.21)."""

    folder: Path
    version: int


def headers_place() -> Path:
    """Where a fetched header lies, and what was compiled with it: the user's cache, whichever one a run works in."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgewright" / "loader"


def find_header(cache: Path, given: Path | None = None, *, system: Sequence[Path] = SYSTEM) -> Header:
    """The header: in `given` (a file or a folder) if that is named, else in `system`, else as it was fetched.

    Raises:
        InputError: when `given` holds none that can be used.
        RefusedError: when there is none; the message says how to get it.
    """
    if given is not None:
        return _given(given)
    for header in map(_read, _places(system, cache)):
        if header and header.version >= OLDEST:
            return header
    raise RefusedError(
        f"onnxruntime's C header ({NAME}, 1.{OLDEST} or newer) is needed, which its Python wheel lacks and "
        f"{' and '.join(map(str, system))} do not have; `engine doctor --fix` fetches it, {BY_HAND}"
    )


def fetch_header(cache: Path) -> Header:
    """Fetch the header from the system's own Debian mirror into `cache`; nothing is installed, root is not needed.

    A package list of its own is used (about 10 MB, removed afterwards), checked with the system's keys.

    Raises:
        RefusedError: when this is no Debian, or apt fails, with the reason.
    """
    mirrors = _mirrors()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        folder = Path(scratch)
        apt = ("apt-get", "-c", str(_configure(folder, mirrors)))
        _run((*apt, "update"), folder)
        _run((*apt, "download", PACKAGE), folder)
        package = next(folder.glob("*.deb"), None)
        if package is None:
            raise RefusedError(f"apt-get did not fetch {PACKAGE}; {BY_HAND}")
        _run(("dpkg-deb", "-x", str(package), str(folder / "package")), folder)
        header = _given(folder / "package")
        shutil.rmtree(cache / FETCHED, ignore_errors=True)
        os.rename(header.folder, cache / FETCHED)
    return Header(cache / FETCHED, header.version)


def _given(place: Path) -> Header:
    if not place.exists():
        raise InputError(f"{place} does not exist; name the folder that holds {NAME}")
    places = [place] if place.is_file() else sorted(place.glob(f"**/{NAME}"))
    header = next(filter(None, map(_read, places)), None)
    if header is None:
        raise InputError(f"{place} holds no {NAME}; name the folder `include` of a release of onnxruntime for C")
    if header.version < OLDEST:
        raise InputError(f"{header.folder / NAME} is of onnxruntime 1.{header.version}; 1.{OLDEST} or newer is needed")
    return header


def _places(system: Sequence[Path], cache: Path) -> Iterator[Path]:
    for folder in system:
        yield folder / NAME
        yield from sorted(folder.glob(f"onnxruntime*/**/{NAME}"))
    yield from sorted((cache / FETCHED).glob(f"**/{NAME}"))


def _read(place: Path) -> Header | None:
    try:
        text = place.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^#define ORT_API_VERSION (\d+)", text, re.MULTILINE)
    return Header(place.parent, int(found[1])) if found else None


def _mirrors() -> Sequence[str]:
    """Where the system takes its own Debian from, as apt says it."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    if release.get("ID") != "debian" or not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise RefusedError(f"onnxruntime's C header is fetched from Debian's mirrors, and this is no Debian; {BY_HAND}")
    codename = re.escape(release.get("VERSION_CODENAME", "sid"))
    listed = _run(("apt-get", "update", "--print-uris"), Path("/"))
    mirrors = re.findall(rf"^'([^']+)/dists/{codename}/main/binary-", listed, re.MULTILINE)
    if not mirrors:
        raise RefusedError(f"apt has no mirror of Debian in its sources to fetch {PACKAGE} from; {BY_HAND}")
    return list(dict.fromkeys(mirrors))


def _configure(folder: Path, mirrors: Sequence[str]) -> Path:
    """Settings that keep apt in `folder`: its lists, packages and sources, and none of the system's hooks."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text("".join(f"deb {mirror} {SUITE} main\n" for mirror in mirrors))
    (folder / "status").touch()
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": folder / "none",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",  # started as root, apt would become a user who may not write here
    }
    hooks = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success")
    lines = [*(f'{key} "{value}";' for key, value in settings.items()), *(f"#clear {hook};" for hook in hooks)]
    place = folder / "apt.conf"
    place.write_text("\n".join(lines) + "\n")
    return place


def _run(command: Sequence[str], folder: Path) -> str:
    """What `command` says on its output. Raises: RefusedError with its last complaint."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RefusedError(f"onnxruntime's C header cannot be fetched: {error}; {BY_HAND}") from error
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        reason = complaints[0].removeprefix("E:").strip() if complaints else f"exit status {done.returncode}"
        raise RefusedError(f"onnxruntime's C header cannot be fetched, {command[0]} says: {reason}; {BY_HAND}")
    return done.stdout
