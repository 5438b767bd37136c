"""The emulated devices, or a skip with the reason why there are none."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgewright.errors import RefusedError
from edgewright.toolchain.ortheader import headers_place
from emulated import Served
from served import adb_device, ssh_device
from small import small_bundle
from systems import BULLSEYE, TRIXIE, Installed, System, installed, runtimes
from userland import Userland


def cache() -> Path:
    return headers_place().parent / "hardware"


@pytest.fixture(scope="session")
def userland(trixie: Installed) -> Userland:
    """An aarch64 system with a choice of runtimes."""
    try:
        return runtimes(trixie, cache())
    except RefusedError as refusal:
        pytest.skip(str(refusal))


@pytest.fixture(scope="session")
def trixie() -> Installed:
    """Debian 13: Python 3.13, OpenSSH 10 and adbd."""
    return _installed(TRIXIE)


@pytest.fixture(scope="session")
def bullseye() -> Installed:
    """Debian 11: Python 3.9 and glibc 2.31."""
    return _installed(BULLSEYE)


def _installed(system: System) -> Installed:
    try:
        return installed(system, cache())
    except RefusedError as refusal:
        pytest.skip(str(refusal))


Start = Callable[..., Served]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Generator[Start]:
    """Switches a device on until the tests are over: `start(ssh_device, system)`."""
    with ExitStack() as stack:

        def on(kind: Callable[..., Served], system: Installed, **how: object) -> Served:
            try:
                device = kind(system, tmp_path_factory.mktemp("device"), **how)
            except RefusedError as refusal:
                pytest.skip(str(refusal))
            stack.callback(device.stop)
            return device

        yield on


@pytest.fixture(scope="session")
def board(start: Start, trixie: Installed) -> Served:
    """A board that answers ssh, with all it needs."""
    return start(ssh_device, trixie)


@pytest.fixture(scope="session")
def phone(start: Start, trixie: Installed) -> Served:
    """A device that answers adb, with all it needs."""
    return start(adb_device, trixie)


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Callable[[Served], str]:
    """Makes our clients find a device; returns its address."""

    def found(device: Served) -> str:
        for name, value in device.settings.items():
            monkeypatch.setenv(name, value)
        return device.address

    return found


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that answers at once, deployed on this host."""
    return small_bundle(tmp_path_factory.mktemp("small"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share devices, so they stay with one process of pytest-xdist where they are in no other group."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what cases measured, beside whether they passed."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
