"""Links object files into one shared library with the C compiler that the machine has."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgewright.errors import PluginError
from edgewright.toolchain import compilers
from edgewright_exporters.tir.isa import Isa

FLAGS = ("-shared", "-fPIC", "-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,--gc-sections")
"""`-s` drops what only a debugger reads; without a build identity the same objects give the same bytes."""

EXPORTS = "{ global: *; local: __extendhfsf2; __truncsfhf2; };"
"""Every object of TVM's brings these two conversions of halves; hidden, they are dropped where nothing calls them."""


def link(objects: Sequence[bytes], isa: Isa, *, libraries: Sequence[str] = ()) -> bytes:
    """A shared library made of `objects`, in their order; `libraries` are names such as "dl" or "m".

    Raises:
        RefusedError: when no compiler for `isa` is installed.
        PluginError: when the linker fails; the message carries its first complaint.
    """
    compiler = find_compiler(isa)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.o" for number in range(len(objects))]
        for path, content in zip(paths, objects):
            path.write_bytes(content)
        result, exports = Path(folder) / "kernels.so", Path(folder) / "exports"
        exports.write_text(EXPORTS, encoding="utf-8")
        flags = [*FLAGS, f"-Wl,--version-script={exports}", "-o", str(result)]
        command = [compiler, *flags, *map(str, paths), *(f"-l{name}" for name in libraries)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PluginError(f"{compiler} could not link kernels for {isa.name}: {_complaint(done.stderr)}")
        return result.read_bytes()


def find_compiler(isa: Isa) -> str:
    """The path of a C compiler that makes code for `isa`.

    Raises:
        RefusedError: when there is none; the message says what to install.
    """
    return compilers.find_compiler(
        compilers.C, isa.machine, isa.triple, f"kernels for {isa.name} need a C compiler to link them"
    )


def _complaint(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line or "undefined" in line), lines[0] if lines else "no reason")
