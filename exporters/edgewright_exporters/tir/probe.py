"""Finds out whether TVM works here, in a process of its own, because what fails in it fails by crashing.

    python -m edgewright_exporters.tir.probe

compiles one function, runs it, and exits with 0 when its results are right.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.types import Refusal
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.compiler import INSTALL, TVM_VERSIONS, compile_object
from edgewright_exporters.tir.isa import ARM_TRIPLE, X86_TRIPLE, Isa
from edgewright_exporters.tir.linking import link

SIZE, LANES = 32, 4
BASELINES = {
    "x86_64": Isa("x86-64", X86_TRIPLE, "x86-64", (), LANES, 16, None, "x86_64", ()),
    "aarch64": Isa("armv8-a", ARM_TRIPLE, "generic", ("+neon",), LANES, 32, None, "aarch64", ()),
}
"""What every CPU of a machine type can run: this asks about the compiler, not about the CPU."""


def probe(*, timeout: float = 60.0, versions: Mapping[str, str] = TVM_VERSIONS) -> Refusal | None:
    """Why kernels cannot be compiled here, or None.

    Args:
        timeout: seconds that one small kernel may take.
        versions: the distributions that must be installed, and their versions.
    """
    wrong = [f"{name} {found or 'is missing'}" for name in versions if (found := _installed(name)) != versions[name]]
    if wrong:
        return Refusal(f"kernels need a tested pair of TVM packages, and here {', '.join(wrong)}; `{INSTALL}` helps")
    command = [sys.executable, "-m", "edgewright_exporters.tir.probe"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return Refusal(
            f"TVM needed more than {timeout:.0f} s for one small kernel; `{INSTALL}` in a fresh venv may help"
        )
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return Refusal(
            f"TVM crashed (signal {-done.returncode}) at one small kernel; `{INSTALL}` in a fresh venv may help"
        )
    lines = done.stderr.strip().splitlines()
    return Refusal(f"TVM does not work here: {lines[-1] if lines else f'exit code {done.returncode}'}")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Compile, link and run x + x, and leave with 1 and one line on standard error when that fails."""
    isa = BASELINES.get(platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64"))
    if isa is None:
        sys.exit(f"there are no kernels for {platform.machine()}")
    try:
        content = link([compile_object({"double": _double()}, isa)], isa)
    except EdgewrightError as error:
        sys.exit(str(error))
    x, y = np.arange(SIZE, dtype=np.float32), np.zeros(SIZE, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.so"
        path.write_bytes(content)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]
        ctypes.CDLL(str(path)).double(*pointers, ctypes.c_int32(0), ctypes.c_int32(SIZE // LANES))
    if not np.array_equal(y, x + x):
        sys.exit("a compiled kernel computes wrong numbers")


def _double() -> Any:
    def body(x: Any, y: Any, begin: Any, end: Any) -> None:
        with builder.loop(begin, end) as item:
            value = builder.load(x, item * LANES, LANES)
            builder.store(y, item * LANES, value + value, LANES)

    pointers = (builder.Argument("x", "float32", SIZE), builder.Argument("y", "float32", SIZE))
    return builder.function("double", pointers, body)


if __name__ == "__main__":
    main()
