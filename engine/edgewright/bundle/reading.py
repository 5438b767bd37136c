"""Opens a bundle, and believes it only after every digest was checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from edgewright.bundle.contents import Bundle
from edgewright.bundle.files import file_digest, inside
from edgewright.bundle.manifest import MANIFEST, SCHEMA, bundle_of, manifest_digest, read_manifest
from edgewright.errors import BundleError


def open_bundle(path: Path, *, verify: bool = True) -> Bundle:
    """Read a bundle's manifest, and check every file against it.

    Raises: BundleError, in one sentence, for a folder that is no bundle, a schema this version does not
    know, a path that leaves the bundle, a missing file, or content that is not what the manifest says.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if verify:
        _verify(path, manifest)
    try:
        return bundle_of(path, manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path / MANIFEST} is not a manifest of schema {SCHEMA}: {error!r}") from error


def is_bundle(path: Path) -> bool:
    """Whether the folder looks like a bundle."""
    return (Path(path) / MANIFEST).is_file()


def _verify(path: Path, manifest: Mapping[str, Any]) -> None:
    if manifest.get("digest") != manifest_digest(manifest):
        raise BundleError(f"{path / MANIFEST} was changed after it was written (its digest does not match)")
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{path / MANIFEST} lists no files")
    for place, digest in cast("dict[str, str]", files).items():
        file = inside(path, place)
        if not file.is_file():
            raise BundleError(f"{path} lacks {place}, which its manifest lists")
        if file_digest(file) != digest:
            raise BundleError(f"{path / place} was changed after the bundle was written (its digest does not match)")
