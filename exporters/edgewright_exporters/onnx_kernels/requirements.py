"""What this host needs to make kernels for itself and for other machines, for `engine doctor`."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import partial

from edgewright.errors import RefusedError
from edgewright.protocols import Requirement
from edgewright.toolchain.ortheader import fetch_header, find_header, headers_place
from edgewright_exporters.onnx_kernels.obstacles import without_tvm
from edgewright_exporters.tir.compiler import TVM_VERSIONS
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names
from edgewright_exporters.tir.linking import find_compiler


def requirements() -> Sequence[Requirement]:
    """TVM, C compilers for this machine and for others, and onnxruntime's C header, which alone can be fetched."""
    headers = headers_place()
    refusal = without_tvm()
    versions = ", ".join(f"{name} {version}" for name, version in TVM_VERSIONS.items())
    return (
        Requirement("TVM", "" if refusal else versions, refusal.reason if refusal else ""),
        _told("C compiler", _compiler),
        *(_told(f"C compiler for {isa.machine}", partial(find_compiler, isa)) for isa in _elsewhere()),
        _told("onnxruntime's C header", lambda: str(find_header(headers).folder), lambda: fetch_header(headers)),
    )


def _compiler() -> str:
    isa = next((isa for isa in map(isa_named, isa_names()) if isa.machine == platform.machine()), None)
    if isa is None:
        raise RefusedError(f"there are no kernels for {platform.machine()}")
    return find_compiler(isa)


def _elsewhere() -> Sequence[Isa]:
    """One instruction set of each other machine that kernels can be made for."""
    machines = {isa.machine: isa for isa in map(isa_named, isa_names())}
    return [isa for machine, isa in machines.items() if machine != platform.machine()]


def _told(name: str, find: Callable[[], str], fix: Callable[[], object] | None = None) -> Requirement:
    try:
        return Requirement(name, find())
    except RefusedError as refusal:
        return Requirement(name, reason=str(refusal), fix=fix)
