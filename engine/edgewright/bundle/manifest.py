"""The manifest, both ways: what a bundle says of itself, and the bundle that a manifest tells of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from edgewright.bundle.contents import Bundle, Contents
from edgewright.bundle.entries import parse_signature, parse_variant, plain, variant_entry
from edgewright.bundle.files import inside
from edgewright.errors import BundleError
from edgewright.types import Artifact, Companion, Needs, Placement, Plan

SCHEMA = 1
MANIFEST = "manifest.json"


def manifest_of(contents: Contents, files: Mapping[str, str]) -> dict[str, Any]:
    """The manifest without its digest; `files` maps places in the bundle to the sha-256 of what lies there."""
    return {
        "schema": SCHEMA,
        "name": contents.name,
        "signature": plain(contents.signature),
        "variants": [variant_entry(variant) for variant in contents.variants],
        "artifacts": [_artifact_entry(artifact) for artifact in contents.artifacts],
        "plan": plain(contents.plan)["placements"],
        "files": dict(files),
        **{key: plain(value) for key, value in contents.extra.items()},
    }


def artifact_place(artifact: Artifact) -> str:
    """Where an artifact lies in its bundle."""
    return f"artifacts/{artifact.name}.{artifact.format}"


def companion_place(companion: Companion) -> str:
    """Where a companion lies in its bundle: in a place of its content, which artifacts share."""
    return f"artifacts/{companion.digest[:16]}/{companion.name}"


def places_of(artifact: Artifact) -> Sequence[tuple[str, Artifact | Companion]]:
    """Where an artifact's own file and its companions lie in their bundle."""
    companions = [(companion_place(companion), companion) for companion in artifact.companions]
    return [(artifact_place(artifact), artifact), *companions]


def in_bundle(artifact: Artifact, path: Path) -> Artifact:
    """The artifact as it lies in the bundle in the folder `path`."""
    companions = tuple(replace(c, path=path / companion_place(c)) for c in artifact.companions)
    return replace(artifact, path=path / artifact_place(artifact), companions=companions)


def _artifact_entry(artifact: Artifact) -> dict[str, Any]:
    """Without a word of companions where there are none, so that manifests of before keep their digests."""
    entry = {**plain(artifact), "path": artifact_place(artifact)}
    del entry["companions"]
    companions = [_companion_entry(companion) for companion in artifact.companions]
    return {**entry, "companions": companions} if companions else entry


def _companion_entry(companion: Companion) -> dict[str, Any]:
    """Without a word of needs where none are known, for the same reason."""
    entry = {**plain(companion), "path": companion_place(companion)}
    if companion.needs is None:
        del entry["needs"]
    return entry


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """The sha-256 of the manifest without its own digest: what the whole bundle is known by."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the bundle in the folder `path`. Raises: BundleError when there is none that can be read."""
    place = path / MANIFEST
    try:
        manifest = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{place} cannot be read: {error}") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise BundleError(f"{place} has schema {schema!r}; this version reads schema {SCHEMA}")
    return cast("dict[str, Any]", manifest)


def bundle_of(path: Path, manifest: Mapping[str, Any]) -> Bundle:
    """The bundle in the folder `path`, as its manifest describes it.

    Raises: BundleError for an artifact outside the bundle or without its digest; what Python raises for other faults.
    """
    listed = cast("Mapping[str, str]", manifest["files"])
    artifacts = tuple(_artifact(path, entry, listed) for entry in manifest["artifacts"])
    files = {(artifact.variant, artifact.stage): artifact.path for artifact in artifacts}
    entries: Sequence[Mapping[str, Any]] = manifest["variants"]
    known = {"schema", "name", "digest", "signature", "variants", "artifacts", "plan", "files"}
    return Bundle(
        path=path,
        name=str(manifest["name"]),
        digest=str(manifest["digest"]),
        signature=parse_signature(manifest["signature"]),
        variants=tuple(parse_variant(entry, lambda name, stage: files[name, stage["name"]]) for entry in entries),
        artifacts=artifacts,
        plan=Plan(tuple(Placement(**entry) for entry in manifest["plan"])),
        extra={key: value for key, value in manifest.items() if key not in known},
    )


def _artifact(path: Path, entry: Mapping[str, Any], listed: Mapping[str, str]) -> Artifact:
    companions = tuple(_companion(path, part, listed) for part in entry.get("companions", ()))
    fields: dict[str, Any] = {**_located(path, entry, listed), "companions": companions}
    return Artifact(**fields)


def _companion(path: Path, entry: Mapping[str, Any], listed: Mapping[str, str]) -> Companion:
    fields = _located(path, entry, listed)
    if "needs" in fields:
        needs: dict[str, Any] = {**fields["needs"], "features": tuple(map(str, fields["needs"]["features"]))}
        fields["needs"] = Needs(**needs)
    return Companion(**fields)


def _located(path: Path, entry: Mapping[str, Any], listed: Mapping[str, str]) -> dict[str, Any]:
    """A file's entry with the path where it lies. Raises: BundleError when the manifest does not vouch for it."""
    place = str(entry["path"])
    if listed.get(place) != entry["digest"]:
        raise BundleError(f"{path / MANIFEST} names the artifact {place!r} without its digest")
    return {**entry, "path": inside(path, place)}
