"""Writes the files of the exporter `kernels`: rewritten stages, their library, and what was checked of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.protocols import Context
from edgewright.toolchain.ortheader import headers_place
from edgewright.types import Artifact, Companion, GraphFile, Model, Needs, Stage, Variant
from edgewright_exporters.onnx import EXAMPLES, errors, source_outputs
from edgewright_exporters.onnx_kernels.choose import Measured
from edgewright_exporters.onnx_kernels.library import library_of
from edgewright_exporters.onnx_kernels.machine import runs_here
from edgewright_exporters.onnx_kernels.obstacles import best_isa
from edgewright_exporters.onnx_kernels.proofs import check_plugins
from edgewright_exporters.onnx_kernels.rewrite import Kernelised, jobs, packed, rewrite
from edgewright_exporters.onnx_kernels.running import run_files
from edgewright_exporters.tir.isa import Isa

LIBRARY = "kernels.so"
FITTING = (
    "the built-in ones do products and convolutions with constant weights, pooling, layer normalisation and attention, "
    "with fixed sizes"
)


@dataclass(frozen=True, eq=False)
class _Written:
    """A stage with kernels, as a file."""

    variant: Variant
    stage: Stage
    kernelised: Kernelised
    file: GraphFile


def export(model: Model, context: Context) -> Sequence[Artifact]:
    """The artifacts of every stage of every variant, and one library for all of them."""
    isa = best_isa(context.target)
    if isa is None:
        raise RefusedError(f"no kernels can be made for {context.target.name} ({context.target.isa})")
    cache = context.folder("kernels")
    choose = measured(model, isa, context)
    written = [_written(variant, stage, isa, choose, context) for variant in model.variants for stage in variant.stages]
    kernels = {symbol: kernel for each in written for symbol, kernel in each.kernelised.kernels.items()}
    if not kernels:
        raise RefusedError(f"no kernel fits a node of {model.name}; {FITTING}")
    check_plugins(model, kernels.values(), isa, context)
    library = context.keep(library_of(kernels, isa, cache, headers=headers_place()), "so")
    needs = Needs(isa.name, isa.machine, isa.requires)
    companion = Companion(LIBRARY, library.path, library.digest, library.path.stat().st_size, needs)
    checked = _numerics(model, written, library.path, context) if runs_here(isa) else {}
    return [_artifact(each, companion, checked) for each in written]


def measured(model: Model, isa: Isa, context: Context) -> Measured:
    """Knows the best tile of every job in the model; measuring all at once costs one start of TVM, not one a stage."""
    choose = Measured(context.folder("kernels"))
    wanted = tuple(
        dict.fromkeys(job for stage in model.stages for job in jobs(onnxkit.read(stage.graph), isa, context.kernels))
    )
    context.progress(f"kernels: {len(wanted)} to compile and time for {isa.name}")
    choose(wanted, isa)
    return choose


def _written(variant: Variant, stage: Stage, isa: Isa, choose: Measured, context: Context) -> _Written:
    kernelised = rewrite(onnxkit.read(stage.graph), isa, choose, context.kernels)
    return _Written(variant, stage, kernelised, context.keep(packed(kernelised)))


def _numerics(
    model: Model, written: Sequence[_Written], library: Path, context: Context
) -> Mapping[str, Mapping[str, float]]:
    """The error of each variant against the source model, over examples of the calibration split."""
    feeds = list(context.feed(model, "calibration", limit=EXAMPLES))
    reference = source_outputs(context.original, feeds)
    found: dict[str, Mapping[str, float]] = {}
    for variant in model.variants:
        files = [each.file.path for each in written if each.variant is variant]
        found[variant.name] = errors(model, feeds, reference, run_files(files, library, feeds))
    return found


def _artifact(each: _Written, library: Companion, checked: Mapping[str, Mapping[str, float]]) -> Artifact:
    proto, variant, stage = each.kernelised.proto, each.variant, each.stage
    last = stage is variant.stages[-1]
    return Artifact(
        name="-".join((*dict.fromkeys((variant.name, stage.name)), "kernels")),
        path=each.file.path,
        digest=each.file.digest,
        size=each.file.path.stat().st_size,
        format="onnx",
        variant=variant.name,
        stage=stage.name,
        ir=onnxkit.lowest_ir(proto),
        opsets=onnxkit.opsets(proto),
        operators=onnxkit.operators(proto),
        numerics=checked.get(variant.name, {}) if last else {},
        companions=(library,) if each.kernelised.kernels else (),
    )
