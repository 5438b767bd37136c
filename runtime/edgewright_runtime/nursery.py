"""Workers that need not start from nothing: a process imports the libraries once, and every worker is forked from it.

Importing numpy and a runtime takes most of a second, on a small board several, and a comparison opens dozens of
workers. A forked one has its own memory, threads and affinity, as a new process has; only the libraries lie at the
same addresses. What the forked process allocates begins at a place drawn at random (`_scatter`), so that two workers
with the same model differ as two new processes do. The process is a fork itself, of the supervisor, in which Python
and our own modules have started already.

A process with threads cannot be forked safely: the thread that holds a lock is not there to give it back. Libraries
that start one when they are imported are left for the workers to import (`Runtime.prepare` says what may be).
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import random
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, Optional

from edgewright.errors import PluginError
from edgewright_runtime.channel import Lines, wait_for
from edgewright_runtime.process import die_with_parent
from edgewright_runtime.workers import Streams, epitaph

POSSIBLE = sys.platform == "linux"
"""Elsewhere a forked process may not call the system's own libraries, or there is no fork."""

MESSAGE = 1 << 16
"""Bytes; a packet is one message."""

HEAP, PAGES = 4096, 4096
"""The most that the heap (in units of 16 bytes) and new mappings (in pages) of a worker are moved by."""


# ------------------------------------------------------------------ the supervisor's side


class Nursery:
    """The process that workers are forked from, seen from the supervisor."""

    def __init__(self, preparing: Mapping[str, Any], watched: Lines) -> None:
        """Start it; it begins to import what `preparing` names: `runtimes` (name to `module:object`) and `path`.

        `watched` is where the supervisor's own requests come in.
        """
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._watched = watched
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._pid = _begin(theirs.fileno(), self._errors.fileno())
        self._status: Optional[int] = None
        self._lines = Lines(self._socket.fileno())
        self._send(preparing)
        self._fit: Optional[bool] = None

    def fit(self) -> bool:
        """Whether workers can be forked from it, once all is imported. Raises: PluginError when it died of that."""
        if self._fit is None:
            self._fit = bool(self._answer(watch=True)["fit"])
        return self._fit

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._ended(os.WNOHANG) is None

    def start(self, streams: Streams) -> Forked:
        """Fork a worker (see workers.Start). Raises: PluginError when the process is gone."""
        self._send({}, *streams)
        return Forked(self._answer(watch=True)["pid"], self)

    def wait(self, pid: int) -> Optional[int]:
        """The exit status of a worker, negative for a signal; None when nobody is left to tell."""
        try:
            self._send({"wait": pid})
            return self._answer(watch=False)["status"]
        except PluginError:
            return None

    def stop(self) -> None:
        """End it, and every worker that was forked from it."""
        if self.alive:
            os.kill(self._pid, signal.SIGKILL)
            self._ended()
        self._socket.close()
        self._errors.close()

    def _ended(self, how: int = 0) -> Optional[int]:
        """Its exit status, negative for a signal; None while it runs, where `how` is not to wait for its end."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, how)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def _send(self, message: Mapping[str, Any], *descriptors: int) -> None:
        with suppress(BrokenPipeError):  # told by the answer that does not come
            socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors)

    def _answer(self, *, watch: bool) -> dict[str, Any]:
        line = wait_for(self._lines, self._watched) if watch else self._lines.next()
        if line is None:
            self._errors.seek(0)
            raise PluginError(epitaph(self._ended(), self._errors.read(), "open"))
        return json.loads(line)


class Forked:
    """A worker that was forked (see workers.Started)."""

    def __init__(self, pid: int, nursery: Nursery) -> None:
        """`nursery` is its parent."""
        self.pid = pid
        self._nursery = nursery
        self._ended = False
        self._status: Optional[int] = None

    def kill(self) -> None:
        """End it; its number is not given to another process before `wait`."""
        if not self._ended:
            with suppress(ProcessLookupError):  # its parent died, and it with it
                os.kill(self.pid, 9)

    def wait(self) -> Optional[int]:
        """Its exit status."""
        if not self._ended:
            self._status, self._ended = self._nursery.wait(self.pid), True
        return self._status


# ------------------------------------------------------------------ the process itself


def _begin(told: int, errors: int) -> int:
    """Fork this process; the other one serves what comes in at `told` and never returns. Its process id."""
    ourselves = os.getpid()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = main(ourselves, _only(told, errors))
        except BaseException:  # noqa: BLE001 - what is above us on the stack is the supervisor's
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def _only(told: int, errors: int) -> socket.socket:
    """Let go of every descriptor but these: the supervisor's lock and pipes are to end with it."""
    ours = os.dup(told)
    for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), errors, errors)):
        os.dup2(descriptor, number)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in (0, 1, 2, ours):
            with suppress(OSError):  # the listing's own
                os.close(descriptor)
    return socket.socket(fileno=ours)


def main(parent: int, told: socket.socket) -> int:
    """Import what the first message names, then fork a worker, or wait for one, at every other message."""
    from edgewright_runtime import worker

    die_with_parent(parent)
    first, _ = _receive(told)
    with suppress(Exception):  # a worker that cannot import it either says so
        import_module("numpy")
    threads = _threads()  # of numpy's BLAS, which ends them before a fork and starts them again
    with suppress(Exception):
        worker.prepare(first["runtimes"], first["path"])
    gc.collect()
    gc.freeze()  # or the first collection in every worker would copy all of it
    _reply(told, {"fit": _threads() == threads})
    while True:
        message, descriptors = _receive(told)
        if message is None:
            return 0
        if "wait" in message:
            _reply(told, {"status": os.waitstatus_to_exitcode(os.waitpid(message["wait"], 0)[1])})
            continue
        ourselves = os.getpid()
        pid = os.fork()
        if not pid:
            told.close()
            _take(Streams(*descriptors))
            _scatter()
            os._exit(worker.main(ourselves))
        for descriptor in descriptors:
            os.close(descriptor)
        _reply(told, {"pid": pid})


def _receive(told: socket.socket) -> tuple[Any, list[int]]:
    """The next message with its descriptors; None at the end."""
    data, descriptors, _, _ = socket.recv_fds(told, MESSAGE, len(Streams._fields))
    return (json.loads(data) if data else None), descriptors


def _reply(told: socket.socket, message: Mapping[str, Any]) -> None:
    told.send(json.dumps(message).encode() + b"\n")


def _take(streams: Streams) -> None:
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)


_kept: list[Any] = []


def _scatter() -> None:
    """Let what is allocated from now on begin at a random place, on the heap and among mappings."""
    drawn = random.SystemRandom()
    _kept.append(bytes(16 * drawn.randrange(HEAP)))
    _kept.append(mmap.mmap(-1, mmap.PAGESIZE * drawn.randrange(1, PAGES)))


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))
