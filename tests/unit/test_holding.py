"""The lock of a device: one holder at a time, of whom the next client is told, and nothing left when it is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.errors import DeviceError
from edgewright_runtime import holding
from edgewright_runtime.holding import Lock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The device's uptime, which tests set."""
    now = [1000.0]
    monkeypatch.setattr(holding, "uptime", lambda: now[0])
    return now


def refusal(path: Path) -> str:
    with pytest.raises(DeviceError) as refused:
        Lock(path, "bob")
    return str(refused.value)


def test_the_next_client_is_told_who_since_when_and_until_when(tmp_path: Path, clock: list[float]) -> None:
    lock, path = Lock(tmp_path / "lock", "ann, a long name", 300.0), tmp_path / "lock"
    clock[0] = 1012.0
    lock.heard()
    clock[0] = 1032.0
    assert refusal(path) == (
        "the device is in use by ann, a long name; it came 32 s ago, and loses the device in 280 s "
        "unless it is heard again; wait for its end, or end that process"
    )
    clock[0] = 1912.0
    assert "it came 912 s ago, and its last request has been worked on for 900 s;" in refusal(path)
    lock.close()
    Lock(path, "bob").close()
    assert path.read_text().splitlines()[0] == "bob"


def test_the_file_is_seldom_written(tmp_path: Path, clock: list[float]) -> None:
    lock, path = Lock(tmp_path / "lock", "ann", 300.0), tmp_path / "lock"
    first = path.read_text()
    clock[0] += holding.TELL_S - 1
    lock.heard()
    assert path.read_text() == first
    clock[0] += 1
    lock.heard()
    assert path.read_text() != first
    lock.close()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "another client"),
        ("ann, process 7", "ann, process 7"),
        ("ann\nyesterday\n", "ann"),
        ("ann\n5 9 0\n", "ann; it came 15 s ago"),
        ("ann\n5 9 30\n", "ann; it came 15 s ago, and loses the device in 19 s unless it is heard again"),
        ("ann\n90 90 30\n", "ann; it came 0 s ago, and loses the device in 30 s unless it is heard again"),
    ],
)
def test_whatever_stands_in_the_file_is_told(said: str, told: str) -> None:
    assert holding.holder(said, 20.0) == told
