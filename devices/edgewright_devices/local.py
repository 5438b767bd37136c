"""The connection `local`: this machine, reached through child processes like any other device."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgewright.errors import DeviceError
from edgewright.protocols import Connection, Link, Process, Spotted
from edgewright_devices.child import ChildProcess


class LocalLink:
    """This machine, with a folder for what we keep while the link is open."""

    address = "local"
    python = sys.executable
    shared = False

    def __init__(self) -> None:
        """Make the folder."""
        self.root = Path(tempfile.mkdtemp(prefix="edgewright-"))

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60) -> tuple[int, bytes, bytes]:
        """Exit status, output and errors. Raises: DeviceError when it takes too long or does not start."""
        try:
            done = subprocess.run(list(argv), input=stdin, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{argv[0]} took more than {timeout:g} s on this machine") from None
        except OSError as error:
            raise DeviceError(f"{argv[0]} cannot be started on this machine: {error.strerror}") from error
        return done.returncode, done.stdout, done.stderr

    def start(self, argv: Sequence[str]) -> Process:
        """Raises: DeviceError when it does not start."""
        try:
            return ChildProcess(argv)
        except OSError as error:
            raise DeviceError(f"{argv[0]} cannot be started on this machine: {error.strerror}") from error

    def put(self, local: Path, remote: str) -> str:
        """What is here is already on this device: its own place is returned, and nothing is copied."""
        return str(local.resolve())

    def get(self, remote: str, local: Path) -> None:
        """Copy a file to another place. Raises: DeviceError when it is not there."""
        try:
            shutil.copyfile(remote, local)
        except OSError as error:
            raise DeviceError(f"{remote} cannot be copied to {local}: {error.strerror}") from error

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.root, ignore_errors=True)


class Local:
    """Reaches this machine; the address is empty."""

    scheme = "local"

    def open(self, address: str) -> Link:
        """Raises: DeviceError for an address, since there is only one machine here."""
        if address:
            raise DeviceError(f"local takes no address, found {address!r}; write --on local")
        return LocalLink()

    def discover(self, *, configured: bool = False) -> Iterable[Spotted]:
        """None: this machine is the host, and every verb's default."""
        return ()


LOCAL = Local()


def edgewright_connections() -> Iterable[Connection]:
    """What this module offers."""
    return (LOCAL,)
