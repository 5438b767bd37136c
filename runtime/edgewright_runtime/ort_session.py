"""Sessions of ONNX Runtime: opened with the provider that was asked for, errors in one sentence, profiles."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from edgewright.errors import DeviceError, InputError, suggest
from edgewright.machine import products_are_exact
from edgewright.types import Dim, TensorSpec
from edgewright_runtime.ort import CPU
from edgewright_runtime.processor import find_features, find_isa, read_cpuinfo


def _exceptions(module: Any) -> Iterator[type[Exception]]:
    for name in dir(module):
        value = getattr(module, name)
        if isinstance(value, type) and issubclass(value, Exception):
            yield value


def _library(name: str) -> Any:
    """onnxruntime has no type stubs. Raises: DeviceError where it was made for another Python or C library."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceError(
            f"onnxruntime cannot be imported here: {error}; engine device setup --on ADDRESS gets one that fits"
        ) from error


onnxruntime = _library("onnxruntime")
native = _library("onnxruntime.capi.onnxruntime_pybind11_state")

ERRORS: tuple[type[Exception], ...] = (RuntimeError, ValueError, *_exceptions(native))
"""What onnxruntime raises; its own classes differ from version to version."""

FATAL_ONLY = 4
WARM_RUNS = 3
LEVELS: Mapping[str, Any] = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class OrtSession:
    """One ONNX file, loaded."""

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        """`options` as `Ort` describes them. Raises: InputError."""
        self._path = path
        self._options = options
        self._session = _create(path, options, _session_options(options))
        self.inputs: tuple[str, ...] = tuple(node.name for node in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(node.name for node in self._session.get_outputs())
        self._outputs = list(self.outputs)

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs, in the graph's order. Raises: InputError."""
        try:
            return self._session.run(self._outputs, feeds)
        except ERRORS as error:
            raise InputError(f"{Path(self._path).name} cannot run: {_sentence(error)}") from error

    def profile(self, feeds: Mapping[str, Any], runs: int) -> list[dict[str, Any]]:
        """Per executed node `node`, `operator`, `provider` and `median_us` over `runs` runs after a warm-up.

        The node of an `If`, `Loop` or `Scan` includes its body, whose nodes are listed as well.
        """
        settings = _session_options(self._options)
        settings.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            settings.profile_file_prefix = str(Path(folder) / "profile")
            session = _create(self._path, self._options, settings)
            for _ in range(WARM_RUNS + runs):
                session.run(self._outputs, feeds)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return _summarise(events, runs)


def read_signature(path: str, libraries: Sequence[str] = ()) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of a graph. Raises: InputError when it cannot be loaded."""
    session = _create(path, {}, _session_options({"graph": "none", "libraries": libraries}))
    return _specs(session.get_inputs()), _specs(session.get_outputs())


def _specs(nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(node.name, _dtype(node.type), _shape(node.name, node.shape)) for node in nodes)


def _dtype(text: str) -> str:
    """`tensor(float)` as numpy calls it."""
    inner = text[len("tensor(") : -1]
    return {"float": "float32", "double": "float64", "string": "object"}.get(inner, inner)


def _shape(name: str, shape: Sequence[Any]) -> tuple[Dim, ...]:
    return tuple(d if isinstance(d, (int, str)) else f"{name}_{i}" for i, d in enumerate(shape))


def _create(path: str, options: Mapping[str, Any], settings: Any) -> Any:
    provider = _checked_provider(options)
    try:
        session = onnxruntime.InferenceSession(path, settings, providers=[provider])
    except ERRORS as error:
        raise InputError(_why_not(path, options, provider, _sentence(error))) from error
    session.disable_fallback()
    found = session.get_providers()
    if provider not in found and not options.get("allow_fallback"):
        raise InputError(
            f"{provider} could not start and onnxruntime fell back to {', '.join(found)}; "
            "repair its libraries, choose another provider, or allow the fallback"
        )
    return session


def _checked_provider(options: Mapping[str, Any]) -> str:
    provider = str(options.get("provider", CPU))
    available: list[str] = onnxruntime.get_available_providers()
    if provider in available:
        return provider
    if options.get("allow_fallback"):
        return CPU
    raise InputError(f"onnxruntime {onnxruntime.__version__} here has no {provider}; {suggest(provider, available)}")


def _why_not(path: str, options: Mapping[str, Any], provider: str, reason: str) -> str:
    name = Path(path).name
    if provider != CPU and not options.get("allow_fallback") and "fallback" in reason.lower():
        return (
            f"{provider} does not take every node of {name}, and the rest would run on {CPU}; "
            "choose another provider or allow the fallback"
        )
    return f"{name} cannot be loaded by onnxruntime {onnxruntime.__version__}: {reason}"


def _session_options(options: Mapping[str, Any]) -> Any:
    level = str(options.get("graph", "all"))
    if level not in LEVELS:
        raise InputError(f"graph={level!r} is no level of graph optimisation; {suggest(level, LEVELS)}")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = FATAL_ONLY
    settings.graph_optimization_level = LEVELS[level]
    settings.intra_op_num_threads = int(options.get("threads") or 1)
    settings.inter_op_num_threads = 1
    # Threads may spin between the nodes of a run, but not between runs, where something else may be timed.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    # Without VNNI, x86 kernels for signed weights cut off sums of products at 16 bits: answers would be wrong. With
    # this, weights of more than 7 bits take an exact kernel there.
    if not products_are_exact(find_features(find_isa(), read_cpuinfo())):
        settings.add_session_config_entry("session.x64quantprecision", "1")
    if options.get("provider", CPU) != CPU and not options.get("allow_fallback"):
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if options.get("share_memory") and _share_memory():
        settings.add_session_config_entry("session.use_env_allocators", "1")
    for library in options.get("libraries", ()):
        _register(settings, str(library))
    return settings


def _register(settings: Any, library: str) -> None:
    """Let the session call the operators of a library, which learns how many threads there are to share work."""
    settings.add_session_config_entry("edgewright.threads", str(settings.intra_op_num_threads))
    try:
        settings.register_custom_ops_library(library)
    except ERRORS as error:
        name, version = Path(library).name, onnxruntime.__version__
        raise InputError(f"{name} cannot be loaded by onnxruntime {version}: {_sentence(error)}") from error


@cache
def _share_memory() -> bool:
    """Have one arena for all sessions of this process that ask for it; False where onnxruntime is too old."""
    if not hasattr(onnxruntime, "create_and_register_allocator"):
        return False
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(place, None)
    return True


def _sentence(error: Exception) -> str:
    """The part of onnxruntime's message that says what is wrong, on one line."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text[:300]


def _summarise(events: list[dict[str, Any]], runs: int) -> list[dict[str, Any]]:
    """The median, because one interruption in fifty runs would double a small node's mean."""
    starts = sorted(e["ts"] for e in events if e.get("name") == "model_run")
    first = starts[-runs]
    nodes: dict[str, dict[str, Any]] = {}
    taken: dict[str, list[int]] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time") or event["ts"] < first:
            continue
        name = event["name"][: -len("_kernel_time")]
        about = event["args"]
        nodes[name] = {"node": name, "operator": about["op_name"], "provider": about.get("provider", "")}
        taken.setdefault(name, []).append(event["dur"])
    # A node in a loop runs several times a run: the median of one execution, times how many there are.
    return [{**node, "median_us": median(taken[name]) * len(taken[name]) / runs} for name, node in nodes.items()]
