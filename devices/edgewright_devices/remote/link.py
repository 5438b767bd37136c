"""An open connection to a device that has a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from edgewright.errors import DeviceError
from edgewright.protocols import Process
from edgewright_devices.child import ChildProcess
from edgewright_devices.remote.shell import Shell, checked, run_script

PREPARE = """umask 077; root={root}
mkdir -p "$root/store" "$root/bundles" "$root/agents" "$root/arrays" || exit 1
cd "$root" && root=$(pwd) || exit 1
find store bundles agents arrays -mindepth 1 -maxdepth 1 \\( -name '.part-*' -mtime +0 -o -mtime +30 \\) \\
  -exec rm -rf {{}} + 2>/dev/null
python=$(command -v python3)
case $("$python" -V 2>/dev/null) in "Python 3.9."* | "Python 3."[1-9][0-9]*) ;; *) python= ;; esac
echo "edgewright:$root:$python"
"""
"""Makes our folder, clears it of what nobody has used for long, and finds Python 3.9 or newer."""


class RemoteLink:
    """Commands and files on one device; everything of ours lies in the folder `root` there."""

    shared = True

    def __init__(self, shell: Shell, folder: str) -> None:
        """`folder` is a path in the device's shell. Raises: DeviceError when it cannot be made there."""
        self._shell = shell
        said = checked(shell, PREPARE.format(root=folder), timeout=60)
        found = [line.split(":", 2) for line in said.splitlines() if line.startswith("edgewright:")]
        if not found:
            raise DeviceError(f"{shell.address} has no shell that answers as sh does; it said {said.strip()[:80]!r}")
        _, root, self.python = found[-1]
        self.root = Path(root)

    @property
    def address(self) -> str:
        """As it was asked for."""
        return self._shell.address

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60) -> tuple[int, bytes, bytes]:
        """Exit status, output and errors. Raises: DeviceError when it takes too long, or the device is not reached."""
        return run_script(self._shell, self._command(argv), stdin, timeout)

    def start(self, argv: Sequence[str]) -> Process:
        """Raises: DeviceError when this host has no client for it."""
        try:
            return ChildProcess(self._shell.client(self._command(argv)))
        except OSError as error:
            raise DeviceError(f"{self.address} cannot be reached: {error.strerror}") from error

    def put(self, local: Path, remote: str) -> str:
        """Copy a file or folder to the device; returns where it lies there. What is there already is not sent."""
        from edgewright_devices.remote import transfer

        return transfer.put(self._shell, str(self.root), local, remote)

    def get(self, remote: str, local: Path) -> None:
        """Raises: DeviceError when it is not there."""
        from edgewright_devices.remote import transfer

        transfer.get(self._shell, remote, local)

    def close(self) -> None:
        """Let go of the device."""
        self._shell.close()

    def _command(self, argv: Sequence[str]) -> str:
        """The command with what `engine device setup` installed in front of Python's own packages."""
        site = shlex.quote(f"{self.root}/site")
        found = f'[ -d {site} ] && export PYTHONPATH={site}"${{PYTHONPATH:+:$PYTHONPATH}}"'
        return f"{found}; exec {shlex.join(argv)}"
