"""A device with a connection and an agent that one test leaves to the next, made anew where they were lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgewright.agents.agent import Agent, start_agent
from edgewright.errors import DeviceError
from edgewright.protocols import Connection, Link
from edgewright_devices import adb
from edgewright_devices.adb import ADB
from edgewright_devices.ssh import SSH
from emulated import Served

CONNECTIONS: Mapping[str, Connection] = {"ssh": SSH, "adb": ADB}
OURS = ("sleep 98", "tar -xmf")
"""Words in the commands of what we run on a device beside the agent."""


@contextmanager
def linked(address: str) -> Generator[Link]:
    """A connection of its own."""
    scheme, _, rest = address.partition("://")
    link = CONNECTIONS[scheme].open(rest)
    try:
        yield link
    finally:
        link.close()


def soon(true: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Reached:
    """A device, the connection to it, and the agent that runs there."""

    def __init__(self, device: Served, agents: Path) -> None:
        """`agents` keeps the packed agent."""
        self.device = device
        self.agents = agents
        self._link: Link | None = None
        self._agent: Agent | None = None
        self._linked = ExitStack()
        self._started = ExitStack()

    @property
    def address(self) -> str:
        """Where it is."""
        return self.device.address

    @property
    def link(self) -> Link:
        """The connection."""
        if self._link is None:
            self._link = self._linked.enter_context(linked(self.address))
        return self._link

    @property
    def agent(self) -> Agent:
        """The agent, started where none is."""
        if self._agent is None:
            self._agent = self._started.enter_context(start_agent(self.link, self.agents))
        return self._agent

    def running(self, word: str) -> Sequence[int]:
        """The device's processes with that word in their command, by the number that this host gives them."""
        return self.device.running(word)

    def workers(self) -> Sequence[int]:
        """The processes that hold a model: those that were forked from the one that was forked from the agent."""
        kin = self.running("agent-")
        return [each for each in kin if _parent(each) in kin and _parent(_parent(each)) in kin]

    def end_agent(self) -> None:
        """Let go of the agent, whatever has become of it. What we ran there ends then."""
        self._started.close()
        self._agent = None
        self._gone("agent-")

    def recover(self) -> None:
        """An agent answers: the same one where nothing has happened to it, else another. Nothing else of ours runs."""
        try:
            self.agent.ask("ping")
        except DeviceError:
            self.end_agent()
            self.agent.ask("ping")
        for word in OURS:
            self._gone(word)
        assert soon(lambda: len(self._agents()) == 1)

    def _agents(self) -> Sequence[int]:
        """The agents; what one has forked looks alike."""
        kin = self.running(".pyz")
        return [each for each in kin if _parent(each) not in kin]

    def _gone(self, word: str) -> None:
        assert soon(lambda: not self.running(word)), word

    def cut(self) -> None:
        """The connection breaks: what serves it on the device dies, or adb hangs up."""
        if self.address.startswith("ssh"):
            kill(self.running("sshd-session"))
        else:
            self._tell_adb("disconnect")

    def mend(self) -> None:
        """Connect anew, as a user plugs a phone in again; ssh does it by itself."""
        self.close()
        if self.address.startswith("adb"):
            self._tell_adb("connect")
            assert soon(lambda: adb.attached().get(self.address[6:]) == "device")
        self._gone("agent-")

    def close(self) -> None:
        """Let go of the device."""
        self._started.close()
        self._linked.close()
        self._link = self._agent = None

    def _tell_adb(self, what: str) -> None:
        env = {**os.environ, **self.device.settings}
        subprocess.run(["adb", what, self.address[6:]], env=env, check=True, capture_output=True, timeout=20)


def kill(processes: Sequence[int], how: int = signal.SIGKILL) -> None:
    """End processes by a signal; there are some."""
    assert processes
    for each in processes:
        os.kill(each, how)


def _parent(pid: int) -> int:
    """0 of a process that has just ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
