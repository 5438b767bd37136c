"""Files beside an artifact: written, vouched for and counted with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgewright.bundle import Contents, file_digest, manifest_digest, open_bundle, write_bundle
from edgewright.errors import BundleError
from edgewright.types import Artifact, Companion, GraphFile, Needs, Plan, Signature, Stage, Variant, bytes_of


def part(folder: Path, name: str, content: bytes = b"machine code") -> Companion:
    path = folder / f"{len(content)}-library"
    path.write_bytes(content)
    return Companion(name, path, file_digest(path), len(content))


def contents(folder: Path, companions: Mapping[str, tuple[Companion, ...]]) -> Contents:
    """One stage for each entry of `companions`."""
    artifacts = []
    for stage, beside in companions.items():
        path = folder / f"{stage}.onnx"
        path.write_bytes(stage.encode())
        artifacts.append(Artifact(stage, path, file_digest(path), len(stage), "onnx", "main", stage, companions=beside))
    stages = tuple(Stage(a.stage, GraphFile(a.path, a.digest), (), ()) for a in artifacts)
    return Contents("net", Signature((), ()), (Variant("main", stages),), tuple(artifacts), Plan(()), {}, {})


def resign(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and give it the right digest, as an attacker would."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    manifest["digest"] = manifest_digest(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_companion_is_written_read_and_counted(tmp_path: Path):
    given = contents(tmp_path, {"stage": (part(tmp_path, "kernels.so"),)})
    written = write_bundle(tmp_path / "out", given)
    read = open_bundle(tmp_path / "out")
    assert read.artifacts == written.artifacts == given.artifacts
    (companion,) = read.artifacts[0].companions
    assert companion.path == written.artifacts[0].companions[0].path
    assert companion.path.read_bytes() == b"machine code"
    assert companion.path.name == "kernels.so"
    assert read.size == len("stage") + len("machine code")


def test_artifacts_share_a_companion_and_others_of_its_name_stay_apart(tmp_path: Path):
    shared, other = part(tmp_path, "kernels.so"), part(tmp_path, "kernels.so", b"other code")
    written = write_bundle(tmp_path / "out", contents(tmp_path, {"a": (shared,), "b": (shared,), "c": (other,)}))
    a, b, c = (artifact.companions[0].path for artifact in open_bundle(tmp_path / "out").artifacts)
    assert a == b
    assert [a.read_bytes(), c.read_bytes()] == [b"machine code", b"other code"]
    assert bytes_of(written.artifacts) == 3 + len("machine code") + len("other code")


def test_a_manifest_without_companions_is_as_it_was(tmp_path: Path):
    write_bundle(tmp_path / "out", contents(tmp_path, {"stage": ()}))
    assert "companions" not in (tmp_path / "out" / "manifest.json").read_text()


def test_what_a_library_needs_is_kept(tmp_path: Path):
    library = replace(part(tmp_path, "kernels.so"), needs=Needs("armv8.2-a-dot", "aarch64", ("asimddp",)))
    write_bundle(tmp_path / "out", contents(tmp_path, {"stage": (library,)}))
    assert open_bundle(tmp_path / "out").artifacts[0].companions == (library,)


def test_a_manifest_that_knows_no_needs_is_as_it_was(tmp_path: Path):
    write_bundle(tmp_path / "out", contents(tmp_path, {"stage": (part(tmp_path, "kernels.so"),)}))
    assert "needs" not in (tmp_path / "out" / "manifest.json").read_text()
    assert open_bundle(tmp_path / "out").artifacts[0].companions[0].needs is None


def test_a_bundle_is_copied_with_its_companions(tmp_path: Path):
    first = write_bundle(tmp_path / "first", contents(tmp_path, {"stage": (part(tmp_path, "kernels.so"),)}))
    again = contents(tmp_path, {"stage": ()})
    second = write_bundle(tmp_path / "second", replace(again, artifacts=first.artifacts))
    assert second.digest == first.digest
    assert second.artifacts[0].companions[0].path.is_relative_to(tmp_path / "second")


def test_a_changed_or_missing_companion_is_refused(tmp_path: Path):
    write_bundle(tmp_path / "out", contents(tmp_path, {"stage": (part(tmp_path, "kernels.so"),)}))
    place = open_bundle(tmp_path / "out").artifacts[0].companions[0].path
    place.write_bytes(b"evil code!!!")
    with pytest.raises(BundleError, match=r"kernels\.so was changed"):
        open_bundle(tmp_path / "out")
    place.unlink()
    with pytest.raises(BundleError, match=r"lacks artifacts/.*/kernels\.so"):
        open_bundle(tmp_path / "out")


def test_a_companion_that_changes_while_it_is_packed_is_refused(tmp_path: Path):
    given = contents(tmp_path, {"stage": (part(tmp_path, "kernels.so"),)})
    given.artifacts[0].companions[0].path.write_bytes(b"newer code")
    with pytest.raises(BundleError, match="changed while it was being packed"):
        write_bundle(tmp_path / "out", given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"path": "/lib/libc.so.6"}, "without its digest"),
        ({"path": "../library"}, "without its digest"),
        ({"digest": "0" * 64}, "without its digest"),
        ({"path": None}, "without its digest"),
        ({"surprise": 1}, "is not a manifest of schema 1"),
        ({"needs": {"isa": "aarch64"}}, "is not a manifest of schema 1"),
    ],
)
def test_a_manifest_cannot_name_a_companion_elsewhere(tmp_path: Path, entry: dict[str, Any], said: str):
    write_bundle(tmp_path / "out", contents(tmp_path, {"stage": (part(tmp_path, "kernels.so"),)}))
    resign(tmp_path / "out", lambda manifest: manifest["artifacts"][0]["companions"][0].update(entry))
    with pytest.raises(BundleError, match=said):
        open_bundle(tmp_path / "out")


def test_a_companion_cannot_be_a_link_that_leaves_the_bundle(tmp_path: Path):
    given = part(tmp_path, "kernels.so")
    write_bundle(tmp_path / "out", contents(tmp_path, {"stage": (given,)}))
    place = open_bundle(tmp_path / "out").artifacts[0].companions[0].path
    place.unlink()
    place.symlink_to(given.path)
    for verify in (True, False):
        with pytest.raises(BundleError, match="leaves the bundle"):
            open_bundle(tmp_path / "out", verify=verify)


@pytest.mark.parametrize("name", ["../../../escaped.so", "..", "a\\b.so"])
def test_a_companion_cannot_be_written_outside_the_bundle(tmp_path: Path, name: str):
    with pytest.raises(BundleError, match="leaves its folder"):
        write_bundle(tmp_path / "out", contents(tmp_path, {"stage": (part(tmp_path, name),)}))
