"""Files by digest, and places that stay in the bundle."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

from edgewright.errors import BundleError


def file_digest(path: Path) -> str:
    """The sha-256 of a file's bytes."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha.update(block)
    return sha.hexdigest()


def safe_place(place: str) -> PurePosixPath:
    """`place` as a path that stays in the bundle. Raises: BundleError when it does not."""
    parsed = PurePosixPath(place)
    unsafe = parsed.is_absolute() or ".." in parsed.parts or "\\" in place or ":" in place or "\0" in place
    if unsafe or not parsed.parts:
        raise BundleError(f"the bundle names the path {place!r}, which leaves its folder; it was not opened")
    return parsed


def inside(path: Path, place: str) -> Path:
    """The file at `place` of the bundle in the folder `path`. Raises: BundleError when it lies elsewhere."""
    file = path / safe_place(place)
    root = os.path.realpath(path)
    if os.path.commonpath([root, os.path.realpath(file)]) != root:
        raise BundleError(f"{file} is a link that leaves the bundle; it was not opened")
    return file
