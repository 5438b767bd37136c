"""Writes a bundle beside its place and moves it there in one step; the disk's refusals are said in one sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import NoReturn

from edgewright.bundle.contents import Bundle, Contents
from edgewright.bundle.files import file_digest, safe_place
from edgewright.bundle.manifest import MANIFEST, in_bundle, manifest_digest, manifest_of, places_of
from edgewright.errors import BundleError, OutputError


def write_bundle(destination: Path, contents: Contents) -> Bundle:
    """Write the bundle beside `destination` and move it there in one step.

    An older bundle of ours at that place is replaced; anything else there is left alone.
    Raises: OutputError when the place is taken by something else, cannot be written, or is full.
    """
    destination = Path(os.path.abspath(destination))
    _check_free(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(destination)
        scratch = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
    except OSError as error:
        _refuse_output(destination, error)
    try:
        digest = _fill(scratch, contents)
        _swap(scratch, destination)
    except OSError as error:
        _refuse_output(destination, error)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Bundle(
        path=destination,
        name=contents.name,
        digest=digest,
        signature=contents.signature,
        variants=contents.variants,
        artifacts=tuple(in_bundle(artifact, destination) for artifact in contents.artifacts),
        plan=contents.plan,
        extra=contents.extra,
    )


def check_destination(destination: Path) -> None:
    """Find out before hours of work whether `destination` can take a bundle.

    Raises: OutputError.
    """
    destination = Path(os.path.abspath(destination))
    _check_free(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=destination.parent) as probe:
            probe.write(b"x" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        _refuse_output(destination, error)


def _fill(scratch: Path, contents: Contents) -> str:
    files: dict[str, str] = {}
    for artifact in contents.artifacts:
        for place, part in places_of(artifact):
            files[place] = _copy(part.path, scratch / safe_place(place))
            if files[place] != part.digest:
                raise BundleError(f"{part.path} changed while it was being packed; run the command again")
    for place, content in contents.files.items():
        goal = scratch / safe_place(place)
        if isinstance(content, Path):
            files[place] = _copy(content, goal)
        else:
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_bytes(content)
            files[place] = hashlib.sha256(content).hexdigest()
    manifest = manifest_of(contents, files)
    manifest["digest"] = manifest_digest(manifest)
    (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for path in sorted(scratch.rglob("*")):
        _sync(path)
    os.chmod(scratch, 0o755)
    return str(manifest["digest"])


def _copy(source: Path, goal: Path) -> str:
    goal.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, goal)
    return file_digest(goal)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(scratch: Path, destination: Path) -> None:
    old = destination.parent / f".{destination.name}.replaced.partial"
    if destination.exists():
        os.rename(destination, old)
    os.rename(scratch, destination)
    shutil.rmtree(old, ignore_errors=True)


def _clear_leftovers(destination: Path) -> None:
    """What killed runs left; a bundle that was moved aside and not yet replaced goes back to its place."""
    old = destination.parent / f".{destination.name}.replaced.partial"
    if old.exists() and not destination.exists():
        os.rename(old, destination)
    for leftover in destination.parent.glob(f".{destination.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


def _check_free(destination: Path) -> None:
    if not destination.exists():
        return
    if not destination.is_dir():
        raise OutputError(f"{destination} is a file; give --out a folder that is new or holds an older bundle")
    if any(destination.iterdir()) and not (destination / MANIFEST).is_file():
        raise OutputError(f"{destination} is a folder that holds something else; give --out a new folder")


def _refuse_output(destination: Path, error: OSError) -> NoReturn:
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota is used up",
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
        errno.EROFS: "the file system is read-only",
        errno.ENOTDIR: "part of the path is a file",
        errno.EEXIST: "part of the path is a file",
        errno.ENOENT: "no folder can be made there",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    raise OutputError(f"cannot write the bundle to {destination}: {reason}; choose another place with --out") from error
