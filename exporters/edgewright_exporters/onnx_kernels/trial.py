"""Calls kernels on this machine through ctypes: once, to see that they run, and many times, to see how fast."""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewright_exporters.onnx_kernels.templates import Kernel
from edgewright_exporters.tir.isa import Isa
from edgewright_exporters.tir.linking import link

ALIGNMENT = 64
SECONDS = 0.3
"""How long the kernels of one race run, all together."""

ROUND_SECONDS = 1e-3
"""How long one kernel runs before the next one does: long enough to warm its data up, short enough to share noise."""

Caller = Callable[[], None]


def callers(kernels: Sequence[Kernel], objects: Sequence[bytes], isa: Isa) -> Sequence[Caller]:
    """For each kernel a function that runs all of its work once, on noise."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "trial.so"
        place.write_bytes(link(objects, isa))
        library = ctypes.CDLL(str(place))
    return [_caller(library, kernel, isa) for kernel in kernels]


def race(runs: Sequence[Caller]) -> Sequence[float]:
    """The least microseconds that one call of each took, taking turns."""
    counts = [max(1, int(ROUND_SECONDS / max(_seconds(run, 1), 1e-9))) for run in runs]
    best, end = [float("inf")] * len(runs), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for at, run in enumerate(runs):
            best[at] = min(best[at], _seconds(run, counts[at]))
    return [seconds * 1e6 for seconds in best]


def _seconds(run: Caller, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


def _caller(library: ctypes.CDLL, kernel: Kernel, isa: Isa) -> Caller:
    rng = np.random.default_rng(0)
    arrays = [_noise(rng, argument) for argument in kernel.arguments(isa)]
    called = getattr(library, kernel.symbol(isa))
    called.restype = None
    called.argtypes = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int32, ctypes.c_int32]
    given = (*(array.ctypes.data for array in arrays), 0, kernel.items(isa))

    def run(held: Sequence[Any] = arrays) -> None:
        called(*given)

    return run


def _noise(rng: np.random.Generator, argument: Any) -> Any:
    dtype = np.dtype(argument.dtype)
    size = argument.size * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    array = memory[start : start + size].view(dtype)
    array[:] = rng.integers(0, 100, array.size) if dtype.kind in "iu" else rng.standard_normal(array.size)
    return array
