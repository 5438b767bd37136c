"""Files on their way to a device, whose shell is this machine's: what is sent, what is not, and in how many scripts."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgewright.errors import DeviceError
from edgewright_devices.remote.link import RemoteLink
from edgewright_devices.remote.transfer import SMALL


class Here:
    """A shell of this machine, which counts what it is asked."""

    address = "here"

    def __init__(self) -> None:
        self.scripts: list[str] = []

    def client(self, script: str) -> Sequence[str]:
        self.scripts.append(script)
        return ["sh", "-c", script]

    def trouble(self, status: int, errors: str) -> str:
        return ""

    def close(self) -> None: ...


@pytest.fixture
def shell() -> Here:
    return Here()


@pytest.fixture
def link(shell: Here, tmp_path: Path) -> RemoteLink:
    found = RemoteLink(shell, shlex.quote(f"{tmp_path}/a device"))
    shell.scripts.clear()
    return found


def folder(place: Path, size: int) -> Path:
    for name in ("large", "sub folder/also", "sub folder/again"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(secrets.token_bytes(size))
    return place


def content(place: str | Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in Path(place).rglob("*") if path.is_file()}


@pytest.mark.parametrize(("size", "scripts"), [(SMALL, [2, 1, 2]), (100, [1, 1, 1])])
def test_what_is_there_is_not_sent_again(
    shell: Here, link: RemoteLink, tmp_path: Path, size: int, scripts: list[int]
) -> None:
    local, counts = folder(tmp_path / "local", size), list[int]()
    for name in ("bundles/one", "bundles/one", "bundles/it's another"):
        place = link.put(local, name)
        assert content(place) == content(local)
        counts.append(len(shell.scripts))
        shell.scripts.clear()
    assert counts == scripts
    kept = {path.stat().st_ino for path in (link.root / "store").iterdir()}
    assert {path.stat().st_ino for path in Path(place).rglob("*") if path.is_file()} == kept
    assert not list(link.root.rglob(".part-*"))


def test_one_file_that_has_changed_is_all_that_is_sent(link: RemoteLink, tmp_path: Path) -> None:
    local = folder(tmp_path / "local", SMALL)
    before = {path.name: path.stat().st_ino for path in Path(link.put(local, "bundles/one")).rglob("*")}
    (local / "large").write_bytes(b"other")
    after = {path.name: path.stat().st_ino for path in Path(link.put(local, "bundles/one")).rglob("*")}
    assert content(link.root / "bundles/one") == content(local)
    assert {name for name in ("large", "also", "again") if before[name] != after[name]} == {"large"}


@pytest.mark.parametrize("size", [SMALL, 100])
@pytest.mark.parametrize("how", ["changed", "removed"])
def test_what_was_damaged_is_sent_again(link: RemoteLink, tmp_path: Path, size: int, how: str) -> None:
    local = folder(tmp_path / "local", size)
    stored = Path(link.put(local, "bundles/one")) / "sub folder/also"
    stored.write_bytes(b"other") if how == "changed" else stored.unlink()
    assert content(link.put(local, "bundles/one")) == content(local)


def test_a_lone_file_takes_the_place_of_another(link: RemoteLink, tmp_path: Path) -> None:
    for size in (2 * SMALL, 3 * SMALL, 10):
        (tmp_path / "file").write_bytes(secrets.token_bytes(size))
        assert Path(link.put(tmp_path / "file", "runner/one")).read_bytes() == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("size", [SMALL, 100])
def test_what_arrives_otherwise_is_not_kept(
    shell: Here, link: RemoteLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    local = folder(tmp_path / "local", size)
    plain = shell.client
    damage = "&& for each in */*/new/*; do echo more >>$each; done || exit 1"
    monkeypatch.setattr(
        shell, "client", lambda script: plain(script.replace("tar -xmf - || exit 1", f"tar -xmf - {damage}"))
    )
    with pytest.raises(DeviceError, match="here could not do it"):
        link.put(local, "bundles/one")
    assert not list(link.root.rglob(".part-*"))
    assert not list((link.root / "store").iterdir())
    assert not (link.root / "bundles" / "one").exists()


def test_what_nobody_used_for_long_goes_and_what_is_used_stays(shell: Here, link: RemoteLink, tmp_path: Path) -> None:
    local = folder(tmp_path / "local", SMALL)
    for path in local.rglob("*"):
        os.utime(path, (0, 0))  # an old file of the host is a new one there
    link.put(local, "bundles/one")
    RemoteLink(shell, shlex.quote(str(link.root)))
    assert len(list((link.root / "store").iterdir())) == 3
    for path in (link.root / "bundles" / "one", *(link.root / "store").iterdir()):
        os.utime(path, (0, 0))
    link.put(local, "bundles/one")
    RemoteLink(shell, shlex.quote(str(link.root)))
    assert content(link.root / "bundles" / "one") == content(local)
    for path in (link.root / "bundles" / "one", *(link.root / "store").iterdir()):
        os.utime(path, (0, 0))
    RemoteLink(shell, shlex.quote(str(link.root)))
    assert not list((link.root / "store").iterdir())
    assert not list((link.root / "bundles").iterdir())


class Cut(Here):
    """A shell whose client ends as if all were well when the way is lost, as adb's does."""

    def __init__(self) -> None:
        super().__init__()
        self.instead = "{}"

    def client(self, script: str) -> Sequence[str]:
        return ["sh", "-c", self.instead.format(script)]


def test_a_way_that_is_lost_without_a_word_is_told(tmp_path: Path) -> None:
    shell = Cut()
    link = RemoteLink(shell, shlex.quote(f"{tmp_path}/device"))
    local, back = tmp_path / "local", tmp_path / "back"
    local.write_bytes(secrets.token_bytes(SMALL))
    there = link.put(local, "arrays/one")
    shell.instead = "head -c 1000 >/dev/null"
    with pytest.raises(DeviceError, match="was lost while files were sent there"):
        link.put(local, "arrays/two")
    shell.instead = "({}) | head -c 1000"
    with pytest.raises(DeviceError, match=r"was lost while .* was sent from there"):
        link.get(there, back)
    assert not back.exists()
