"""Files on their way to a device: sent once, under their digest, and put together there by hard links.

On the device `store/` holds contents by SHA-256. What arrives lies in a part folder until its digests are checked; a
part that nobody finishes is removed by the script itself, or by age when the next client comes. Every script is a
round trip, and starts programs on what may be a slow board: one asks what is missing, one brings it. What is small
is brought unasked.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import shlex
import tarfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
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

SMALL = 1 << 16
"""Bytes that are sent sooner than it is asked whether they are there."""

ASK = """cd {root} || exit 1
sums= apart=
while read -r digest path; do
  sums="$sums$digest  store/$digest
"
  [ "$path" -ef "store/$digest" ] || apart=1
done
df -Pk .
[ "$apart" ] || echo placed
echo "$sums" | LC_ALL=C sha256sum -c 2>/dev/null
echo "$sums" | cut -c67- | xargs touch -c {goal}
"""
"""Takes lines of a digest and a path; says how much is free, whether all are in their places, and which are whole."""

BRING = """cd {root} && umask 077 || exit 1
trap 'rm -rf {part}' EXIT; trap 'exit 1' HUP INT PIPE TERM
mkdir -p {part} {parent} && tar -xmf - || exit 1
{check}[ ! -e {goal} ] || rm -rf {goal}
mv {part}/goal {goal} && echo whole
"""
"""Takes a tar of a part folder: `sums` of what is in `new`, and the goal, of hard links to that and to the store. Says
`whole` when all is done: the client of a link that is cut may end as if all were well.
"""

CHECK = "(cd {part}/new && LC_ALL=C sha256sum -c ../sums >/dev/null && mv -f * ../../) || exit 1\n"


@dataclass(frozen=True)
class Content:
    """A file of this host and its SHA-256."""

    path: Path
    digest: str


def put(shell: Shell, root: str, local: Path, remote: str) -> str:
    """Copy a file or folder to `remote` below `root`; returns where it lies there. A folder's name states its content.

    Raises: DeviceError when the connection is lost, the disk is full or a digest does not match; nothing half done is
    left under its name then.
    """
    files = {name: Content(path, _digest(path)) for name, path in _files(local)}
    there = _Found() if _size(files.values()) <= SMALL else _ask(shell, root, files, remote)
    if not there.placed:
        _bring(shell, root, files, remote, there.whole)
    return f"{root}/{remote}"


def get(shell: Shell, remote: str, local: Path) -> None:
    """Copy a file of the device to this host, whole or not at all. Raises: DeviceError when it is not there."""
    place = shlex.quote(remote)
    child = _start(shell, f"wc -c < {place} && exec cat {place}")
    partial = local.with_name(f".{local.name}.{secrets.token_hex(6)}")
    try:
        child.stdin.close()
        size = child.stdout.readline().strip()
        _copy(child.stdout, partial)
        _ended(shell, child)
        if size != str(partial.stat().st_size).encode():
            raise DeviceError(
                f"{shell.address} was lost while {remote} was sent from there; run the same command again"
            )
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


@dataclass(frozen=True)
class _Found:
    """What a device has already: files in the store by digest, and whether all lie in their places."""

    whole: Collection[str] = ()
    placed: bool = False


def _ask(shell: Shell, root: str, files: Mapping[str, Content], remote: str) -> _Found:
    """Raises: DeviceError when what is missing would not fit."""
    lines = "".join(f"{each.digest} {PurePosixPath(remote, name)}\n" for name, each in files.items())
    script = ASK.format(root=shlex.quote(root), goal=shlex.quote(remote))
    _, free, *said = checked(shell, script, lines.encode(), 600).splitlines()
    whole = {line.partition(":")[0].rpartition("/")[2] for line in said if line.endswith(": OK")}
    needed = _size(each for each in files.values() if each.digest not in whole)
    available = 1024 * int(free.split()[3])
    if needed > available:
        raise DeviceError(
            f"{shell.address} has {available / 1e6:.0f} MB left at {root}, and {needed / 1e6:.0f} MB are to be copied; "
            f"free some there, or remove {root}/bundles"
        )
    return _Found(whole, "placed" in said and not needed)


def _size(contents: Iterable[Content]) -> int:
    return sum({each.digest: each.path.stat().st_size for each in contents}.values())


def _bring(shell: Shell, root: str, files: Mapping[str, Content], remote: str, whole: Collection[str]) -> None:
    part, goal = PurePosixPath(f"store/.part-{secrets.token_hex(6)}"), PurePosixPath(remote)
    new = {each.digest: each.path for each in files.values() if each.digest not in whole}
    names = {"part": str(part), "goal": shlex.quote(remote), "parent": shlex.quote(str(goal.parent))}
    check = CHECK.format(part=part) if new else ""
    _stream(shell, BRING.format(root=shlex.quote(root), check=check, **names), _entries(part, files, new))


def _entries(part: PurePosixPath, files: Mapping[str, Content], new: Mapping[str, Path]) -> Iterator[_Entry]:
    yield _text(part / "sums", "".join(f"{digest}  {digest}\n" for digest in new))
    for digest, path in new.items():
        yield _entry(part / "new" / digest, path)
    for name, each in files.items():
        yield _link(
            part / "goal" / name, (part / "new" if each.digest in new else PurePosixPath("store")) / each.digest
        )


@dataclass(frozen=True)
class _Entry:
    info: tarfile.TarInfo
    path: Path | None = None
    text: bytes = b""


def _entry(name: PurePosixPath, path: Path) -> _Entry:
    info = tarfile.TarInfo(str(name))
    stat = path.stat()
    info.size, info.mode = stat.st_size, stat.st_mode & 0o700 | 0o600
    return _Entry(info, path)


def _text(name: PurePosixPath, text: str) -> _Entry:
    info = tarfile.TarInfo(str(name))
    info.size = len(text)
    return _Entry(info, text=text.encode())


def _link(name: PurePosixPath, target: PurePosixPath) -> _Entry:
    info = tarfile.TarInfo(str(name))
    info.type, info.linkname = tarfile.LNKTYPE, str(target)
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
        said = child.stdout.read()
        _ended(shell, child)
        if said.strip() != b"whole":
            raise DeviceError(f"{shell.address} was lost while files were sent there; run the same command again")
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
        tar.addfile(entry.info, io.BytesIO(entry.text))
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
