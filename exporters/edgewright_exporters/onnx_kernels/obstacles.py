"""Says what keeps kernels from a target, before any is compiled."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from edgewright.errors import RefusedError
from edgewright.toolchain.ortheader import find_header, headers_place
from edgewright.types import Refusal, Target
from edgewright_exporters.tir.compiler import INSTALL, TVM_VERSIONS
from edgewright_exporters.tir.isa import Isa, isas_of
from edgewright_exporters.tir.linking import find_compiler


def obstacle(target: Target) -> Refusal | None:
    """The first reason why no kernel can be had, whatever the model; None where all is there."""
    isa = best_isa(target)
    if isa is None:
        return Refusal(f"no kernels can be made for {target.name}: its instruction set ({target.isa}) has no templates")
    return without_tvm() or without_tools(isa)


def best_isa(target: Target) -> Isa | None:
    """The best instruction set that a target has."""
    return next(iter(isas_of(target)), None)


def without_tvm() -> Refusal | None:
    """Why TVM cannot be used; None where the versions that were tested are installed."""
    for package, wanted in TVM_VERSIONS.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            return Refusal(f"kernels are compiled by TVM, which is not installed; `{INSTALL}` installs it")
        if found != wanted:
            return Refusal(f"kernels need {package} {wanted}, and {found} is installed; `{INSTALL}` installs it")
    return None


def without_tools(isa: Isa) -> Refusal | None:
    """Why kernels cannot be linked; None where a compiler and onnxruntime's header are there."""
    try:
        find_compiler(isa)
        find_header(headers_place())
    except RefusedError as refusal:
        return Refusal(str(refusal))
    return None
