"""Turns loop nests into machine code; the only module that speaks to TVM's compiler.

The code that comes out is plain C to whoever calls it: `void name(const float *x, ..., int32_t begin, int32_t end)`.
TVM's own calling convention is left out on purpose, and with it every undefined symbol, so that nothing of TVM is
needed where the kernel runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewright.errors import PluginError, RefusedError
from edgewright_exporters.tir.isa import Isa

TVM_VERSIONS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post0"}
"""The pair that was tested. Other versions move names, and newer ones of the second crash."""

INSTALL = "pip install " + " ".join(f"{name}=={version}" for name, version in TVM_VERSIONS.items())


def compile_object(functions: Mapping[str, Any], isa: Isa) -> bytes:
    """An ELF object file with one C function per entry of `functions` (symbol to TIR PrimFunc).

    The same functions give the same bytes. What LLVM itself rejects, such as an instruction that the instruction set
    lacks, ends the process: try new templates in a process of their own.

    Raises:
        RefusedError: when TVM is not installed.
        PluginError: when TVM cannot compile a function; the cause is chained.
    """
    module = _machine_code(functions, isa)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        module.write_to_file(str(path), "o")
        return path.read_bytes()


def assembly(functions: Mapping[str, Any], isa: Isa) -> str:
    """The same code as text, to be read by people."""
    return str(_machine_code(functions, isa).inspect_source("asm"))


def _machine_code(functions: Mapping[str, Any], isa: Isa) -> Any:
    try:
        import tvm
    except ImportError as error:
        raise RefusedError(f"kernels are compiled by TVM, which is not installed; `{INSTALL}` installs it") from error
    target = target_of(isa)
    try:
        module = _lowered(tvm.IRModule(dict(functions)), target)
        return tvm.get_global_func("target.build.llvm")(module, target)
    except Exception as error:
        first = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        names = ", ".join(functions)
        raise PluginError(f"TVM could not compile {names} for {isa.name}: {first.strip()}") from error


def target_of(isa: Isa) -> Any:
    """An instruction set as TVM describes it, its own host; one core, for threads are a caller's business."""
    from tvm.target import Target

    about = {"kind": "llvm", "mtriple": isa.triple, "mcpu": isa.mcpu, "mattr": list(isa.mattr), "num-cores": 1}
    target = Target(about)
    return target.with_host(target)


def _lowered(module: Any, target: Any) -> Any:
    """The passes that these functions need, in TVM's usual order.

    What is left out: everything for other devices, and the two that make functions callable by TVM alone.
    """
    from tvm import s_tir, tirx
    from tvm.ir.transform import Sequential

    passes = [
        tirx.transform.BindTarget(target),
        s_tir.transform.StmtSimplify(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.StorageRewrite(),
        tirx.transform.UnrollLoop(),
        s_tir.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        tirx.transform.CommonSubexprElim(),
        tirx.transform.LowerIntrin(),
    ]
    return Sequential(passes)(module)
