"""A conversation with an agent in requests and answers, one of each at a time, over the pipes of its process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from edgewright.errors import DeviceError, EdgewrightError
from edgewright.protocol import decode, encode, result_of
from edgewright.protocols import Process

ANSWER_S = 600.0
"""How long a device may take to answer; the slowest thing asked of it is to load a large model."""


class Conversation:
    """The pipes of one agent. Nothing is asked before the answer to the last request is there."""

    def __init__(self, process: Process, address: str) -> None:
        self._process = process
        self._address = address
        self._count = 0
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._turn = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether it was stopped from here."""
        return self._ended.is_set()

    def ask(self, operation: str, *, timeout: float = ANSWER_S, **fields: Any) -> dict[str, Any]:
        """The result of one request. Raises: the error that the answer carries, or DeviceError."""
        with self._turn:
            return self._ask(operation, timeout, fields)

    def keep_alive(self, idle_s: float) -> None:
        """While this host computes, tell an agent that ends after `idle_s` of silence that it is still there."""
        threading.Thread(target=self._ping, args=(idle_s,), daemon=True).start()

    def stop(self) -> None:
        """End the agent and everything it started; closing its input is enough, killing makes sure."""
        self._ended.set()
        with suppress(OSError):
            self._process.stdin.close()
        self._process.kill()

    def _ask(self, operation: str, timeout: float, fields: Mapping[str, Any]) -> dict[str, Any]:
        self._count += 1
        try:
            self._send({"id": self._count, "op": operation, **fields})
            answer = decode(self._next(operation, timeout))
        except KeyboardInterrupt:
            self.stop()  # its answer is still to come, and would be taken for that of the next request
            raise
        if answer.get("id") != self._count:
            raise DeviceError(f"the agent at {self._address} answered another request than {operation!r}")
        return result_of(answer)

    def _send(self, request: Mapping[str, Any]) -> None:
        try:
            self._process.stdin.write(encode(request))
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._lost(request["op"]) from None

    def _ping(self, idle_s: float) -> None:
        while not self._ended.wait(idle_s / 5):
            with suppress(EdgewrightError):  # whoever asks next is told
                self.ask("ping", timeout=idle_s)

    def _next(self, operation: str, timeout: float) -> bytes:
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            self._process.kill()
            raise DeviceError(
                f"the agent at {self._address} did not answer {operation!r} within {timeout:g} s; it was stopped"
            ) from None
        if not line:
            raise self._lost(operation)
        return line

    def _lost(self, operation: str) -> DeviceError:
        said = self._process.errors().strip().splitlines()
        last = f"; it last said: {said[-1][:200]}" if said else ""
        return DeviceError(
            f"the agent at {self._address} was lost during {operation!r} (exit status {self._process.poll()}){last}"
        )

    def _listen(self) -> None:
        with suppress(ValueError):  # the stream was closed while it was read: the process is being stopped
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(b"")
