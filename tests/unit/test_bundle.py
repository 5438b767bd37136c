"""Bundles: whole or absent, unchanged or refused, never outside their folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.bundle import Contents, check_destination, manifest_digest, open_bundle, safe_place, write_bundle
from edgewright.bundle import writing as bundles
from edgewright.errors import BundleError, OutputError
from edgewright.types import Artifact, GraphFile, Placement, Plan, Signature, Stage, State, TensorSpec, Variant


def contents(folder: Path, graph: bytes = b"a graph") -> Contents:
    path = folder / "graph.onnx"
    path.write_bytes(graph)
    digest = hashlib.sha256(graph).hexdigest()
    signature = Signature(
        (TensorSpec("x", "float32", (1, 3)), TensorSpec("h", "float32", (1, 2))),
        (TensorSpec("y", "float32", ("n", 2)),),
        (State("y", "h"),),
    )
    return Contents(
        "net",
        signature,
        (Variant("main", (Stage("all", GraphFile(path, digest), ("x", "h"), ("y",)),)),),
        (Artifact("main-all", path, digest, len(graph), "onnx", "main", "all", 8, {"ai.onnx": 17}),),
        Plan((Placement("main", "all", "main-all", "ort", "CPUExecutionProvider", {"threads": 1}),)),
        {"example/inputs.npz": b"in", "report.md": b"# report"},
        {"recipe": {"methods": ["quantize"]}},
    )


def test_what_is_written_is_what_is_read(tmp_path):
    given_contents = contents(tmp_path)
    written = write_bundle(tmp_path / "out", given_contents)
    read = open_bundle(tmp_path / "out")
    assert (read.digest, read.name, read.signature, read.plan) == (
        written.digest,
        "net",
        given_contents.signature,
        given_contents.plan,
    )
    assert read.artifacts[0].path.read_bytes() == b"a graph"
    assert read.variants[0].stages[0].graph.digest == given_contents.artifacts[0].digest
    assert read.extra["recipe"] == {"methods": ["quantize"]}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph.onnx", "out"]


def test_the_same_contents_give_the_same_digest(tmp_path):
    first = write_bundle(tmp_path / "a", contents(tmp_path))
    assert first.digest == write_bundle(tmp_path / "b", contents(tmp_path)).digest
    assert first.digest != write_bundle(tmp_path / "c", contents(tmp_path, b"another")).digest


def test_an_older_bundle_is_replaced_and_anything_else_is_left_alone(tmp_path):
    write_bundle(tmp_path / "out", contents(tmp_path))
    write_bundle(tmp_path / "out", contents(tmp_path, b"newer"))
    assert open_bundle(tmp_path / "out").artifacts[0].path.read_bytes() == b"newer"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="holds something else"):
        write_bundle(tmp_path / "mine", contents(tmp_path))
    with pytest.raises(OutputError, match="is a file"):
        check_destination(tmp_path / "graph.onnx")


@pytest.mark.parametrize("place", ["artifacts/main-all.onnx", "example/inputs.npz", "report.md"])
def test_a_changed_file_is_refused_by_name(tmp_path, place):
    write_bundle(tmp_path / "out", contents(tmp_path))
    (tmp_path / "out" / place).write_bytes(b"evil")
    with pytest.raises(BundleError, match=f"{place} was changed"):
        open_bundle(tmp_path / "out")


def test_a_changed_manifest_is_refused(tmp_path):
    write_bundle(tmp_path / "out", contents(tmp_path))
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("quantize", "nothing"))
    with pytest.raises(BundleError, match=r"manifest.json was changed"):
        open_bundle(tmp_path / "out")


def test_a_missing_file_and_a_missing_manifest_are_told_apart(tmp_path):
    write_bundle(tmp_path / "out", contents(tmp_path))
    (tmp_path / "out" / "report.md").unlink()
    with pytest.raises(BundleError, match=r"lacks report\.md"):
        open_bundle(tmp_path / "out")
    with pytest.raises(BundleError, match="is not a bundle"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    "place", ["../graph.onnx", "/etc/passwd", "a/../../b", "c:evil", "..\\up", "", "artifacts/../.."]
)
def test_a_path_that_leaves_the_bundle_is_refused(tmp_path, place):
    write_bundle(tmp_path / "out", contents(tmp_path))
    resign(tmp_path / "out", lambda m: m["files"].update({place: "0" * 64}))
    with pytest.raises(BundleError, match="leaves its folder"):
        open_bundle(tmp_path / "out")


def test_a_link_that_leaves_the_bundle_is_refused(tmp_path):
    write_bundle(tmp_path / "out", contents(tmp_path))
    target = tmp_path / "out" / "report.md"
    target.unlink()
    secret = tmp_path / "secret"
    secret.write_bytes(b"# report")
    target.symlink_to(secret)
    with pytest.raises(BundleError, match="is a link that leaves"):
        open_bundle(tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(schema=99),
        lambda m: m.pop("plan"),
        lambda m: m.update(artifacts=[{"name": "x"}]),
        lambda m: m.update(signature=[]),
        lambda m: m.update(files=None),
        lambda m: m["artifacts"][0].update(digest="0" * 64),
        lambda m: m["artifacts"][0].update(path="report.md"),
        lambda m: m["variants"][0]["stages"].append({"name": "more"}),
    ],
)
def test_a_manifest_of_another_form_is_refused(tmp_path, change):
    write_bundle(tmp_path / "out", contents(tmp_path))
    resign(tmp_path / "out", change)
    with pytest.raises(BundleError):
        open_bundle(tmp_path / "out")


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(["signature", "variants", "artifacts", "plan", "files", "name", "schema", "digest"]),
)
def test_no_manifest_ends_in_anything_but_a_bundle_or_a_sentence(tmp_path_factory, junk, key):
    folder = tmp_path_factory.mktemp("junk")
    write_bundle(folder / "out", contents(folder))
    resign(folder / "out", lambda m: m.update({key: junk}))
    try:
        open_bundle(folder / "out")
    except BundleError as error:
        assert str(error)


@given(st.text(max_size=30))
def test_a_safe_place_stays_inside(text):
    try:
        place = safe_place(text)
    except BundleError:
        return
    assert os.path.relpath(os.path.join("/root", place), "/root").split("/")[0] != ".."


def test_a_read_only_folder_is_refused_before_any_work(tmp_path):
    if os.geteuid() == 0:
        with pytest.raises(OutputError, match="cannot write the bundle"):
            check_destination(Path("/proc/nowhere/out"))
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="permission denied"):
            check_destination(tmp_path / "locked" / "out")


def test_a_full_disk_leaves_nothing(tmp_path):
    """A real small file system, where the machine lets us mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        with pytest.raises(OutputError, match="the disk is full"):
            write_bundle(small / "out", contents(tmp_path, b"x" * 100_000))
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_kill_while_writing_leaves_the_older_bundle_or_none(tmp_path):
    """kill -9 at the moment when all is written and nothing is renamed."""
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
        from edgewright.bundle import writing as bundle
        from test_bundle import contents
        bundle._swap = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        bundle.write_bundle(Path({str(tmp_path)!r}) / "out", contents(Path({str(tmp_path)!r})))
        """
    )
    died = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert died.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    write_bundle(tmp_path / "out", contents(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph.onnx", "out"]


def test_a_kill_between_the_two_renames_is_mended_by_the_next_run(tmp_path):
    write_bundle(tmp_path / "out", contents(tmp_path))
    os.rename(tmp_path / "out", tmp_path / ".out.replaced.partial")
    write_bundle(tmp_path / "out", contents(tmp_path, b"newer"))
    assert open_bundle(tmp_path / "out").artifacts[0].path.read_bytes() == b"newer"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph.onnx", "out"]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EROFS, "the file system is read-only"),
        (errno.EEXIST, "part of the path is a file"),
        (errno.ENOENT, "no folder can be made there"),
        (errno.EIO, "as the system says it"),
    ],
)
def test_every_known_reason_is_a_word_people_use(number, reason):
    with pytest.raises(OutputError, match=f"to /x: {reason}; choose"):
        bundles._refuse_output(Path("/x"), OSError(number, "as the system says it", "/x"))


def resign(folder: Path, change) -> None:
    """Change a manifest as someone would who knows how digests are made."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest["digest"] = manifest_digest(manifest) if "digest" in manifest else ""
    path.write_text(json.dumps(manifest))
