"""A worker: one process that holds one candidate, runs it, times it, and answers the supervisor line by line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Optional

from edgewright.errors import EdgewrightError, InputError, PluginError
from edgewright.protocol import answer, decode, encode, failure, read_array, write_array
from edgewright.types import Arrays
from edgewright_runtime.channel import private_streams, send
from edgewright_runtime.circumstances import conditions
from edgewright_runtime.device import find_device
from edgewright_runtime.process import die_with_parent, peak_bytes, resident_bytes, share_cpus
from edgewright_runtime.runtimes import find_runtime

if TYPE_CHECKING:
    from edgewright_runtime.runs import Runs


def main(parent: int) -> int:
    """Answer requests until standard input ends; `parent` is the supervisor's process id."""
    die_with_parent(parent)
    lines, sink = private_streams()
    worker = Worker()
    while True:
        line = lines.next()
        if line is None:
            return 0
        request = decode(line)
        try:
            reply = answer(request, worker.answer(request))
        except EdgewrightError as error:
            reply = failure(request, error)
        except Exception as error:  # noqa: BLE001 - a third party's runtime may raise anything; it is reported as its own
            reply = failure(request, worker.blame(request, error))
        send(sink, encode(reply))


class Worker:
    """The one candidate of this process, once `open` has loaded it."""

    def __init__(self) -> None:
        """Nothing is loaded yet."""
        self._loaded: Any = None
        self._example: Arrays = {}
        self._stream: Iterator[Arrays] = repeat({})
        self._baseline: Optional[int] = None
        self._operations: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "device": lambda request: asdict(find_device()),
            "open": self._open,
            "infer": self._infer,
            "explore": self._explore,
            "calibrate": self._calibrate,
            "warm": self._warm,
            "time": self._time,
            "spin": self._spin,
            "profile": self._profile,
            "memory": lambda request: self._memory(),
        }

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What the request asks for."""
        return self._operations[request["op"]](request)

    def blame(self, request: Mapping[str, Any], error: Exception) -> PluginError:
        """An error that is not ours, told as the runtime's."""
        names = [p.runtime for p in self._loaded.bundle.plan.placements] if self._loaded else []
        who = f"the runtime {', '.join(sorted(set(names)))}" if names else "a runtime"
        return PluginError(f"{who} failed in {request['op']!r}: {type(error).__name__}: {error}")

    def _open(self, request: Mapping[str, Any]) -> dict[str, Any]:
        # Before any library starts threads: they inherit it.
        cpus = share_cpus(**request["cpus"]) if request.get("cpus") else []
        prepare(request.get("runtimes", {}), request.get("path", []))  # before the clock starts: not the model's time
        from edgewright_runtime.examples import open_stream, read_example
        from edgewright_runtime.loaded import load

        self._baseline = resident_bytes()
        start = perf_counter_ns()
        self._loaded = load(
            request["bundle"],
            threads=request.get("threads"),
            allow_fallback=request.get("allow_fallback"),
            runtimes=request.get("runtimes", {}),
            verify=request.get("verify", True),
        )
        load_ns = perf_counter_ns() - start
        self._example = read_example(self._loaded.bundle)
        self._stream = open_stream(self._loaded.bundle)
        start = perf_counter_ns()
        self._loaded.run(self._example)
        first_ns = perf_counter_ns() - start
        self._loaded.reset()
        return {
            "digest": self._loaded.bundle.digest,
            "load_ns": load_ns,
            "first_ns": first_ns,
            "placements": [asdict(placement) for placement in self._loaded.placements],
            "conditions": {**conditions(), "cpus": cpus},
            **self._memory(),
        }

    def _infer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from edgewright_runtime.infer import infer

        found = infer(self._loaded, _arrays(request), batch=request.get("batch", 1), **_limits(request))
        folder = Path(request["folder"])
        return {
            "outputs": _written(folder, found.outputs),
            "exits": str(folder / write_array(folder, found.exits)),
            "spent_ms": list(found.spent_ms),
        }

    def _explore(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from edgewright_runtime.infer import explore

        stages = explore(self._loaded, _arrays(request), batch=request.get("batch", 1))
        return {"stages": [_written(Path(request["folder"]), stage) for stage in stages]}

    def _calibrate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"stages": [asdict(cost) for cost in self._loaded.calibrate(float(request["seconds"]))]}

    def _warm(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from edgewright_runtime.timing import WarmUp, warm_up

        taken, settled = warm_up(self._runs(request).once, WarmUp(**request.get("rules", {})))
        return {"ns": taken, "settled": settled}

    def _time(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from edgewright_runtime.timing import settle, time_block

        if request.get("deadline_ms") is not None:
            self._loaded.get_ready()
        settle(self._runs(request).once, request.get("settle_ns", 0))
        runs = self._runs(request)
        begin = perf_counter_ns()
        taken = time_block(runs.once, least_runs=request["least_runs"], least_ns=request["least_ns"])
        times = {"begin_ns": begin, "end_ns": perf_counter_ns()}
        return {"ns": taken, "depths": runs.depths, "stages_ns": runs.stages_ns, **times}

    def _spin(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from edgewright_runtime.timing import spin

        return {"ns": [spin(request["ns"]) for _ in range(request["runs"])]}

    def _profile(self, request: Mapping[str, Any]) -> dict[str, Any]:
        stage = request.get("stage")
        if stage is None and len(self._loaded.sessions) != 1:
            raise InputError("a model of several stages is profiled by operator one stage at a time; say which")
        stage = stage or 0
        feeds = self._loaded.graph_feeds(self._chosen(request), stage)
        return {"nodes": self._loaded.sessions[stage].profile(feeds, request["runs"])}

    def _memory(self) -> dict[str, Any]:
        return {"baseline_bytes": self._baseline, "peak_bytes": peak_bytes()}

    def _runs(self, request: Mapping[str, Any]) -> Runs:
        from edgewright_runtime.runs import Runs

        given = repeat(_arrays(request)) if request.get("inputs") else None
        through = request.get("through") or [None]
        return Runs(self._loaded, given or self._stream, request.get("deadline_ms"), through)

    def _chosen(self, request: Mapping[str, Any]) -> Arrays:
        return _arrays(request) if request.get("inputs") else self._example


def prepare(runtimes: Mapping[str, str], path: Sequence[str]) -> None:
    """Import what candidates need, from `path` first; a runtime that cannot be imported is reported when it is used.

    Small devices do without onnxruntime.
    """
    sys.path[:0] = [folder for folder in path if folder not in sys.path]
    if find_spec("onnxruntime") is not None:
        importlib.import_module("edgewright_runtime.ort_session")
    for module in ("loaded", "examples", "timing", "runs"):
        importlib.import_module(f"edgewright_runtime.{module}")
    for name in runtimes:
        with suppress(Exception):
            getattr(find_runtime(name, runtimes), "prepare", bool)()


def _arrays(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: read_array(Path(path)) for name, path in request["inputs"].items()}


def _limits(request: Mapping[str, Any]) -> dict[str, Any]:
    return {key: request.get(key) for key in ("deadline_ms", "through")}


def _written(folder: Path, arrays: Arrays) -> dict[str, str]:
    return {name: str(folder / write_array(folder, array)) for name, array in arrays.items()}
