"""Compiles a model's operators for the GPU of a Jetson Orin: PTX, and a cubin where CUDA's assembler is installed.

    python -m edgewright_exporters.whole_model.jetson model.onnx --out DIR

What is written was compiled and never ran: there is no runtime here that opens it, so it neither races nor ships.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from edgewright.errors import EdgewrightError, PluginError, RefusedError
from edgewright_exporters.onnx_kernels.workers import perform
from edgewright_exporters.onnx_kernels.workshop import serve
from edgewright_exporters.tir.isa import Isa, isa_named
from edgewright_exporters.whole_model.obstacles import troubles
from edgewright_exporters.whole_model.preparing import prepared

ARCH = "sm_87"
"""The GPUs of the Orin family."""

HOST = "armv8.2-a-dot"
CUDA = Path("/usr/local/cuda")
LABEL = f"// compiled for {ARCH} by TVM, not run\n"
LIMIT = 900.0
COMMAND = (sys.executable, "-m", "edgewright_exporters.whole_model.jetson", "--serve")


def compile_for_jetson(model: Path, out: Path) -> Sequence[Path]:
    """Write `model.ptx`, and `model.cubin` where `ptxas` is found, to the folder `out`.

    Raises:
        RefusedError: when TVM cannot do an operator of the graph, or cannot compile it.
        PluginError: when the assembler rejects the PTX.
    """
    proto = prepared(onnx.load(str(model)))
    for trouble in troubles(proto):
        raise RefusedError(f"{model.name}: {trouble}")
    ptx = out / f"{model.stem}.ptx"
    out.mkdir(parents=True, exist_ok=True)
    task = {"do": "compile", "graph": str(model.resolve()), "place": str(ptx.resolve())}
    for outcome in perform([task], isa_named(HOST), limit=LIMIT, command=COMMAND):
        if outcome.error:
            raise RefusedError(f"{model.name} cannot be compiled for {ARCH}: {outcome.error}")
    assembler = shutil.which("ptxas") or shutil.which(CUDA / "bin" / "ptxas")
    return [ptx] if assembler is None else [ptx, _assembled(assembler, ptx)]


def _assembled(assembler: str, ptx: Path) -> Path:
    cubin = ptx.with_suffix(".cubin")
    command = [assembler, f"-arch={ARCH}", str(ptx), "-o", str(cubin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PluginError(f"{assembler} rejects {ptx.name}: {done.stderr.strip().splitlines()[0]}")
    return cubin


def _compile(task: Mapping[str, Any], isa: Isa) -> None:
    """Write the PTX of a graph, scheduled by TVM's rule that fits everything and is fast at nothing."""
    import tvm
    from tvm import relax
    from tvm.s_tir import dlight
    from tvm.target import Target

    from edgewright_exporters.tir.compiler import target_of
    from edgewright_exporters.whole_model.importing import imported

    os.environ.setdefault("CUDA_PATH", str(CUDA.resolve()))
    settings = {"kind": "nvptx", "mcpu": ARCH, "max_num_threads": 1024, "thread_warp_size": 32}
    target = Target(settings, host=target_of(isa))
    try:
        with target:
            module: Any = relax.get_pipeline("zero")(imported(prepared(onnx.load(task["graph"]))))
            schedule: Any = dlight.ApplyDefaultSchedule(dlight.gpu.Fallback())
            module = schedule(module)
        compiled: Any = tvm.compile(module, target=target)
    except RefusedError:
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise PluginError(f"TVM could not compile it: {first.strip()}") from error
    Path(task["place"]).write_text(LABEL + _launchable(_device_code(compiled.mod)), encoding="utf-8")


def _device_code(module: Any) -> str:
    for each in module.imports:
        found = each.inspect_source() if each.kind == "cuda" else _device_code(each)
        if found:
            return str(found)
    return ""


def _launchable(ptx: str) -> str:
    """Kernels as entry points: LLVM 22 no longer reads the mark that TVM 0.27 puts on them, and writes functions."""
    return re.sub(r"^\.visible \.func (\w+)\(", r".visible .entry \1(", ptx, flags=re.MULTILINE)


def main(arguments: Sequence[str]) -> int:
    """The command line; `--serve` is how it starts itself as the process that compiles."""
    if list(arguments) == ["--serve"]:
        serve({"compile": _compile})
        return 0
    parser = argparse.ArgumentParser(description="Compile an ONNX model for the GPU of a Jetson Orin.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        made = compile_for_jetson(given.model, given.out)
    except EdgewrightError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write("".join(f"{path}: compiled for {ARCH}, not run\n" for path in made))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
