"""The C header that kernels are loaded with: where it is looked for, and what is said of one that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.errors import InputError, RefusedError
from edgewright.toolchain.ortheader import NAME, fetch_header, find_header
from edgewright_exporters.loader.build import loader_object
from edgewright_exporters.tir.isa import isa_named


def put(folder: Path, version: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(f"// a header\n#define ORT_API_VERSION {version}\n")
    return folder


def test_what_is_named_goes_first_as_a_file_or_a_folder(tmp_path: Path):
    system = put(tmp_path / "usr", 20)
    named = put(tmp_path / "sdk" / "include", 22)
    for given in (named / NAME, named, tmp_path / "sdk"):
        found = find_header(tmp_path / "cache", given, system=[system])
        assert (found.folder, found.version) == (named, 22)


def test_the_systems_own_goes_before_what_was_fetched(tmp_path: Path):
    cache, system = tmp_path / "cache", tmp_path / "usr"
    put(cache / "onnxruntime-include", 21)
    assert find_header(cache, system=[system]).version == 21
    put(system / "onnxruntime" / "core" / "session", 18)
    assert find_header(cache, system=[system]).version == 18
    put(system, 19)
    assert find_header(cache, system=[system]).version == 19


def test_one_that_is_too_old_is_passed_over_unless_it_was_named(tmp_path: Path):
    old = put(tmp_path / "usr" / "onnxruntime-1.14", 14)
    with pytest.raises(RefusedError, match="`engine doctor --fix` fetches it"):
        find_header(tmp_path / "cache", system=[tmp_path / "usr"])
    with pytest.raises(InputError, match=r"is of onnxruntime 1\.14; 1\.17 or newer"):
        find_header(tmp_path / "cache", old)


def test_a_named_place_without_a_header_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        find_header(tmp_path, tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"holds no {NAME}"):
        find_header(tmp_path, tmp_path)


def test_nothing_is_compiled_without_a_header(tmp_path: Path):
    with pytest.raises(InputError, match=f"holds no {NAME}"):
        loader_object(isa_named("x86-64-v3"), tmp_path / "cache", header=tmp_path)
    assert not (tmp_path / "cache").exists()


def test_without_debians_tools_fetching_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RefusedError, match="this is no Debian; or unpack a release"):
        fetch_header(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
