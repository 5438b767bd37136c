"""The connection `local`: this machine, reached through child processes like any other device."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from edgewright.errors import DeviceError
from edgewright.protocols import Connection, Link, Process


class LocalProcess:
    """A running child process."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Start it in a session of its own, so that an interrupt at the terminal reaches the host alone."""
        self._said = ""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError:
            self._errors.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.stdin: IO[bytes] = self._process.stdin
        self.stdout: IO[bytes] = self._process.stdout

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        return self._process.poll()

    def kill(self) -> None:
        """End it, wait for the end, and let go of its streams."""
        self._process.kill()
        self._process.wait()
        self._said = self.errors()
        for stream in (self.stdin, self.stdout, self._errors):
            with suppress(OSError):
                stream.close()

    def errors(self) -> str:
        """What it wrote on its standard error."""
        if self._errors.closed:
            return self._said
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")


class LocalLink:
    """This machine, with a folder for what we keep while the link is open."""

    address = "local"
    python = sys.executable

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
            return LocalProcess(argv)
        except OSError as error:
            raise DeviceError(f"{argv[0]} cannot be started on this machine: {error.strerror}") from error

    def put(self, local: Path, remote: str) -> str:
        """What is here is already on this device: its own place is returned, and nothing is copied."""
        return str(local.resolve())

    def get(self, remote: str, local: Path) -> None:
        """Copy a file or folder to another place. Raises: DeviceError when it is not there."""
        try:
            if Path(remote).is_dir():
                shutil.copytree(remote, local, dirs_exist_ok=True)
            else:
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


LOCAL = Local()


def edgewright_connections() -> Iterable[Connection]:
    """What this module offers."""
    return (LOCAL,)
