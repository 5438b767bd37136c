"""The poller: a process that reads a meter again and again while something else runs, and then tells all it read.

It takes one line, answers with the rails it found, reads until the next line comes, and answers with the samples.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from time import perf_counter_ns, process_time_ns
from typing import Any, Optional, Protocol

from edgewright.errors import EdgewrightError, RefusedError
from edgewright.protocol import decode, encode
from edgewright.types import Source
from edgewright_runtime.channel import Lines, private_streams, send
from edgewright_runtime.process import die_with_parent
from edgewright_runtime.sensors import Rail, find_rails, read_rails

MOST_SAMPLES = 2_000_000
"""Of all rails; then nothing more is read, because memory is the device's."""


class _Reader(Protocol):
    rails: Sequence[Rail]

    def read(self, numbers: Sequence[int]) -> list[tuple[int, Any]]: ...


def main(parent: int) -> int:
    """Serve one recording; `parent` is the supervisor's process id."""
    die_with_parent(parent)
    lines, sink = private_streams()
    line = lines.next()
    if line is None:
        return 0
    request = decode(line)
    try:
        reader, absent = _open(request)
    except EdgewrightError as refusal:
        send(sink, encode({"rails": [], "absent": [str(refusal)]}))
        return 0
    record = Record(reader)
    record.take()  # before the host is told: whatever it marks comes after the first sample
    send(sink, encode({"rails": [rail.described() for rail in reader.rails], "absent": absent}))
    if reader.rails:
        record.run(lines)
        record.take(everything=True)
        send(sink, encode(record.told()))
    return 0


class Record:
    """What was read of each rail so far, and when the next reading is due; each rail has a pace of its own."""

    def __init__(self, reader: _Reader) -> None:
        """Nothing is read yet, and everything is due."""
        self._reader = reader
        self._samples: list[list[list[float]]] = [[] for _ in reader.rails]
        self._missed: list[dict[int, int]] = [{} for _ in reader.rails]
        self._begin, self._spent = perf_counter_ns(), process_time_ns()
        self._due = [self._begin] * len(reader.rails)
        self._left = MOST_SAMPLES

    def run(self, stop: Lines) -> None:
        """Read until a line of `stop` comes, or its end."""
        gc.disable()  # nothing here makes cycles, and a pause would be a gap
        while stop.next_within(self._wait()) is None and not stop.ended:
            self.take()

    def take(self, everything: bool = False) -> None:
        """Read what is due."""
        now = perf_counter_ns()
        numbers = [number for number, at in enumerate(self._due) if everything or at <= now]
        for number, (at, found) in zip(numbers, self._reader.read(numbers)):
            if isinstance(found, int):
                self._missed[number][found] = self._missed[number].get(found, 0) + 1
            else:
                self._samples[number].append([at, *found])
            # On the grid of its period; what was missed is not caught up with.
            self._due[number] = max(self._due[number], now - self._period(number)) + self._period(number)
        self._left -= len(numbers)

    def told(self) -> dict[str, Any]:
        """The samples, the readings that failed, and the share of one CPU that this process took."""
        wall = max(1, perf_counter_ns() - self._begin)
        return {
            "samples": self._samples,
            "missed": [{os.strerror(code): times for code, times in each.items()} for each in self._missed],
            "cpu": (process_time_ns() - self._spent) / wall,
        }

    def _period(self, number: int) -> int:
        return self._reader.rails[number].source.period_ns

    def _wait(self) -> Optional[float]:
        """Seconds until something is due; None when there is no more room."""
        return None if self._left <= 0 else max(0, min(self._due) - perf_counter_ns()) / 1e9


# ------------------------------------------------------------------ the two kinds of meters


class _Stated:
    """A meter that says which files or commands to read."""

    def __init__(self, rails: Sequence[Rail]) -> None:
        self.rails = rails

    def read(self, numbers: Sequence[int]) -> list[tuple[int, Any]]:
        return read_rails([self.rails[number] for number in numbers])


class _Sampled:
    """A meter that is Python: one call reads all of it."""

    def __init__(self, rails: Sequence[Rail], sampler: Any) -> None:
        self.rails, self._sampler = rails, sampler

    def read(self, numbers: Sequence[int]) -> list[tuple[int, Any]]:
        start = perf_counter_ns()
        try:
            values = [float(value) for value in self._sampler.read()]
        except OSError as error:
            return [(start, error.errno or 5)] * len(numbers)
        at = (start + perf_counter_ns()) // 2
        return [(at, [values[number]]) for number in numbers]


def _open(request: Mapping[str, Any]) -> tuple[_Reader, list[str]]:
    """Raises: RefusedError when a meter of Python is not there."""
    sources = [source_of(fields) for fields in request["sources"]]
    if not request.get("meter"):
        rails, absent = find_rails(sources, request.get("root") or "/")
        return _Stated(rails), absent
    sys.path[:0] = request.get("path", [])
    module, _, attribute = request["meter"].partition(":")
    try:
        sampler = getattr(importlib.import_module(module), attribute).open()
    except EdgewrightError:
        raise
    except Exception as error:  # a third party's meter may raise anything; it is reported as its own
        raise RefusedError(f"the meter {request['meter']} does not open: {type(error).__name__}: {error}") from error
    return _Sampled([Rail(number, source, source.rail) for number, source in enumerate(sources)], sampler), []


def source_of(fields: Mapping[str, Any]) -> Source:
    """A source from its JSON form."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Source(**values)
