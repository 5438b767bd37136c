"""The agent: a supervisor that speaks JSON lines on stdin and stdout, and keeps one worker process per candidate.

Started as `python agent-<digest>.pyz` or `python -m edgewright_runtime.agent`. Requests are answered one
by one, so only one worker ever works. The end of standard input ends everything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Optional

from edgewright.errors import DeviceError, EdgewrightError, InputError, PluginError, suggest
from edgewright.protocol import OPERATIONS, VERSION, answer, decode, encode, failure
from edgewright_runtime.channel import Lines, private_streams, send, wait_for
from edgewright_runtime.holding import hold
from edgewright_runtime.polling import Poller, rest

HINTS = {
    "SIGKILL": "the system may have run out of memory",
    "SIGILL": "the runtime may be built for another processor",
    "SIGSEGV": "the runtime crashed",
    "SIGABRT": "the runtime gave up",
}

MOST_SPARES = 4
"""Processes that wait for a candidate; each holds the imported libraries, about 60 MB."""


def main() -> int:
    """Serve as supervisor, or as worker or poller when started as one."""
    if sys.argv[1:2] == ["worker"]:
        from edgewright_runtime import worker

        return worker.main(int(sys.argv[2]))
    if sys.argv[1:2] == ["poll"]:
        from edgewright_runtime import poll

        return poll.main(int(sys.argv[2]))
    # An interrupt is the host's to handle: it ends us by closing our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Supervisor(*private_streams()).serve()
    return 0


class Process:
    """One worker process, seen from the supervisor."""

    def __init__(self) -> None:
        """Start it; it waits for its first request."""
        self._ready = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._process = subprocess.Popen(
            [sys.executable, *_ourselves(), "worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._sink = self._process.stdin.fileno()
        self._lines = Lines(self._process.stdout.fileno())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def prepare(self) -> None:
        """Have it import what any candidate needs, beside whatever goes on; `prepared` waits for the end of it."""
        send(self._sink, encode({"op": "prepare"}))

    def prepared(self, watched: Lines) -> bool:
        """Whether it got ready; not when it ended instead. Raises: EOFError when `watched` ends first."""
        self._ready = self._ready or wait_for(self._lines, watched) is not None
        return self._ready

    def ask(self, line: bytes, operation: str, watched: Lines) -> bytes:
        """The worker's answer to a request.

        Raises: PluginError when the process ends instead; EOFError when `watched` does.
        """
        try:
            send(self._sink, line + b"\n")
            reply = wait_for(self._lines, watched)
        except BrokenPipeError:
            reply = None
        if reply is None:
            raise PluginError(self._epitaph(operation))
        return reply + b"\n"

    def stop(self) -> None:
        """End it at once: it holds nothing that is worth a tidy exit."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _epitaph(self, operation: str) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        if status < 0:
            name = signal.Signals(-status).name
            cause = f"was ended by {name}" + (f" ({HINTS[name]})" if name in HINTS else "")
        else:
            cause = f"ended with exit status {status}"
        last = f"; it last said: {said[-1][:200]}" if said else ""
        return f"the process that ran the model {cause} during {operation!r}{last}"


class Supervisor:
    """Hands each request to the worker it is for, and outlives them all."""

    def __init__(self, requests: Lines, sink: int) -> None:
        """`requests` come in there, answers go to the descriptor `sink`."""
        self._requests = requests
        self._sink = sink
        self._workers: dict[str, Process] = {}
        self._spares: list[Process] = []
        self._lock: Optional[IO[str]] = None
        self._idle_s: Optional[float] = None
        self._poller: Optional[Poller] = None
        self._own: Mapping[str, Callable[[dict[str, Any], bytes], bytes]] = {
            "hello": self._hello,
            "ping": lambda request, line: encode(answer(request, {})),
            "device": self._device,
            "open": self._open,
            "close": self._close,
            "meter": self._meter,
            "rest": lambda request, line: encode(answer(request, rest(request["ns"]))),
            "unmeter": self._unmeter,
        }

    def serve(self) -> None:
        """Answer until `bye`, the end of the input, or a silence longer than the host said there would be."""
        try:
            while True:
                line = self._requests.next(self._idle_s)
                if line is None or not self._serve_one(line):
                    return
        except (EOFError, BrokenPipeError):
            return
        finally:
            for worker in (*self._workers.values(), *self._spares):
                worker.stop()
            self._drop_poller()

    def _serve_one(self, line: bytes) -> bool:
        request: dict[str, Any] = {}
        try:
            request = decode(line)
            reply = self._reply(request, line)
        except EdgewrightError as error:
            reply = encode(failure(request, error))
        send(self._sink, reply)
        return request.get("op") != "bye"

    def _reply(self, request: dict[str, Any], line: bytes) -> bytes:
        operation = str(request.get("op"))
        if operation not in OPERATIONS:
            raise InputError(f"the agent has no operation {operation!r}; {suggest(operation, OPERATIONS)}")
        if operation == "bye":
            return encode(answer(request, {}))
        handler = self._own.get(operation)
        return handler(request, line) if handler else self._ask(request, line)

    def _hello(self, request: dict[str, Any], line: bytes) -> bytes:
        if request.get("protocol") != VERSION:
            raise DeviceError(
                f"the host speaks protocol {request.get('protocol')}, the agent {VERSION}; update the older one"
            )
        if request.get("lock") and self._lock is None:
            self._lock = hold(Path(request["lock"]), str(request.get("owner")))
        self._idle_s = request.get("idle_s")
        return encode(answer(request, {"protocol": VERSION, "pid": os.getpid(), "python": sys.version.split()[0]}))

    def _device(self, request: dict[str, Any], line: bytes) -> bytes:
        worker = self._process()
        try:
            return worker.ask(line, "device", self._requests)
        finally:
            worker.stop()

    def _open(self, request: dict[str, Any], line: bytes) -> bytes:
        handle = str(request.get("handle"))
        if handle in self._workers:
            raise InputError(f"the handle {handle!r} is in use; close it first")
        self._workers[handle] = self._process()
        reply = self._ask(request, line)
        if "error" in decode(reply):
            self._workers.pop(handle).stop()
        elif self._poller is not None:
            self._poller.keep_away(self._workers[handle].pid)
        return reply

    def _meter(self, request: dict[str, Any], line: bytes) -> bytes:
        """Start to read a meter; nothing goes on when no rail of it is found."""
        self._drop_poller()
        self._poller = Poller(_ourselves(), request, self._requests)
        found = self._poller.found
        if not found["rails"]:
            self._drop_poller()
        return encode(answer(request, found))

    def _unmeter(self, request: dict[str, Any], line: bytes) -> bytes:
        if self._poller is None:
            raise InputError("no meter is being read; start with 'meter'")
        poller, self._poller = self._poller, None
        return encode(answer(request, poller.stop()))

    def _drop_poller(self) -> None:
        if self._poller is not None:
            self._poller.kill()
            self._poller = None

    def _close(self, request: dict[str, Any], line: bytes) -> bytes:
        worker = self._workers.pop(str(request.get("handle")), None)
        if worker is not None:  # a worker that crashed is gone already
            worker.stop()
            self._start_spare()
        return encode(answer(request, {}))

    def _start_spare(self) -> None:
        """Start a process for a later candidate: who measures in rounds closes several and opens as many again.

        Several start side by side, which takes a fraction of the time that one after the other takes.
        """
        if len(self._spares) < MOST_SPARES:
            self._spares.append(Process())
            with suppress(BrokenPipeError):
                self._spares[-1].prepare()

    def _process(self) -> Process:
        """A process for a candidate. No other one is still starting then: what comes next may be measured."""
        self._spares = [spare for spare in self._spares if self._is_ready(spare)]
        return self._spares.pop() if self._spares else Process()

    def _is_ready(self, spare: Process) -> bool:
        if spare.prepared(self._requests):
            return True
        spare.stop()
        return False

    def _ask(self, request: dict[str, Any], line: bytes) -> bytes:
        handle = self._known(request)
        try:
            return self._workers[handle].ask(line, request["op"], self._requests)
        except PluginError:
            self._workers.pop(handle).stop()
            raise

    def _known(self, request: dict[str, Any]) -> str:
        handle = str(request.get("handle"))
        if handle not in self._workers:
            raise InputError(f"nothing is open under the handle {handle!r}; {suggest(handle, self._workers)}")
        return handle


def _ourselves() -> list[str]:
    archive = Path(sys.argv[0])
    return [str(_unpacked(archive))] if zipfile.is_zipfile(archive) else ["-m", "edgewright_runtime.agent"]


def _unpacked(archive: Path) -> Path:
    """A folder beside `archive` with the same in it: Python keeps what it compiles of a folder, and of no archive.

    Where it cannot be written, the archive does as well, and every process takes longer to start.
    """
    folder = archive.with_suffix("")
    if folder.is_dir():
        return folder
    with (
        suppress(OSError),
        tempfile.TemporaryDirectory(dir=archive.parent) as partial,
        zipfile.ZipFile(archive) as held,
    ):
        held.extractall(Path(partial) / "agent")
        os.replace(Path(partial) / "agent", folder)  # fails where another agent was quicker
    return folder if folder.is_dir() else archive


if __name__ == "__main__":
    raise SystemExit(main())
