"""What goes wrong on a device and on the way to it: one sentence, nothing left there, and the next run works."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edgewright.agents.agent import start_agent
from edgewright.errors import DeviceError, PluginError
from edgewright.protocols import Link
from edgewright_devices.ssh import SSH
from emulated import Served
from reached import Reached, kill, linked, soon
from served import ssh_device
from systems import Installed

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

Reach = Callable[[Served], str]


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agents")


@pytest.fixture(scope="module", params=["board", "phone"])
def reached(request: pytest.FixtureRequest, agents: Path) -> Generator[Reached]:
    found = Reached(request.getfixturevalue(request.param), agents)
    yield found
    found.close()


@pytest.fixture
def usable(reached: Reached, reach: Reach) -> Generator[Reached]:
    """The device; after the fault nothing of ours runs on there, nothing is half done, and an agent answers."""
    reach(reached.device)
    yield reached
    reached.recover()
    assert not halves(reached.link)


@pytest.fixture
def breakable(usable: Reached) -> Generator[Reached]:
    """The same where the connection is lost on the way."""
    yield usable
    usable.mend()


def halves(link: Link) -> str:
    _, found, _ = link.run(["find", str(link.root), "-name", ".part-*"])
    return found.decode()


def content(folder: Path, megabytes: float) -> Path:
    file = folder / "content"
    file.write_bytes(secrets.token_bytes(int(megabytes * 1e6)))
    return file


def signalled(processes: Sequence[int], how: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for each in processes:
        with suppress(ProcessLookupError):
            os.kill(each, how)


# ------------------------------------------------------------------ what dies on the way


def test_the_agent_is_killed(usable: Reached) -> None:
    agent = usable.agent
    kill(usable.running("agent-"))
    with pytest.raises(DeviceError, match="was lost during 'ping'"):
        agent.ask("ping")


def test_the_worker_is_killed(usable: Reached, bundle: Path) -> None:
    agent = usable.agent
    opened = agent.open(bundle)
    kill(usable.workers())
    with pytest.raises(PluginError, match="ended by SIGKILL"):
        agent.memory(opened)
    assert agent.memory(agent.open(bundle))["peak_bytes"]


def test_the_worker_hangs(usable: Reached, bundle: Path) -> None:
    opened = usable.agent.open(bundle)
    kill(usable.workers(), signal.SIGSTOP)
    with pytest.raises(DeviceError, match=r"did not answer 'memory' within 0\.5 s; it was stopped"):
        usable.agent.ask("memory", handle=opened.handle, timeout=0.5)


def test_a_command_hangs(usable: Reached) -> None:
    with pytest.raises(DeviceError, match="took more than 1 s and was ended"):
        usable.link.run(["sleep", "987"], timeout=1)


def test_the_way_is_lost_while_an_agent_works(breakable: Reached) -> None:
    agent = breakable.agent
    breakable.cut()
    with pytest.raises(DeviceError, match="was lost during"):
        agent.ask("device")


def test_the_way_is_lost_while_a_file_is_sent(breakable: Reached, tmp_path: Path) -> None:
    file, link = content(tmp_path, 100), breakable.link

    def cut_when_sending() -> None:
        receiving: list[int] = []
        assert soon(lambda: bool(receiving.extend(breakable.running("tar -xmf -")) or receiving))
        signalled(receiving, signal.SIGSTOP)  # or all of it may have come meanwhile
        breakable.cut()
        signalled(receiving, signal.SIGCONT)

    cutting = threading.Thread(target=cut_when_sending)
    cutting.start()
    with pytest.raises(DeviceError):
        link.put(file, "arrays/lost")
    cutting.join()
    breakable.mend()
    assert breakable.link.run(["ls", f"{link.root}/arrays/lost"])[0] != 0
    breakable.link.put(file, "arrays/lost")


HOST = """
import sys
from pathlib import Path
from edgewright_devices.{0} import {1}
link = {1}.open(sys.argv[1])
{2}
"""
HOLD = """
import time
from edgewright.agents.agent import start_agent
with start_agent(link, Path(sys.argv[2])):
    time.sleep(600)
"""
SEND = 'link.put(Path(sys.argv[2]), "arrays/killed")'


@pytest.mark.parametrize("what", ["holds", "sends"])
def test_the_host_is_killed(usable: Reached, tmp_path: Path, what: str) -> None:
    usable.end_agent()
    scheme, _, address = usable.address.partition("://")
    word, does = ("agent-", HOLD) if what == "holds" else ("tar -xmf -", SEND)
    given = usable.agents if what == "holds" else content(tmp_path, 60)
    script = HOST.format(scheme, scheme.upper(), does)
    with subprocess.Popen([sys.executable, "-c", script, address, str(given)], stdout=subprocess.PIPE) as host:
        try:
            assert soon(lambda: bool(usable.running(word)))
        finally:
            host.kill()
    assert soon(lambda: not usable.running(word))


# ------------------------------------------------------------------ what does not fit, or is not what it should be


@contextmanager
def full(device: Served, what: str, option: str) -> Generator[None]:
    """Leaves the device's disk a little of `what` (a column of df) until the block ends."""
    place = f"{device.root}/{'home' if device.address.startswith('ssh') else 'data'}"
    used = int(device.inside(f"df --output={what} {place}").split()[-1])
    device.inside(f"mount -o remount,{option}={used + 8}{'k' if option == 'size' else ''} {place}")
    try:
        yield
    finally:
        device.inside(f"mount -o remount,size=2g,nr_inodes=200k {place}")


def test_the_disk_is_too_small(usable: Reached, tmp_path: Path) -> None:
    link = usable.link
    with full(usable.device, "used", "size"):
        with pytest.raises(DeviceError, match=r"has 0 MB left at .*, and 3 MB are to be copied; free some there"):
            link.put(content(tmp_path, 3), "arrays/large")
        assert link.run(["ls", f"{link.root}/arrays/large"])[0] != 0


def test_the_disk_fills_up_meanwhile(usable: Reached, tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i}").write_bytes(secrets.token_bytes(100))
    link = usable.link
    with full(usable.device, "iused", "nr_inodes"):
        with pytest.raises(DeviceError, match=r"has no space left: .*; free some there"):
            link.put(tmp_path, "bundles/many")
        assert link.run(["ls", f"{link.root}/bundles/many"])[0] != 0


def test_what_was_stored_is_damaged(usable: Reached, tmp_path: Path) -> None:
    file, link = content(tmp_path, 0.1), usable.link
    place = link.put(file, "arrays/kept")
    link.run(["sh", "-c", f"echo more >>{place}"])
    link.get(link.put(file, "arrays/kept"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_what_nobody_finished_goes_by_age(usable: Reached) -> None:
    link = usable.link
    link.run(["sh", "-c", f"cd {link.root} && mkdir bundles/.part-1 && touch -d '3 days ago' bundles/.part-1"])
    assert halves(link)
    with linked(usable.address) as another:
        assert not halves(another)


def test_two_clients_at_once(usable: Reached) -> None:
    busy = rf"the device is in use by .*, process {os.getpid()}; it came .* ago, .*; wait for its end"
    assert usable.agent.ask("ping") == {}
    with linked(usable.address) as other, pytest.raises(DeviceError, match=busy):
        start_agent(other, usable.agents).__enter__()
    assert usable.agent.ask("ping") == {}


@pytest.mark.parametrize("when", ["1980-01-01", "2099-01-01"])
def test_a_lock_that_was_left_counts_for_nothing_whatever_the_clocks_say(usable: Reached, when: str) -> None:
    usable.end_agent()
    lock = f"{usable.link.root}/lock"
    usable.link.run(["sh", "-c", f"echo somebody >{lock} && touch -d {when} {lock}"])
    assert usable.agent.ask("ping") == {}


# ------------------------------------------------------------------ devices that lack something


def test_packages_for_another_python(
    trixie: Installed, bullseye: Installed, start: Any, reach: Reach, agents: Path, bundle: Path
) -> None:
    """Debian 11 with what `device setup` installed for 13, as after an upgrade of the system."""
    mixed = Installed(bullseye.system, bullseye.root, trixie.site, bullseye.pycache)
    address = reach(start(ssh_device, mixed))
    refused = pytest.raises(DeviceError, match=r"cannot be imported.*device setup")
    with linked(address) as link, start_agent(link, agents) as agent, refused:
        agent.open(bundle)


def test_a_device_that_is_switched_off(trixie: Installed, start: Any, reach: Reach, agents: Path) -> None:
    device = start(ssh_device, trixie, ready=False)
    with linked(reach(device)) as link, start_agent(link, agents) as agent:
        device.stop()
        with pytest.raises(DeviceError, match="was lost during 'ping'"):
            agent.ask("ping")
    assert soon(lambda: "nothing listens on its port" in unreached())  # its port is closed a moment later


def unreached() -> str:
    with pytest.raises(DeviceError) as caught:
        SSH.open("board")
    return str(caught.value)
