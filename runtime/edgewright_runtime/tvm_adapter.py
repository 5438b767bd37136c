"""All that this package asks of TVM: to load a shared object and run it, on one thread, with runtime libraries alone.

TVM's failures are crashes. So it is imported in a process of its own once, before it is imported here, and nothing
is handed to it that was not checked.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.errors import InputError
from edgewright_runtime.tvm import INSTALL

SETTINGS = {"TVM_USE_RUNTIME_LIB": "1", "TVM_NUM_THREADS": "1"}
"""Its compiler library, 250 MB, is left out; its threads would spin beside those of others."""

ALIGNMENT = 64
"""Bytes: what its compiled code takes for granted of every array."""

TRY = "import tvm.runtime.vm, tvm_ffi; tvm_ffi.get_global_func('ffi.Module.load_from_file.so')"
TRY_SECONDS = 120.0


class Machine:
    """One shared object in TVM's virtual machine."""

    def __init__(self, path: str) -> None:
        """Load it. Raises: InputError when TVM does not work here; what TVM raises when it cannot load it."""
        virtual_machine, self._ffi, device = _tvm()
        load = self._ffi.get_global_func("ffi.Module.load_from_file.so")
        self._machine: Any = virtual_machine(load(path, "so"), device)
        self._main: Callable[..., Any] = self._machine["main"]

    def lend(self, array: Any) -> Any:
        """The array as TVM takes it, in the same memory; `aligned` made it."""
        return self._ffi.from_dlpack(array)

    def run(self, tensors: Sequence[Any]) -> list[Any]:
        """Copies of what comes out: the next run may write where this one did."""
        found = self._main(*tensors)
        several = found if isinstance(found, Sequence) else (found,)
        return [np.array(np.from_dlpack(each)) for each in several]  # pyright: ignore[reportArgumentType]

    def watch(self, watcher: Callable[..., int]) -> None:
        """Have `watcher(name, before, ...)` called before and after every function that a run calls."""
        self._machine.set_instrument(lambda function, name, before, *rest: watcher(name, before))


def aligned(shape: Sequence[int], dtype: str) -> Any:
    """An array of zeros that lies as compiled code expects."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(kind).reshape(tuple(shape))


def load_libraries() -> None:
    """Import TVM. Raises: InputError when it does not work here."""
    _tvm()


@cache
def _tvm() -> tuple[Any, Any, Any]:
    """The virtual machine's class, the module of tensors and functions, and the processor. Raises: InputError."""
    with _set_up():
        if "tvm" not in sys.modules:
            _try_first()
        virtual_machine = importlib.import_module("tvm.runtime.vm").VirtualMachine
        runtime = importlib.import_module("tvm.runtime")
    _load_sorting(importlib.import_module("tvm"))
    return virtual_machine, importlib.import_module("tvm_ffi"), runtime.device("cpu", 0)


def _load_sorting(tvm: Any) -> None:
    """TopK and its like call a library that TVM does not load by itself where it is told to do without its compiler."""
    extra = Path(tvm.__file__).parent / "lib" / "libtvm_runtime_extra.so"
    if extra.is_file():
        ctypes.CDLL(str(extra))


def _try_first() -> None:
    """Raises: InputError when a process that imports TVM fails or dies."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.modules['torch'] = None; {TRY}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=TRY_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"TVM's runtime was not loaded after {TRY_SECONDS:.0f} s; install it again: {INSTALL}"
        ) from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        died = f"died of {signal.Signals(-done.returncode).name}" if done.returncode < 0 else last[0]
        raise InputError(f"TVM's runtime cannot be loaded here ({died}); install it with {INSTALL}")


@contextmanager
def _set_up() -> Generator[None, None, None]:
    """While TVM is imported: without its compiler, and without torch, which it imports for nothing that we need.

    How many threads it takes is read later, and so stays said.
    """
    before = os.environ.get("TVM_USE_RUNTIME_LIB")
    torch_is_free = "torch" not in sys.modules
    if torch_is_free:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] - how Python marks what cannot be imported
    os.environ.update(SETTINGS)
    try:
        yield
    finally:
        if torch_is_free:
            del sys.modules["torch"]
        if before is None:
            del os.environ["TVM_USE_RUNTIME_LIB"]
        else:
            os.environ["TVM_USE_RUNTIME_LIB"] = before
