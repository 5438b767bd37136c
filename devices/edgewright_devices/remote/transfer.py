"""Files on their way to a device: sent once, under their digest, and put together there by hard links.

On the device `store/` holds contents by SHA-256. What arrives lies in a part folder until its digests are checked; a
part that nobody finishes is removed by the script itself, or by age when the next client comes.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from edgewright.errors import DeviceError
from edgewright_devices.child import ChildProcess
from edgewright_devices.remote.shell import Shell, checked, failure

STALL_S = 120.0
"""A transfer that moves nothing for so long is given up."""

CHUNK = 1 << 20

FIND = """cd {root}/store || exit 1
trap 'rm -f .want-$$' EXIT; trap 'exit 1' HUP INT PIPE TERM
cat >.want-$$
df -Pk . | tail -n 1
sha256sum -c .want-$$ 2>/dev/null
cut -c1-64 .want-$$ | xargs touch -c
"""
"""Takes a list as `sha256sum -c` does; says how much is free, and which files are there whole."""

RECEIVE = """part={root}/store/{part}; umask 077; mkdir -p "$part" && cd "$part" || exit 1
trap 'cd /; rm -rf "$part" "$part.sums"' EXIT; trap 'exit 1' HUP INT PIPE TERM
tar -xf - || exit 1
ls | while read name; do echo "$name  $name"; done >"$part.sums" && sha256sum -c "$part.sums" >/dev/null || exit 1
mv -f * {root}/store/
"""
"""Takes a tar of files that are named by their digests."""

PLACE = """cd {root} || exit 1
trap 'rm -rf {part}' EXIT; trap 'exit 1' HUP INT PIPE TERM
mkdir -p {parent} && tar -xf - && rm -rf {goal} && mv {part} {goal} && touch {goal}
"""
"""Takes a tar of folders, and of hard links to what lies in the store, all of it below {part}."""


@dataclass(frozen=True)
class Content:
    """A file of this host and its SHA-256."""

    path: Path
    digest: str


def put(shell: Shell, root: str, local: Path, remote: str) -> str:
    """Copy a file or folder to `remote` below `root`; returns where it lies there.

    Raises: DeviceError when the connection is lost, the disk is full or a digest does not match; nothing half done is
    left under its name then.
    """
    files = {name: Content(path, _digest(path)) for name, path in _files(local)}
    missing = _missing(shell, root, files.values())
    if missing:
        _send(shell, root, missing)
    _place(shell, root, files, remote)
    return f"{root}/{remote}"


def get(shell: Shell, remote: str, local: Path) -> None:
    """Copy a file of the device to this host, whole or not at all. Raises: DeviceError when it is not there."""
    child = _start(shell, f"exec cat {shlex.quote(remote)}")
    partial = local.with_name(f".{local.name}.{secrets.token_hex(6)}")
    try:
        child.stdin.close()
        _copy(child.stdout, partial)
        _ended(shell, child)
        partial.replace(local)
    except OSError as error:
        raise DeviceError(f"{remote} of {shell.address} cannot be written to {local}: {error.strerror}") from error
    finally:
        child.kill()
        partial.unlink(missing_ok=True)


# ------------------------------------------------------------------ this host's side


def _files(local: Path) -> Iterator[tuple[str, Path]]:
    """What there is to copy, by its path below `local`; the path of a lone file is empty."""
    if not local.is_dir():
        yield "", local
        return
    for path in sorted(local.rglob("*")):
        if path.is_file():
            yield path.relative_to(local).as_posix(), path


def _digest(path: Path) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def _copy(source: IO[bytes], place: Path) -> None:
    with open(place, "wb") as file:
        while chunk := source.read(CHUNK):
            file.write(chunk)


# ------------------------------------------------------------------ what is there, what is sent, where it goes


def _missing(shell: Shell, root: str, files: Iterable[Content]) -> Mapping[str, Path]:
    """What the store lacks, by digest. Raises: DeviceError when it would not fit."""
    wanted = {content.digest: content.path for content in files}
    lines = "".join(f"{digest}  {digest}\n" for digest in wanted)
    free, *found = checked(shell, FIND.format(root=shlex.quote(root)), lines.encode(), 600).splitlines()
    whole = {line.partition(":")[0] for line in found if line.endswith(": OK")}
    missing = {digest: path for digest, path in wanted.items() if digest not in whole}
    needed, available = sum(path.stat().st_size for path in missing.values()), 1024 * int(free.split()[3])
    if needed > available:
        raise DeviceError(
            f"{shell.address} has {available / 1e6:.0f} MB left at {root}, and {needed / 1e6:.0f} MB are to be copied; "
            f"free some there, or remove {root}/bundles"
        )
    return missing


def _send(shell: Shell, root: str, files: Mapping[str, Path]) -> None:
    script = RECEIVE.format(root=shlex.quote(root), part=f".part-{secrets.token_hex(6)}")
    _stream(shell, script, (_entry(digest, path) for digest, path in files.items()))


def _place(shell: Shell, root: str, files: Mapping[str, Content], remote: str) -> None:
    goal = PurePosixPath(remote)
    part = goal.parent / f".part-{secrets.token_hex(6)}"
    names = {"part": part, "goal": goal, "parent": goal.parent}
    script = PLACE.format(root=shlex.quote(root), **{key: shlex.quote(str(value)) for key, value in names.items()})
    _stream(shell, script, (_link(part / name, content.digest) for name, content in files.items()))


@dataclass(frozen=True)
class _Entry:
    info: tarfile.TarInfo
    path: Path | None = None


def _entry(digest: str, path: Path) -> _Entry:
    info = tarfile.TarInfo(digest)
    stat = path.stat()
    info.size, info.mode, info.mtime = stat.st_size, stat.st_mode & 0o700 | 0o600, int(stat.st_mtime)
    return _Entry(info, path)


def _link(name: PurePosixPath, digest: str) -> _Entry:
    info = tarfile.TarInfo(str(name))
    info.type, info.linkname = tarfile.LNKTYPE, f"store/{digest}"
    return _Entry(info)


def _stream(shell: Shell, script: str, entries: Iterable[_Entry]) -> None:
    """A tar of `entries` into the script. Raises: DeviceError when it fails or stalls."""
    child = _start(shell, script)
    moving = _Moving(child)
    try:
        with suppress(BrokenPipeError):  # the script says why it stopped
            with tarfile.open(fileobj=cast("IO[bytes]", moving), mode="w|") as tar:
                for entry in entries:
                    _add(tar, entry)
            child.stdin.close()
        _ended(shell, child)
    finally:
        moving.finished.set()
        child.kill()


class _Moving:
    """The input of a process, which is ended when nothing is taken from it for too long."""

    def __init__(self, child: ChildProcess) -> None:
        self._child = child
        self._last = time.monotonic()
        self.finished = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def write(self, data: bytes) -> int:
        self._child.stdin.write(data)
        self._last = time.monotonic()
        return len(data)

    def _watch(self) -> None:
        while not self.finished.wait(1):
            if time.monotonic() - self._last > STALL_S:
                self._child.stop()
                return


def _add(tar: tarfile.TarFile, entry: _Entry) -> None:
    if entry.path is None:
        tar.addfile(entry.info)
        return
    with open(entry.path, "rb") as file:
        tar.addfile(entry.info, file)


def _start(shell: Shell, script: str) -> ChildProcess:
    try:
        return ChildProcess(shell.client(script))
    except OSError as error:
        raise DeviceError(f"{shell.address} cannot be reached: {error.strerror}") from error


def _ended(shell: Shell, child: ChildProcess) -> None:
    """Raises: DeviceError when a copy did not end well."""
    status, errors = child.wait(STALL_S), child.errors()
    if status is None or status < 0:
        raise DeviceError(f"nothing moved to or from {shell.address} for {STALL_S:g} s; the copy was given up")
    if trouble := shell.trouble(status, errors):
        raise DeviceError(trouble)
    if status:
        raise DeviceError(failure(shell, status, errors))
