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
from typing import Any, Protocol

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
    send(sink, encode({"rails": [rail.described() for rail in reader.rails], "absent": absent}))
    if reader.rails:
        send(sink, encode(record(reader, lines)))
    return 0


def record(reader: _Reader, stop: Lines) -> dict[str, Any]:
    """Read every rail at its own pace until a line of `stop` comes; the samples, and what it cost to read them."""
    gc.disable()  # nothing here makes cycles, and a pause would be a gap
    rails = reader.rails
    samples: list[list[list[float]]] = [[] for _ in rails]
    missed: list[dict[int, int]] = [{} for _ in rails]
    begin, spent = perf_counter_ns(), process_time_ns()
    due = [begin] * len(rails)
    count = 0
    while stop.next_within(max(0, min(due) - perf_counter_ns()) / 1e9 if count < MOST_SAMPLES else None) is None:
        now = perf_counter_ns()
        numbers = [number for number, at in enumerate(due) if at <= now]
        for number, (at, found) in zip(numbers, reader.read(numbers)):
            if isinstance(found, int):
                missed[number][found] = missed[number].get(found, 0) + 1
            else:
                samples[number].append([at, *found])
            due[number] = max(due[number] + rails[number].source.period_ns, now)
            count += 1
        if stop.ended:
            break
    wall = max(1, perf_counter_ns() - begin)
    return {
        "samples": samples,
        "missed": [{os.strerror(code): times for code, times in each.items()} for each in missed],
        "cpu": (process_time_ns() - spent) / wall,
    }


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
