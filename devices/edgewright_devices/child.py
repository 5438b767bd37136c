"""A child process of ours: an agent on this machine, or the client that leads to one on another."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO


class ChildProcess:
    """A running command with pipes to its input and output."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Start it in a session of its own, so that an interrupt at the terminal reaches the host alone.

        Raises: OSError when it does not start.
        """
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

    def wait(self, seconds: float) -> int | None:
        """Its exit status, if it ends in that time."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.poll()

    def stop(self) -> None:
        """End it, from any thread."""
        self._process.kill()

    def kill(self) -> None:
        """End it, wait for the end, and let go of its streams."""
        self.stop()
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
