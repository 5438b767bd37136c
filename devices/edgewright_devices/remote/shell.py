"""A shell on a device, reached through a client program of this host, and scripts that run in it."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from typing import Protocol

from edgewright.errors import DeviceError

GRACE_S = 15.0
"""How much longer than the device itself the host waits for the end of a script."""

TIMED = 'limited() { if command -v timeout >/dev/null 2>&1; then timeout -k 2 "$@"; else shift; "$@"; fi; }\n'
"""Ends a command on the device, also when nobody on the host is left to do it."""

TOOK_TOO_LONG = 124
"""What `timeout` ends with."""


class Shell(Protocol):
    """How to run `sh` on one device."""

    @property
    def address(self) -> str: ...
    def client(self, script: str) -> Sequence[str]:
        """The command of this host whose input, output and exit status are those of the script on the device."""
        ...

    def trouble(self, status: int, errors: str) -> str:
        """Why the client itself failed, with the way out; nothing when the script ran and ended with `status`."""
        ...

    def close(self) -> None: ...


def run_script(shell: Shell, script: str, stdin: bytes = b"", timeout: float = 60) -> tuple[int, bytes, bytes]:
    """Exit status, output and errors of a script.

    Raises: DeviceError when the device is not reached or the script takes longer than `timeout` seconds; it is ended.
    """
    timed = f"{TIMED}limited {max(1, round(timeout))} sh -c {shlex.quote(script)}"
    try:
        done = subprocess.run(
            shell.client(timed), input=stdin, capture_output=True, timeout=timeout + GRACE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{shell.address} did not answer within {timeout:g} s") from None
    except OSError as error:
        raise DeviceError(f"{shell.address} cannot be reached: {error.strerror}") from error
    if trouble := shell.trouble(done.returncode, done.stderr.decode(errors="replace")):
        raise DeviceError(trouble)
    if done.returncode == TOOK_TOO_LONG:
        raise DeviceError(f"a command on {shell.address} took more than {timeout:g} s and was ended")
    return done.returncode, done.stdout, done.stderr


def checked(shell: Shell, script: str, stdin: bytes = b"", timeout: float = 60) -> str:
    """The output of a script. Raises: DeviceError when it fails, with the last thing it said."""
    status, output, errors = run_script(shell, script, stdin, timeout)
    if status:
        raise DeviceError(failure(shell, status, errors.decode(errors="replace")))
    return output.decode(errors="replace")


def failure(shell: Shell, status: int, errors: str) -> str:
    """One sentence on a script that failed on the device."""
    said = (errors.strip().splitlines() or [f"exit status {status}"])[-1]
    if "No space left" in errors:
        return f"{shell.address} has no space left: {said}; free some there, or remove what lies in .edgewright/bundles"
    return f"{shell.address} could not do it: {said}"
