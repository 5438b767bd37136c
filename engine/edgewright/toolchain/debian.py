"""Packages of Debian, fetched from the system's own mirror and unpacked: nothing is installed, root is not needed."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import RefusedError

MOST_SECONDS = 300
ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
"""What Debian calls them."""


@dataclass(frozen=True)
class Wanted:
    """Packages of one release. `what` is how errors call them, `by_hand` what a user may do instead of fetching them.

    `isa` is what they are for, as Linux calls it; empty where that is all the same.
    """

    what: str
    suite: str
    packages: tuple[str, ...]
    by_hand: str
    isa: str = ""


@contextmanager
def fetched(wanted: Wanted, beside: Path) -> Generator[Path]:
    """A folder in `beside` with all that the packages hold, until the block ends.

    A package list of its own is used (about 10 MB, removed afterwards), checked with the system's keys.

    Raises:
        RefusedError: when this is no Debian, or apt fails, with the reason.
    """
    mirrors = _mirrors(wanted)
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as scratch:
        folder, unpacked = Path(scratch), Path(scratch) / "unpacked"
        apt = ("apt-get", "-c", str(_configure(folder, mirrors, wanted)))
        _run((*apt, "update"), folder, wanted)
        _run((*apt, "download", *wanted.packages), folder, wanted)
        packages = sorted(folder.glob("*.deb"))
        if len(packages) < len(wanted.packages):
            raise RefusedError(f"apt-get did not fetch {' and '.join(wanted.packages)}; {wanted.by_hand}")
        for package in packages:
            _run(("dpkg-deb", "-x", str(package), str(unpacked)), folder, wanted)
        yield unpacked


def _mirrors(wanted: Wanted) -> Sequence[str]:
    """Where the system takes its own Debian from, as apt says it."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    if release.get("ID") != "debian" or not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise RefusedError(f"{wanted.what} is fetched from Debian's mirrors, and this is no Debian; {wanted.by_hand}")
    codename = re.escape(release.get("VERSION_CODENAME", "sid"))
    listed = _run(("apt-get", "update", "--print-uris"), Path("/"), wanted)
    mirrors = re.findall(rf"^'([^']+)/dists/{codename}/main/binary-", listed, re.MULTILINE)
    if not mirrors:
        names = " and ".join(wanted.packages)
        raise RefusedError(f"apt has no mirror of Debian in its sources to fetch {names} from; {wanted.by_hand}")
    return list(dict.fromkeys(mirrors))


def _configure(folder: Path, mirrors: Sequence[str], wanted: Wanted) -> Path:
    """Settings that keep apt in `folder`: its lists, packages and sources, and none of the system's hooks."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text("".join(f"deb {mirror} {wanted.suite} main\n" for mirror in mirrors))
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
    if wanted.isa:
        settings |= dict.fromkeys(("APT::Architecture", "APT::Architectures"), ARCHITECTURES[wanted.isa])
    hooks = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success")
    lines = [*(f'{key} "{value}";' for key, value in settings.items()), *(f"#clear {hook};" for hook in hooks)]
    place = folder / "apt.conf"
    place.write_text("\n".join(lines) + "\n")
    return place


def _run(command: Sequence[str], folder: Path, wanted: Wanted) -> str:
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
        raise RefusedError(f"{wanted.what} cannot be fetched: {error}; {wanted.by_hand}") from error
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        reason = complaints[0].removeprefix("E:").strip() if complaints else f"exit status {done.returncode}"
        raise RefusedError(f"{wanted.what} cannot be fetched, {command[0]} says: {reason}; {wanted.by_hand}")
    return done.stdout
