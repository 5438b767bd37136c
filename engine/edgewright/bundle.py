"""The deployable directory: written in one move, and believed only after every digest was checked.

    manifest.json          what it is: signature, stages, artifacts, plan, recipe, verdict, every file's sha-256
    artifacts/*            the graphs
    example/inputs.npz     a synthetic input and
    example/outputs.npz    what the bundle answered to it when it was made
    example/stream.npz     inputs for many runs, where what a run costs depends on them
    measurements.json      raw measurements
    report.md              the table people read

Part of the device set: Python 3.9, standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, cast

from edgewright.errors import BundleError, OutputError
from edgewright.types import (
    Artifact,
    Gate,
    Goal,
    GraphFile,
    Placement,
    Plan,
    Signature,
    Stage,
    State,
    TensorSpec,
    Variant,
)

SCHEMA = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened: its folder is known to hold what its manifest says.

    `extra` is the rest of the manifest (recipe, task, versions, verdict, history).
    """

    path: Path
    name: str
    digest: str
    signature: Signature
    variants: tuple[Variant, ...]
    artifacts: tuple[Artifact, ...]
    plan: Plan
    extra: Mapping[str, Any]

    @property
    def example_inputs(self) -> Path:
        """Where the synthetic input lies."""
        return self.path / "example" / "inputs.npz"

    @property
    def example_outputs(self) -> Path:
        """Where the answer to it lies."""
        return self.path / "example" / "outputs.npz"

    @property
    def example_stream(self) -> Path | None:
        """Where inputs for many runs lie, stacked on axis 0; None when there are none."""
        place = self.path / "example" / "stream.npz"
        return place if place.is_file() else None

    @property
    def size(self) -> int:
        """Bytes of all artifacts together: what has to be shipped to run it."""
        return sum(artifact.size for artifact in self.artifacts)


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle. `files` maps a place in the bundle to bytes or to a file to copy."""

    name: str
    signature: Signature
    variants: tuple[Variant, ...]
    artifacts: tuple[Artifact, ...]
    plan: Plan
    files: Mapping[str, bytes | Path]
    extra: Mapping[str, Any]


# ------------------------------------------------------------------ writing


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
        artifacts=tuple(replace(a, path=destination / _place(a)) for a in contents.artifacts),
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
        files[_place(artifact)] = _copy(artifact.path, scratch / _place(artifact))
        if files[_place(artifact)] != artifact.digest:
            raise BundleError(f"{artifact.path} changed while it was being packed; run the command again")
    for place, content in contents.files.items():
        goal = scratch / safe_place(place)
        if isinstance(content, Path):
            files[place] = _copy(content, goal)
        else:
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_bytes(content)
            files[place] = hashlib.sha256(content).hexdigest()
    manifest = _manifest(contents, files)
    manifest["digest"] = manifest_digest(manifest)
    (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for path in sorted(scratch.rglob("*")):
        _sync(path)
    os.chmod(scratch, 0o755)
    return str(manifest["digest"])


def _manifest(contents: Contents, files: Mapping[str, str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": contents.name,
        "signature": plain(contents.signature),
        "variants": [variant_entry(variant) for variant in contents.variants],
        "artifacts": [{**plain(artifact), "path": _place(artifact)} for artifact in contents.artifacts],
        "plan": plain(contents.plan)["placements"],
        "files": dict(files),
        **{key: plain(value) for key, value in contents.extra.items()},
    }


def variant_entry(variant: Variant) -> dict[str, Any]:
    """A variant in its JSON form; its graphs are known by digest and format."""
    stages = [
        {
            "name": stage.name,
            "digest": stage.graph.digest,
            "format": stage.graph.format,
            "inputs": list(stage.inputs),
            "outputs": list(stage.outputs),
            "carry": list(stage.carry),
            "gate": plain(stage.gate),
            "free_rows": stage.free_rows,
            "exits": stage.exits,
        }
        for stage in variant.stages
    ]
    return {"name": variant.name, "goal": plain(variant.goal), "stages": stages}


def parse_variant(entry: Mapping[str, Any], path_of: Callable[[str, Mapping[str, Any]], Path]) -> Variant:
    """A variant from its JSON form; `path_of` (variant's name, stage's entry) tells where a stage's file lies."""
    name = str(entry["name"])
    stages = tuple(_stage(stage, path_of(name, stage)) for stage in entry["stages"])
    return Variant(name, stages, Goal(**entry["goal"]) if entry.get("goal") else None)


def _stage(entry: Mapping[str, Any], path: Path) -> Stage:
    graph = GraphFile(path, str(entry["digest"]), str(entry.get("format", "onnx")))
    names = {key: tuple(str(n) for n in entry[key]) for key in ("inputs", "outputs", "carry")}
    gate = Gate(**entry["gate"]) if entry.get("gate") else None
    free, exits = bool(entry.get("free_rows")), str(entry.get("exits", ""))
    return Stage(str(entry["name"]), graph, **names, gate=gate, free_rows=free, exits=exits)


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """The sha-256 of the manifest without its own digest: what the whole bundle is known by."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """`value` as JSON takes it: dataclasses as objects, tuples as lists, paths as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, Path):
        return str(value)
    scalar: Any = value
    return scalar.item() if getattr(scalar, "shape", None) == () else value


def _place(artifact: Artifact) -> str:
    return f"artifacts/{artifact.name}.{artifact.format}"


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
    }
    reason = reasons.get(error.errno or 0, str(error))
    raise OutputError(f"cannot write the bundle to {destination}: {reason}; choose another place with --out") from error


# ------------------------------------------------------------------ reading


def open_bundle(path: Path, *, verify: bool = True) -> Bundle:
    """Read a bundle's manifest, and check every file against it.

    Raises: BundleError, in one sentence, for a folder that is no bundle, a schema this version does not
    know, a path that leaves the bundle, a missing file, or content that is not what the manifest says.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    if verify:
        _verify(path, manifest)
    try:
        return _parse(path, manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path / MANIFEST} is not a manifest of schema {SCHEMA}: {error!r}") from error


def is_bundle(path: Path) -> bool:
    """Whether the folder looks like a bundle."""
    return (Path(path) / MANIFEST).is_file()


def safe_place(place: str) -> PurePosixPath:
    """`place` as a path that stays in the bundle. Raises: BundleError when it does not."""
    parsed = PurePosixPath(place)
    unsafe = parsed.is_absolute() or ".." in parsed.parts or "\\" in place or ":" in place or "\0" in place
    if unsafe or not parsed.parts:
        raise BundleError(f"the bundle names the path {place!r}, which leaves its folder; it was not opened")
    return parsed


def file_digest(path: Path) -> str:
    """The sha-256 of a file's bytes."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha.update(block)
    return sha.hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
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


def _verify(path: Path, manifest: Mapping[str, Any]) -> None:
    if manifest.get("digest") != manifest_digest(manifest):
        raise BundleError(f"{path / MANIFEST} was changed after it was written (its digest does not match)")
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{path / MANIFEST} lists no files")
    for place, digest in cast("dict[str, str]", files).items():
        file = _inside(path, place)
        if not file.is_file():
            raise BundleError(f"{path} lacks {place}, which its manifest lists")
        if file_digest(file) != digest:
            raise BundleError(f"{path / place} was changed after the bundle was written (its digest does not match)")


def _inside(path: Path, place: str) -> Path:
    file = path / safe_place(place)
    root = os.path.realpath(path)
    if os.path.commonpath([root, os.path.realpath(file)]) != root:
        raise BundleError(f"{file} is a link that leaves the bundle; it was not opened")
    return file


def _parse(path: Path, manifest: Mapping[str, Any]) -> Bundle:
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
    place = str(entry["path"])
    if listed.get(place) != entry["digest"]:
        raise BundleError(f"{path / MANIFEST} names the artifact {place!r} without its digest")
    fields: dict[str, Any] = {**entry, "path": _inside(path, place)}
    return Artifact(**fields)


def parse_signature(entry: Mapping[str, Any]) -> Signature:
    """A Signature from its JSON form."""
    specs = {
        side: tuple(TensorSpec(str(s["name"]), str(s["dtype"]), tuple(s["shape"])) for s in entry[side])
        for side in ("inputs", "outputs")
    }
    state = tuple(State(str(s["output"]), str(s["input"])) for s in entry.get("state", ()))
    return Signature(specs["inputs"], specs["outputs"], state)
