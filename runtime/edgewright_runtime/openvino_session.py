"""Sessions of OpenVINO: float32 on the threads that were asked for, errors in one sentence, profiles."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from edgewright.errors import InputError
from edgewright_runtime.openvino import CPU

SILENCED = "openvino_telemetry"


def _import_openvino() -> Any:
    """OpenVINO without its telemetry: with it, the import alone forks a process that reports to its vendor.

    OpenVINO does without where the package is absent; it is made to look so only while we import, for the first time.
    """
    if SILENCED in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[SILENCED] = None  # pyright: ignore[reportArgumentType] - how Python marks what cannot be imported
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[SILENCED]


# openvino's stubs are no part of what this package needs to be checked with.
openvino: Any = _import_openvino()

ERRORS: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError)
"""What openvino raises."""

VERSION = str(openvino.__version__).split("-", maxsplit=1)[0]
WARM_RUNS = 3
SETTINGS: Mapping[str, Any] = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": "1",
    # Left to itself it computes in bfloat16 where the processor can, and rounds what enters a packed matrix to int8.
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    # Which processors to run on is for who started this process to say; as many threads as were asked for is ours.
    "ENABLE_CPU_PINNING": False,
    "ENABLE_HYPER_THREADING": True,
}
_NOISE = re.compile(r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:|FrontEnd API failed with \w+:", re.DOTALL)


class OpenvinoSession:
    """One ONNX file, loaded."""

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        """`options` as `Openvino` describes them. Raises: InputError."""
        self._path = path
        self._options = options
        model = _read(path, options)
        self._request = _new_request(model, path, options)
        self.inputs: tuple[str, ...] = tuple(port.any_name for port in model.inputs)
        self.outputs: tuple[str, ...] = tuple(port.any_name for port in model.outputs)

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs, in the graph's order: copies, because the next run writes where this one did.

        In a graph with free dimensions, sizes that do not fit together are no error to OpenVINO on one thread: what
        depends on them comes out empty.

        Raises: InputError.
        """
        try:
            return list(self._request.infer(self._tensors(feeds)).values())
        except ERRORS as error:
            raise InputError(f"{Path(self._path).name} cannot run: {_sentence(error)}") from error

    def profile(self, feeds: Mapping[str, Any], runs: int) -> list[dict[str, Any]]:
        """Per executed node `node`, `operator`, `provider` and `median_us`.

        OpenVINO counts in whole microseconds and keeps a node's mean over all runs so far, warm-up included: so
        `median_us` is that mean, and what takes less than a microsecond reads 0.
        """
        request = _new_request(_read(self._path, self._options), self._path, self._options, profiling=True)
        tensors = self._tensors(feeds)
        for _ in range(WARM_RUNS + runs):
            request.infer(tensors)
        done = [info for info in request.profiling_info if info.status == openvino.ProfilingInfo.Status.EXECUTED]
        return [
            {
                "node": info.node_name,
                "operator": info.node_type,
                "provider": CPU,
                "median_us": info.real_time / timedelta(microseconds=1),
            }
            for info in done
        ]

    def _tensors(self, feeds: Mapping[str, Any]) -> dict[int, Any]:
        """What a request takes, by position: in openvino's own tensors, which spares it 30 µs of asking what it got."""
        return {number: _tensor(feeds[name]) for number, name in enumerate(self.inputs)}


def _read(path: str, options: Mapping[str, Any]) -> Any:
    provider = options.get("provider", CPU)
    if provider != CPU:
        raise InputError(f"the runtime openvino has no provider {provider!r}; allowed: {CPU}")
    if options.get("libraries"):
        libraries: Sequence[str] = options["libraries"]
        raise InputError(
            f"{Path(path).name} calls operators of {Path(libraries[0]).name}, which only onnxruntime can load; "
            "run it with the runtime ort"
        )
    try:
        return openvino.Core().read_model(path)
    except ERRORS as error:
        raise InputError(_cannot_load(path, error)) from error


def _new_request(model: Any, path: str, options: Mapping[str, Any], *, profiling: bool = False) -> Any:
    settings = {**SETTINGS, "INFERENCE_NUM_THREADS": int(options.get("threads") or 1), "PERF_COUNT": profiling}
    try:
        return openvino.Core().compile_model(model, CPU, settings).create_infer_request()
    except ERRORS as error:
        raise InputError(_cannot_load(path, error)) from error


def _tensor(array: Any) -> Any:
    """A view of the array where openvino can work on it as it lies, else a copy."""
    return openvino.Tensor(array, shared_memory=array.flags.c_contiguous and array.flags.writeable)


def _cannot_load(path: str, error: Exception) -> str:
    return f"{Path(path).name} cannot be loaded by openvino {VERSION}: {_sentence(error)}"


def _sentence(error: Exception) -> str:
    """The part of openvino's message that says what is wrong, on one line, without its source files."""
    return " ".join(_NOISE.sub(" ", str(error)).split())[:300]
