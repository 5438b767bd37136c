"""Sessions of TVM: what a shared object takes is read and checked before TVM sees it, because TVM would crash."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

from edgewright.errors import InputError
from edgewright_runtime.processor import find_features, find_isa, read_cpuinfo
from edgewright_runtime.tvm import CPU, INSTALL
from edgewright_runtime.tvm_adapter import Machine, aligned

ABOUT = "about.json"
"""In a zip archive behind the last byte of the shared object; the exporter writes it."""

ERRORS: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError, AttributeError, IndexError)
"""What TVM raises."""

WARM_RUNS = 3
OVERHEAD = "vm."
"""What the machine's own functions begin with: memory and checks, not the model's work."""


class TvmSession:
    """One compiled stage, loaded."""

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        """`options` as `Tvm` describes them. Raises: InputError."""
        self._path, self._name = path, Path(path).name
        about = _read_about(path)
        _check(about, options, self._name)
        self._inputs: Sequence[Mapping[str, Any]] = about["inputs"]
        self.inputs: tuple[str, ...] = tuple(spec["name"] for spec in self._inputs)
        self.outputs: tuple[str, ...] = tuple(spec["name"] for spec in about["outputs"])
        self._machine = self._load()
        self._places = [self._place(spec["shape"], spec["dtype"]) for spec in self._inputs if _fixed(spec)]

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs, in the graph's order. Raises: InputError."""
        return self._run(self._machine, feeds)

    def profile(self, feeds: Mapping[str, Any], runs: int) -> list[dict[str, Any]]:
        """Per call of a run `node`, `operator`, `provider` and `median_us` over `runs` runs after a warm-up."""
        machine, clock = self._load(), _Clock()
        for _ in range(WARM_RUNS):
            self._run(machine, feeds)
        machine.watch(clock.tick)
        for _ in range(runs):
            clock.calls.append([])
            self._run(machine, feeds)
        return [
            {
                "node": f"{at}:{name}",
                "operator": name,
                "provider": CPU,
                "median_us": median(calls[at][1] for calls in clock.calls) / 1e3,
            }
            for at, (name, _) in enumerate(clock.calls[0])
        ]

    def _load(self) -> Machine:
        try:
            return Machine(self._path)
        except ERRORS as error:
            raise InputError(f"{self._name} cannot be loaded by TVM: {_sentence(error)}") from error

    def _run(self, machine: Machine, feeds: Mapping[str, Any]) -> list[Any]:
        try:
            return machine.run(self._tensors(feeds))
        except ERRORS as error:
            raise InputError(f"{self._name} cannot run: {_sentence(error)}") from error

    def _tensors(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The arrays, checked, in memory that lies as TVM's code expects it."""
        found: list[Any] = []
        places = iter(self._places)
        for spec in self._inputs:
            given = feeds[spec["name"]]
            if not _fits(spec, given):
                raise InputError(f"{self._name} takes {_described(spec)}, not {given.dtype} {list(given.shape)}")
            held, tensor = next(places) if _fixed(spec) else self._place(given.shape, spec["dtype"])
            np.copyto(held, given)
            found.append(tensor)
        return found

    def _place(self, shape: Sequence[int], dtype: str) -> tuple[Any, Any]:
        """An array to be filled, and how TVM knows it."""
        array = aligned(shape, dtype)
        return array, self._machine.lend(array)


class _Clock:
    """Notes for each run the name and the nanoseconds of every call, in their order."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, int]]] = []
        self._start = 0

    def tick(self, name: str, before: bool) -> int:
        """To be called before and after a call; 0 tells TVM to go on."""
        now = perf_counter_ns()
        if before:
            self._start = now
        elif not name.startswith(OVERHEAD):
            self.calls[-1].append((name, now - self._start))
        return 0


def _read_about(path: str) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(ABOUT))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{Path(path).name} is no model that the exporter tvm wrote ({error})") from error


def _check(about: Mapping[str, Any], options: Mapping[str, Any], name: str) -> None:
    """Raises: InputError for what would end in a crash, or is asked for in vain."""
    if options.get("provider", CPU) != CPU:
        raise InputError(f"the runtime tvm has no provider {options['provider']!r}; allowed: {CPU}")
    if int(options.get("threads") or 1) != 1:
        raise InputError(f"{name} runs on one thread, and {options['threads']} were asked for; ask for 1")
    isa = find_isa()
    missing = sorted(set(about["requires"]) - find_features(isa, read_cpuinfo()))
    if about["machine"] != isa or missing:
        needs = " ".join((about["machine"], *about["requires"]))
        raise InputError(f"{name} was compiled for {needs}, which this processor is not; export it for this target")
    for package, wanted in about["versions"].items():
        found = _installed(package)
        if found != wanted:
            raise InputError(f"{name} needs {package} {wanted}, and here is {found or 'none'}; {INSTALL} installs it")


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _fixed(spec: Mapping[str, Any]) -> bool:
    return all(isinstance(size, int) for size in spec["shape"])


def _fits(spec: Mapping[str, Any], given: Any) -> bool:
    sizes = all(isinstance(want, str) or want == have for want, have in zip(spec["shape"], given.shape))
    return sizes and len(spec["shape"]) == given.ndim and given.dtype == spec["dtype"]


def _described(spec: Mapping[str, Any]) -> str:
    return f"{spec['name']} as {spec['dtype']} {list(spec['shape'])}"


def _sentence(error: Exception) -> str:
    """TVM's message on one line."""
    return " ".join(str(error).split())[:300]
