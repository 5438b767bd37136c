"""A worker: one process that holds one candidate, runs it, times it, and answers the supervisor line by line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Optional

from edgewright.errors import EdgewrightError, InputError, PluginError
from edgewright.protocol import answer, decode, encode, failure, read_array, write_array
from edgewright.types import Arrays
from edgewright_runtime.channel import private_streams, send
from edgewright_runtime.device import conditions, find_device
from edgewright_runtime.process import die_with_parent, peak_bytes, resident_bytes, share_cpus


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
        self._feeds: Arrays = {}
        self._baseline: Optional[int] = None
        self._operations: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "device": lambda request: asdict(find_device()),
            "open": self._open,
            "infer": self._infer,
            "warm": self._warm,
            "time": self._time,
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
        # Imported before the clock starts: the library is not the model's to answer for.
        importlib.import_module("edgewright_runtime.ort_session")
        from edgewright_runtime.loaded import load

        sys.path[:0] = request.get("path", [])
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
        self._feeds = _example(self._loaded.bundle.example_inputs)
        start = perf_counter_ns()
        self._loaded.run(self._feeds)
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

        arrays = {name: read_array(Path(path)) for name, path in request["inputs"].items()}
        outputs = infer(self._loaded, arrays, batch=request.get("batch", 1))
        folder = Path(request["folder"])
        return {"outputs": {name: str(folder / write_array(folder, array)) for name, array in outputs.items()}}

    def _warm(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from edgewright_runtime.timing import WarmUp, warm_up

        taken, settled = warm_up(self._run(request), WarmUp(**request.get("rules", {})))
        return {"ns": taken, "settled": settled}

    def _time(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from edgewright_runtime.timing import time_block

        limits = {key: request[key] for key in ("least_runs", "least_ns", "settle_ns") if key in request}
        return {"ns": time_block(self._run(request), **limits)}

    def _profile(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if len(self._loaded.sessions) != 1:
            raise InputError("only a model of one stage can be profiled by operator; profile its stages alone")
        session = self._loaded.sessions[0]
        return {"nodes": session.profile(self._loaded.graph_feeds(self._chosen(request)), request["runs"])}

    def _memory(self) -> dict[str, Any]:
        return {"baseline_bytes": self._baseline, "peak_bytes": peak_bytes()}

    def _run(self, request: Mapping[str, Any]) -> Callable[[], object]:
        loaded, feeds = self._loaded, self._chosen(request)
        return lambda: loaded.run(feeds)

    def _chosen(self, request: Mapping[str, Any]) -> Arrays:
        given = request.get("inputs")
        return {name: read_array(Path(path)) for name, path in given.items()} if given else self._feeds


def _example(path: Path) -> Arrays:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise InputError(f"the bundle's example input {path} cannot be read: {error}") from error
