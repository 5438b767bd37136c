"""What goes wrong between a host and a device: one sentence each time, nothing left there, and the next run works."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import peers
from edgewright.agent import Agent, start_agent
from edgewright.bundle import open_bundle
from edgewright.errors import DeviceError, PluginError
from edgewright.protocols import Link
from edgewright_devices import adb, ssh
from edgewright_devices.adb import ADB
from edgewright_devices.ssh import SSH
from served import Installed, Served, ssh_device
from small import engine

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

Reach = Callable[[Served], str]
ADDRESSES = {"ssh": SSH, "adb": ADB}


@contextmanager
def linked(address: str) -> Generator[Link]:
    scheme, _, rest = address.partition("://")
    link = ADDRESSES[scheme].open(rest)
    try:
        yield link
    finally:
        link.close()


def soon(true: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(params=["board", "phone"])
def device(request: pytest.FixtureRequest, reach: Reach) -> Served:
    found: Served = request.getfixturevalue(request.param)
    reach(found)
    return found


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agents")


@pytest.fixture
def usable(device: Served, agents: Path) -> Generator[Served]:
    """The device; after the fault nothing of ours runs there, nothing is half done, and it can be used again."""
    yield device
    reconnect(device)
    for word in ("agent-", "sleep 98", "tar -xf"):
        assert soon(lambda word=word: not device.running(word)), word
    with linked(device.address) as link:
        assert not halves(link)
        with start_agent(link, agents) as agent:
            assert agent.ask("ping") == {}


def halves(link: Link) -> str:
    _, found, _ = link.run(["find", str(link.root), "-name", ".part-*"])
    return found.decode()


def content(folder: Path, megabytes: float) -> Path:
    file = folder / "content"
    file.write_bytes(secrets.token_bytes(int(megabytes * 1e6)))
    return file


# ------------------------------------------------------------------ no way to it, over ssh


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


# ------------------------------------------------------------------ no way to it, over adb


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


# ------------------------------------------------------------------ what dies on the way


@contextmanager
def agent_on(device: Served, agents: Path) -> Generator[tuple[Link, Agent]]:
    with linked(device.address) as link, start_agent(link, agents) as agent:
        yield link, agent


def kill(processes: Sequence[int], how: int = signal.SIGKILL) -> None:
    assert processes
    for each in processes:
        os.kill(each, how)


def test_the_agent_is_killed(usable: Served, agents: Path) -> None:
    with agent_on(usable, agents) as (_, agent):
        kill(usable.running("agent-"))
        with pytest.raises(DeviceError, match="was lost during 'ping'"):
            agent.ask("ping")


def test_the_worker_is_killed(usable: Served, agents: Path, bundle: Path) -> None:
    with agent_on(usable, agents) as (_, agent):
        opened = agent.open(bundle)
        kill(usable.running(" worker "))
        with pytest.raises(PluginError, match="ended by SIGKILL"):
            agent.memory(opened)
        assert agent.memory(agent.open(bundle))["peak_bytes"]


def test_the_worker_hangs(usable: Served, agents: Path, bundle: Path) -> None:
    with agent_on(usable, agents) as (_, agent):
        agent.open(bundle)
        kill(usable.running(" worker "), signal.SIGSTOP)
        with pytest.raises(DeviceError, match=r"did not answer 'memory' within 0\.5 s; it was stopped"):
            agent.ask("memory", handle=f"{open_bundle(bundle).digest[:8]}-2", timeout=0.5)


def test_a_command_hangs(usable: Served) -> None:
    with linked(usable.address) as link, pytest.raises(DeviceError, match="took more than 1 s and was ended"):
        link.run(["sleep", "987"], timeout=1)


def test_the_way_is_lost_while_an_agent_works(usable: Served, agents: Path) -> None:
    with agent_on(usable, agents) as (_, agent):
        cut(usable)
        with pytest.raises(DeviceError, match="was lost during"):
            agent.ask("device")


def cut(device: Served) -> None:
    """The connection breaks: what serves it on the device dies, or adb hangs up."""
    if device.address.startswith("ssh"):
        kill(device.running("sshd-session"))
    else:
        tell_adb("disconnect", device)


def tell_adb(what: str, device: Served) -> None:
    env = {**os.environ, **device.settings}
    subprocess.run(["adb", what, device.address[6:]], env=env, check=True, capture_output=True, timeout=20)


def test_the_way_is_lost_while_a_file_is_sent(usable: Served, tmp_path: Path) -> None:
    file = content(tmp_path, 40)
    with linked(usable.address) as link, pytest.raises(DeviceError):
        threading.Thread(target=_cut_when_sending, args=(usable,)).start()
        link.put(file, "arrays/lost")
    reconnect(usable)
    with linked(usable.address) as link:
        assert link.run(["ls", f"{link.root}/arrays/lost"])[0] != 0
        link.put(file, "arrays/lost")


def _cut_when_sending(device: Served) -> None:
    assert soon(lambda: bool(device.running("tar -xf -")))
    cut(device)


def reconnect(device: Served) -> None:
    """As a user plugs a phone in again; ssh does it by itself."""
    if device.address.startswith("adb"):
        tell_adb("connect", device)
        assert soon(lambda: adb.attached().get(device.address[6:]) == "device")


HOST = """
import sys
from pathlib import Path
from edgewright_devices.{0} import {1}
link = {1}.open(sys.argv[1])
{2}
"""
HOLD = """
import time
from edgewright.agent import start_agent
with start_agent(link, Path(sys.argv[2])):
    time.sleep(600)
"""
SEND = 'link.put(Path(sys.argv[2]), "arrays/killed")'


@pytest.mark.parametrize("what", ["holds", "sends"])
def test_the_host_is_killed(usable: Served, agents: Path, tmp_path: Path, what: str) -> None:
    scheme, _, address = usable.address.partition("://")
    word, does, given = ("agent-", HOLD, agents) if what == "holds" else ("tar -xf -", SEND, content(tmp_path, 60))
    script = HOST.format(scheme, scheme.upper(), does)
    with subprocess.Popen([sys.executable, "-c", script, address, str(given)], stdout=subprocess.PIPE) as host:
        try:
            assert soon(lambda: bool(usable.running(word)))
        finally:
            host.kill()
    assert soon(lambda: not usable.running(word))


# ------------------------------------------------------------------ what does not fit, or is not what it should be


@contextmanager
def full(device: Served, link: Link, what: str, option: str) -> Generator[None]:
    """Leaves the device's disk a little of `what` (a column of df) until the block ends."""
    place = f"{device.root}/{'home' if device.address.startswith('ssh') else 'data'}"
    used = int(device.inside(f"df --output={what} {place}").split()[-1])
    device.inside(f"mount -o remount,{option}={used + 8}{'k' if option == 'size' else ''} {place}")
    try:
        yield
    finally:
        device.inside(f"mount -o remount,size=2g,nr_inodes=200k {place}")


def test_the_disk_is_too_small(usable: Served, tmp_path: Path) -> None:
    with linked(usable.address) as link, full(usable, link, "used", "size"):
        with pytest.raises(DeviceError, match=r"has 0 MB left at .*, and 3 MB are to be copied; free some there"):
            link.put(content(tmp_path, 3), "arrays/large")
        assert link.run(["ls", f"{link.root}/arrays/large"])[0] != 0


def test_the_disk_fills_up_meanwhile(usable: Served, tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i}").write_bytes(secrets.token_bytes(100))
    with linked(usable.address) as link, full(usable, link, "iused", "nr_inodes"):
        with pytest.raises(DeviceError, match=r"has no space left: .*; free some there"):
            link.put(tmp_path, "bundles/many")
        assert link.run(["ls", f"{link.root}/bundles/many"])[0] != 0


def test_what_was_stored_is_damaged(usable: Served, tmp_path: Path) -> None:
    file = content(tmp_path, 0.1)
    with linked(usable.address) as link:
        place = link.put(file, "arrays/kept")
        link.run(["sh", "-c", f"echo more >>{place}"])
        link.get(link.put(file, "arrays/kept"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_what_nobody_finished_goes_by_age(usable: Served) -> None:
    with linked(usable.address) as link:
        link.run(["sh", "-c", f"cd {link.root} && mkdir bundles/.part-1 && touch -d '3 days ago' bundles/.part-1"])
    with linked(usable.address) as link:
        assert not halves(link)


def test_two_clients_at_once(usable: Served, agents: Path) -> None:
    busy = rf"the device is in use by .*, process {os.getpid()}; wait for its end"
    with agent_on(usable, agents), linked(usable.address) as other, pytest.raises(DeviceError, match=busy):
        start_agent(other, agents).__enter__()


@pytest.mark.parametrize("when", ["1980-01-01", "2099-01-01"])
def test_a_lock_that_was_left_counts_for_nothing_whatever_the_clocks_say(
    usable: Served, agents: Path, when: str
) -> None:
    with linked(usable.address) as link:
        link.run(["sh", "-c", f"echo somebody >{link.root}/lock && touch -d {when} {link.root}/lock"])
        with start_agent(link, agents) as agent:
            assert agent.ask("ping") == {}


# ------------------------------------------------------------------ devices that lack something


def test_packages_for_another_python(
    trixie: Installed, bullseye: Installed, start: Any, reach: Reach, agents: Path, bundle: Path
) -> None:
    """Debian 11 with what `device setup` installed for 13, as after an upgrade of the system."""
    mixed = Installed(bullseye.system, bullseye.root, trixie.site, bullseye.pycache)
    device = start(ssh_device, mixed)
    reach(device)
    with agent_on(device, agents) as (_, agent), pytest.raises(DeviceError, match=r"cannot be imported.*device setup"):
        agent.open(bundle)


def test_a_device_that_is_switched_off(trixie: Installed, start: Any, reach: Reach, agents: Path) -> None:
    device = start(ssh_device, trixie, ready=False)
    reach(device)
    with agent_on(device, agents) as (_, agent):
        device.stop()
        with pytest.raises(DeviceError, match="was lost during 'ping'"):
            agent.ask("ping")
    with pytest.raises(DeviceError, match="nothing listens on its port"):
        SSH.open("board")
