"""The agent: a supervisor that speaks JSON lines on stdin and stdout, and keeps one worker process per candidate.

Started as `python agent-<digest>.pyz` (see `start`) or `python -m edgewright_runtime.agent`. Requests are answered one
by one, so only one worker ever works. The end of standard input ends everything.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

from edgewright.errors import DeviceError, EdgewrightError, InputError, PluginError, suggest
from edgewright.protocol import OPERATIONS, VERSION, answer, decode, encode, failure
from edgewright_runtime.channel import Lines, private_streams, send
from edgewright_runtime.circumstances import conditions
from edgewright_runtime.holding import Lock
from edgewright_runtime.nursery import POSSIBLE, Nursery
from edgewright_runtime.polling import Poller, rest
from edgewright_runtime.runtimes import preparing
from edgewright_runtime.workers import Process, afresh


def main() -> int:
    """Serve as supervisor, or as what the supervisor starts: worker, poller."""
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


class Supervisor:
    """Hands each request to the worker it is for, and outlives them all."""

    def __init__(self, requests: Lines, sink: int) -> None:
        """`requests` come in there, answers go to the descriptor `sink`."""
        self._requests = requests
        self._sink = sink
        self._workers: dict[str, Process] = {}
        self._nurseries: dict[str, Nursery] = {}
        self._lock: Optional[Lock] = None
        self._idle_s: Optional[float] = None
        self._poller: Optional[Poller] = None
        self._own: Mapping[str, Callable[[dict[str, Any], bytes], bytes]] = {
            "hello": self._hello,
            "ping": lambda request, line: encode(answer(request, {})),
            "device": self._device,
            "conditions": self._conditions,
            "open": self._open,
            "close": self._close,
            "meter": self._meter,
            "rest": lambda request, line: encode(answer(request, rest(request["ns"], busy=request.get("busy", False)))),
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
            for worker in self._workers.values():
                worker.stop()
            for nursery in self._nurseries.values():
                nursery.stop()
            self._drop_poller()

    def _serve_one(self, line: bytes) -> bool:
        request: dict[str, Any] = {}
        self._heard()
        try:
            request = decode(line)
            reply = self._reply(request, line)
        except EdgewrightError as error:
            reply = encode(failure(request, error))
        send(self._sink, reply)
        self._heard()
        return request.get("op") != "bye"

    def _heard(self) -> None:
        if self._lock is not None:
            self._lock.heard()

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
            self._lock = Lock(Path(request["lock"]), str(request.get("owner")), request.get("idle_s"))
        self._idle_s = request.get("idle_s")
        return encode(answer(request, {"protocol": VERSION, "pid": os.getpid(), "python": sys.version.split()[0]}))

    def _conditions(self, request: dict[str, Any], line: bytes) -> bytes:
        return encode(answer(request, dict(conditions(Path(str(request.get("root") or "/"))))))

    def _device(self, request: dict[str, Any], line: bytes) -> bytes:
        worker = self._process(request)
        try:
            return worker.ask(line, "device", self._requests)
        finally:
            worker.stop()

    def _open(self, request: dict[str, Any], line: bytes) -> bytes:
        handle = str(request.get("handle"))
        if handle in self._workers:
            raise InputError(f"the handle {handle!r} is in use; close it first")
        self._workers[handle] = self._process(request)
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
        return encode(answer(request, {}))

    def _process(self, request: Mapping[str, Any]) -> Process:
        """A process for a candidate: forked where that can be, and it is not asked for a `fresh` one."""
        nursery = None if request.get("fresh") or not POSSIBLE else self._nursery(request)
        return Process(nursery.start if nursery and nursery.fit() else afresh(_ourselves()))

    def _nursery(self, request: Mapping[str, Any]) -> Nursery:
        """The one that has imported what the request's runtimes need."""
        runtimes = preparing(request.get("runtimes", {}))
        needs = {"runtimes": runtimes, "path": request.get("path", []) if runtimes else []}
        key = json.dumps(needs, sort_keys=True)
        known = self._nurseries.get(key)
        if known is not None and not known.alive:
            known.stop()
        if known is None or not known.alive:
            self._nurseries[key] = Nursery(needs, self._requests)
        return self._nurseries[key]

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
    """What stands behind the interpreter's name to start this program again; see `start`."""
    return [sys.argv[0]] if sys.argv[0] == sys.path[0] else ["-m", "edgewright_runtime.agent"]


if __name__ == "__main__":
    raise SystemExit(main())
