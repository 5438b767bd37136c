"""No way to a device: one sentence each time that says why, and what to do."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

import peers
from edgewright.errors import DeviceError
from edgewright_devices import adb, ssh
from edgewright_devices.adb import ADB
from edgewright_devices.ssh import SSH
from emulated import Served
from reached import soon
from small import engine

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

Reach = Callable[[Served], str]

# ------------------------------------------------------------------ over ssh


def config(tmp_path: Path, board: Served, *changes: tuple[str, str]) -> str:
    text = (board.folder / "ssh_config").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "ssh_config").write_text(text)
    return str(tmp_path / "ssh_config")


def refused_ssh(monkeypatch: pytest.MonkeyPatch, file: str, *, address: str = "board") -> str:
    monkeypatch.setenv(ssh.CONFIG, file)
    with pytest.raises(DeviceError) as caught:
        SSH.open(address)
    said = str(caught.value)
    assert said.startswith(f"ssh://{address}")
    assert "\n" not in said
    return said


def port_of(board: Served) -> str:
    return (board.folder / "ssh_config").read_text().partition("Port ")[2].split()[0]


def test_nothing_listens(board: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    file = config(tmp_path, board, (f"Port {port_of(board)}", f"Port {port}"))
    assert "nothing listens on its port" in refused_ssh(monkeypatch, file)


def test_an_unknown_host_key(board: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config(tmp_path, board, (f"{board.folder}/known_hosts", "/dev/null"))
    assert "its host key is not known; check it once with ssh board" in refused_ssh(monkeypatch, file)


def test_a_changed_host_key(board: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = " ".join((board.folder / "key.pub").read_text().split()[:2])
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port_of(board)} {other}\n")
    file = config(tmp_path, board, (f"{board.folder}/known_hosts", f"{tmp_path}/known"))
    assert "its host key has changed" in refused_ssh(monkeypatch, file)


def test_a_key_that_it_does_not_take(board: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config(tmp_path, board, (f"{board.folder}/key", f"{board.folder}/host_key"))
    assert "takes none of your keys" in refused_ssh(monkeypatch, file)


def test_a_user_that_it_does_not_have(board: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config(tmp_path, board)
    assert "takes none of your keys" in refused_ssh(monkeypatch, file, address="nobody-here@board")


def test_a_name_that_no_host_has(board: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config(tmp_path, board, ("127.0.0.1", "no..where"))
    assert "no host has that name" in refused_ssh(monkeypatch, file)


def test_a_configuration_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the ssh configuration is not there" in refused_ssh(monkeypatch, str(tmp_path / "none"))


def test_a_configuration_that_is_none(board: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config(tmp_path, board, ("User pi", "Usr pi"))
    assert "the ssh configuration is not understood" in refused_ssh(monkeypatch, file)


@pytest.mark.parametrize(("greets", "says"), [(False, "it did not answer"), (True, "the connection was lost")])
def test_a_host_that_is_silent_or_hangs_up(
    board: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, greets: bool, says: str
) -> None:
    monkeypatch.setattr(ssh, "CONNECT_S", 2.0)
    with peers.listening(hangs_up=greets) as port:
        file = config(tmp_path, board, (f"Port {port_of(board)}", f"Port {port}"))
        assert says in refused_ssh(monkeypatch, file)


@pytest.mark.parametrize("address", ["-oProxyCommand=touch", "", "pi@", "a b", "host:ssh"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(DeviceError, match=r"is no address; write ssh://\[USER@\]HOST\[:PORT\]"):
        SSH.open(address)


def test_no_clients_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="the program ssh is not installed here"):
        SSH.open("board")
    with pytest.raises(DeviceError, match="the program adb is not installed here"):
        ADB.open("")


def test_the_command_line_says_it_with_4(
    board: Served, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = config(tmp_path, board, (f"{board.folder}/key", f"{board.folder}/host_key"))
    monkeypatch.setenv(ssh.CONFIG, file)
    done = engine("verify", str(bundle), "--on", "ssh://board")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (4, 1), done.stderr


# ------------------------------------------------------------------ over adb


def refused_adb(serial: str) -> str:
    with pytest.raises(DeviceError) as caught:
        ADB.open(serial)
    return str(caught.value)


def test_no_phone_of_that_name(phone: Served, reach: Reach) -> None:
    said = refused_adb(f"no-such-phone{reach(phone)[:0]}")
    assert said == f"adb knows no device 'no-such-phone'; plug it in or run adb connect; there are {phone.address}"


def test_no_phone_at_all(adb_server: peers.Server) -> None:
    assert "there are none" in refused_adb("")


def test_phones_that_have_not_allowed_us_or_have_gone(adb_server: peers.Server) -> None:
    with peers.phone(allows=False) as port:
        serial = adb_server.connect(port)
        assert soon(lambda: "has not allowed this host; unlock it" in refused_adb(serial))


def test_more_than_one_phone(adb_server: peers.Server) -> None:
    with peers.phone(allows=True) as first, peers.phone(allows=True) as second:
        serials = [adb_server.connect(first), adb_server.connect(second)]
        said = refused_adb("")
        assert "leaves open which device" in said
        assert all(serial in said for serial in serials)


def test_a_phone_that_has_hung_up(adb_server: peers.Server) -> None:
    with peers.phone(allows=True) as port:
        serial = adb_server.connect(port)
    said = refused_adb(serial)
    assert "offline" in said or "knows no device" in said


def test_an_adb_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "ANSWER_S", 1.0)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "adb.sock"))
        silent.listen()
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{tmp_path}/adb.sock")
        assert "adb did not answer within 1 s; run adb kill-server" in refused_adb("")


@pytest.fixture
def adb_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[peers.Server]:
    with peers.server(tmp_path) as found:
        for name, value in found.settings.items():
            monkeypatch.setenv(name, value)
        yield found
