"""Says what keeps kernels from a model, before any is compiled."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.ortheader import find_header, headers_place
from edgewright.types import Model, Refusal, Target
from edgewright_exporters.onnx_kernels.blocks import Blocks
from edgewright_exporters.onnx_kernels.plan import planned
from edgewright_exporters.onnx_kernels.wiring import wired
from edgewright_exporters.tir.compiler import INSTALL, TVM_VERSIONS
from edgewright_exporters.tir.isa import Isa, isas_of
from edgewright_exporters.tir.linking import find_compiler


def obstacle(model: Model, target: Target) -> Refusal | None:
    """The first reason why no kernel can be had; None where all is there."""
    isa = best_isa(target)
    if isa is None:
        return Refusal(f"no kernels can be made for {target.name}: its instruction set ({target.isa}) has no templates")
    return without_tvm() or _without_tools(isa) or _without_work(model, isa)


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


def _without_tools(isa: Isa) -> Refusal | None:
    try:
        find_compiler(isa)
        find_header(headers_place())
    except RefusedError as refusal:
        return Refusal(str(refusal))
    return None


def _without_work(model: Model, isa: Isa) -> Refusal | None:
    if any(planned(wired(onnxkit.read(stage.graph)), Blocks(isa.lanes)).matches for stage in model.stages):
        return None
    return Refusal(
        f"no kernel fits a node of {model.name}; they do products and convolutions with constant weights, pooling, "
        "layer normalisation and attention, with fixed sizes"
    )
