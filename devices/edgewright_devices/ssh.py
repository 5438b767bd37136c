"""The connection `ssh`: a device behind the system's OpenSSH client, with the user's own configuration and keys."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgewright.errors import DeviceError
from edgewright.protocols import Connection, Link, Spotted
from edgewright_devices.child import ChildProcess
from edgewright_devices.remote.link import RemoteLink
from edgewright_devices.sshconfig import hosts

CONFIG = "EDGEWRIGHT_SSH_CONFIG"
"""Names a configuration file to use in the place of ~/.ssh/config."""

USER_CONFIG = "~/.ssh/config"
CONNECT_S = 30.0
ALIVE = ("ServerAliveInterval=10", "ServerAliveCountMax=3")
"""A device that says nothing for 30 s is lost."""

LOST = 255
"""What ssh ends with when it fails itself; a command may end with it too."""

ADDRESS = re.compile(
    r"""( (?: [^@:/\s-] [^@:/\s]* @ )?                                  # a user; no option of ssh begins an address
          (?: \[ [0-9a-fA-F:.]+ (?:%[\w.-]+)? \] | [^@:/\s\[\]-] [^@:/\s\[\]]* ) )  # an address of IPv6, or a name
        (?: : (\d{1,5}) )?""",
    re.VERBOSE,
)
READY = "edgewright-ready"
FOLDER = '"$HOME/.edgewright"'

TROUBLES: Sequence[tuple[str, str]] = (
    ("HOST IDENTIFICATION HAS CHANGED", "its host key has changed; if it was set up anew, run ssh-keygen -R {host}"),
    ("Host key verification failed", "its host key is not known; check it once with ssh {name}"),
    ("Permission denied", "it takes none of your keys, and passwords are not asked for; run ssh-copy-id {name}"),
    ("Could not resolve hostname", "no host has that name; check the address or ~/.ssh/config"),
    ("Connection refused", "nothing listens on its port; is sshd running there?"),
    ("No route to host", "there is no way to it; is it on, and in this network?"),
    ("timed out", "it did not answer; is it on, and in this network?"),
    ("Bad configuration option", "the ssh configuration is not understood: {said}"),
    ("Can't open user config file", "the ssh configuration is not there: {said}"),
)  # fmt: skip
"""What ssh says, and what to tell of it."""


class SshShell:
    """One device, reached through a connection that is opened once and shared by all commands."""

    def __init__(self, destination: str, port: str) -> None:
        """Raises: DeviceError with the reason and the way out when it cannot be reached."""
        self._name = destination if not port else f"-p {port} {destination}"
        self.address = f"ssh://{destination}{':' if port else ''}{port}"
        self._folder = Path(tempfile.mkdtemp(prefix="edgewright-ssh-"))
        config = os.environ.get(CONFIG)
        options = ("BatchMode=yes", f"ConnectTimeout={CONNECT_S:g}", f"ControlPath={self._folder}/%C", *ALIVE)
        self._ssh = ["ssh", *(["-F", config] if config else []), "-T", "-a", "-x"]
        self._ssh += [word for option in options for word in ("-o", option)]
        self._to = [*(["-p", port] if port else []), "--", destination]
        try:
            self._master = self._connect()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def client(self, script: str) -> Sequence[str]:
        """The command of this host that runs the script there."""
        return [*self._ssh, "-o", "ControlMaster=no", *self._to, f"exec sh -c {shlex.quote(script)}"]

    def trouble(self, status: int, errors: str) -> str:
        """Why ssh itself failed; nothing when the script ran."""
        if status != LOST:
            return ""
        said = _own_words(errors)
        known = (what for sign, what in TROUBLES if sign in errors)
        reason = next(known, f"the connection was lost: {said}" if said else "the connection was lost")
        host = self._to[-1].rpartition("@")[2]
        return f"{self.address} cannot be reached: {reason.format(name=self._name, host=host, said=said)}"

    def close(self) -> None:
        """End the shared connection, and with it whatever still runs over it."""
        self._master.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self) -> ChildProcess:
        """A client that holds the connection for as long as this process lives: the end of its input ends it."""
        script = f"echo {READY}; exec cat >/dev/null"
        try:
            master = ChildProcess([*self._ssh, "-o", "ControlMaster=yes", "-o", "ControlPersist=no", *self._to, script])
        except OSError as error:
            raise DeviceError(f"{self.address} cannot be reached: the program ssh is not installed here") from error
        late = threading.Timer(CONNECT_S, master.stop)
        late.start()
        try:
            ready = any(line.strip() == READY.encode() for line in master.stdout)
        finally:
            late.cancel()
        if not ready:
            status = master.wait(1)
            master.kill()
            raise DeviceError(self.trouble(LOST, master.errors() if status == LOST else "timed out"))
        return master


def _own_words(errors: str) -> str:
    """The last line of ssh's that is not the server's banner."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else ""


class Ssh:
    """Reaches a device as `ssh` does; the address is [USER@]HOST[:PORT], HOST may be a name of ~/.ssh/config."""

    scheme = "ssh"

    def open(self, address: str) -> Link:
        """Raises: DeviceError when the address is none, or the device is not reached."""
        match = ADDRESS.fullmatch(address.removesuffix("/"))
        if not match:
            raise DeviceError(f"ssh://{address} is no address; write ssh://[USER@]HOST[:PORT]")
        shell = SshShell(match[1].replace("[", "").replace("]", ""), match[2] or "")
        try:
            return RemoteLink(shell, FOLDER)
        except BaseException:
            shell.close()
            raise

    def discover(self, *, configured: bool = False) -> Iterable[Spotted]:
        """The hosts that the user's configuration names, where they are asked for; none is connected to."""
        if not configured:
            return ()
        return tuple(
            Spotted(f"ssh://{host}") for host in hosts(Path(os.environ.get(CONFIG) or USER_CONFIG).expanduser())
        )


SSH = Ssh()


def edgewright_connections() -> Iterable[Connection]:
    """What this module offers."""
    return (SSH,)
