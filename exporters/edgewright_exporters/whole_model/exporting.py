"""Writes the artifacts of the exporter `tvm`: stages with kernels, compiled whole, and what was checked of them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.protocols import Context
from edgewright.types import Arrays, Artifact, GraphFile, Model, Stage, Variant
from edgewright_exporters.onnx import EXAMPLES, errors, source_outputs
from edgewright_exporters.onnx_kernels.choose import Measured, made, object_place
from edgewright_exporters.onnx_kernels.machine import cpu_name, runs_here
from edgewright_exporters.onnx_kernels.obstacles import best_isa
from edgewright_exporters.onnx_kernels.proofs import check_plugins
from edgewright_exporters.onnx_kernels.rewrite import Kernelised, jobs, packed, rewrite
from edgewright_exporters.onnx_kernels.templates import source_digest
from edgewright_exporters.onnx_kernels.workers import perform
from edgewright_exporters.tir.compiler import TVM_VERSIONS
from edgewright_exporters.tir.isa import Isa
from edgewright_exporters.whole_model.preparing import prepared
from edgewright_exporters.whole_model.tuning import RECORDS

COMMAND = (sys.executable, "-m", "edgewright_exporters.whole_model.compiling")
LIMIT = 900.0
"""Seconds that one stage may take to compile; TVM needs some for each operator that it has not seen before."""


@dataclass(frozen=True, eq=False)
class _Graph:
    """A stage with kernels, and where what TVM makes of it is kept."""

    variant: Variant
    stage: Stage
    kernelised: Kernelised
    file: GraphFile
    place: Path
    schedules: Path | None = None
    """Where those are kept that were found for it."""


def export(model: Model, context: Context) -> Sequence[Artifact]:
    """The artifacts of every stage of every variant."""
    isa = best_isa(context.target)
    if isa is None:
        raise RefusedError(f"nothing can be compiled for {context.target.name} ({context.target.isa})")
    graphs = _rewritten(model, isa, context)
    if context.tune_seconds:
        graphs = _tuned(graphs, isa, context)
    _compile([graph for graph in graphs if not graph.place.is_file()], isa, context)
    checked = _numerics(model, graphs, isa, context) if runs_here(isa) else {}
    return [_artifact(graph, checked, context) for graph in graphs]


def _rewritten(model: Model, isa: Isa, context: Context) -> Sequence[_Graph]:
    choose = Measured(context.folder("kernels"))
    protos = {stage.graph.digest: prepared(onnxkit.read(stage.graph)) for stage in model.stages}
    wanted = tuple(dict.fromkeys(job for proto in protos.values() for job in jobs(proto, isa, context.kernels)))
    context.progress(f"tvm: {len(wanted)} kernels to compile and time for {isa.name}")
    choose(wanted, isa)
    found: list[_Graph] = []
    for variant in model.variants:
        for stage in variant.stages:
            kernelised = rewrite(protos[stage.graph.digest], isa, choose, context.kernels)
            file = context.keep(packed(kernelised))
            found.append(_Graph(variant, stage, kernelised, file, _place(kernelised, file, isa, context)))
    kernels = [kernel for graph in found for kernel in graph.kernelised.kernels.values()]
    check_plugins(model, kernels, isa, context, read=lambda graph: prepared(onnxkit.read(graph)))
    return found


def _tuned(graphs: Sequence[_Graph], isa: Isa, context: Context) -> Sequence[_Graph]:
    """The graphs with what was found for each in `tune_seconds`, those of earlier runs counted."""
    if not runs_here(isa):
        raise RefusedError(f"--tune times candidates on this machine, which does not run {isa.name}; leave it out")
    places = [_schedules(graph.file, isa, context) for graph in graphs]
    seconds = context.tune_seconds
    tasks = [
        {"do": "tune", "graph": str(graph.file.path), "schedules": str(place), "seconds": seconds}
        for graph, place in zip(graphs, places)
    ]
    for outcome in perform(
        tasks, isa, limit=LIMIT, command=COMMAND, hear=lambda text: context.progress(f"tvm: {text}")
    ):
        if outcome.error:
            context.progress(f"tvm: the search for {graphs[outcome.task].stage.name} ended early: {outcome.error}")
    return [
        replace(graph, schedules=place, place=_place(graph.kernelised, graph.file, isa, context, place))
        for graph, place in zip(graphs, places)
    ]


def _schedules(file: GraphFile, isa: Isa, context: Context) -> Path:
    """Under everything that decides which schedules are good; MetaSchedule itself tells functions apart."""
    about = repr((file.digest, isa, cpu_name(), TVM_VERSIONS))
    return context.folder("tvm") / f"schedules-{hashlib.sha256(about.encode()).hexdigest()}"


def _place(kernelised: Kernelised, file: GraphFile, isa: Isa, context: Context, schedules: Path | None = None) -> Path:
    """Under everything that decides what comes out: a second run, or one after a kill, compiles nothing again."""
    records = schedules / RECORDS if schedules else None
    found = hashlib.sha256(records.read_bytes()).hexdigest() if records and records.is_file() else ""
    sources = sorted({source_digest(), *(source_digest(k.job.template) for k in kernelised.kernels.values())})
    about = repr((file.digest, isa, sources, _own_digest(), TVM_VERSIONS, found))
    return context.folder("tvm") / f"{hashlib.sha256(about.encode()).hexdigest()}.so"


@cache
def _own_digest() -> str:
    """The digest of this package: what was compiled by another version of it is stale."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()


def _compile(graphs: Sequence[_Graph], isa: Isa, context: Context) -> None:
    kept = context.folder("kernels")
    kernels = [kernel for graph in graphs for kernel in graph.kernelised.kernels.values()]
    for kernel, reason in made(list(dict.fromkeys(kernels)), isa, kept).items():
        raise RefusedError(f"the kernel {kernel.symbol(isa)} cannot be compiled for {isa.name}: {reason}")
    tasks = [
        {
            "do": "compile",
            "graph": str(graph.file.path),
            "place": str(graph.place),
            "objects": [str(object_place(k, isa, kept)) for k in graph.kernelised.kernels.values()],
            "schedules": str(graph.schedules or ""),
        }
        for graph in graphs
    ]
    context.progress(f"tvm: {len(tasks)} stages to compile for {isa.name}")
    _done(tasks, [graph.stage.name for graph in graphs], isa)


def _done(tasks: Sequence[Mapping[str, Any]], names: Sequence[str], isa: Isa) -> None:
    """Has tasks done in a process of their own. Raises: RefusedError with the reason why one was not."""
    for outcome in perform(tasks, isa, limit=LIMIT, command=COMMAND):
        if outcome.error:
            raise RefusedError(f"the stage {names[outcome.task]} stays with other exporters: {outcome.error}")


def _numerics(model: Model, graphs: Sequence[_Graph], isa: Isa, context: Context) -> Mapping[str, Mapping[str, float]]:
    """The error of each variant against the source model, over examples of the calibration split."""
    feeds = list(context.feed(model, "calibration", limit=EXAMPLES))
    if not feeds:
        return {}
    reference = source_outputs(context.original, feeds)
    found: dict[str, Mapping[str, float]] = {}
    for variant in model.variants:
        own = [graph for graph in graphs if graph.variant is variant]
        found[variant.name] = errors(model, feeds, reference, _outputs(own, feeds, isa))
    return found


def _outputs(graphs: Sequence[_Graph], feeds: Sequence[Arrays], isa: Isa) -> list[Arrays]:
    """All that a chain of stages makes of each feed."""
    with TemporaryDirectory() as folder:
        given, results = Path(folder) / "feeds.npz", Path(folder) / "results.npz"
        np.savez(given, allow_pickle=False, **{name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]})
        files = [str(graph.place) for graph in graphs]
        _done(
            [{"do": "run", "files": files, "feeds": str(given), "results": str(results)}], [graphs[-1].stage.name], isa
        )
        with np.load(results) as arrays:
            pool = dict(arrays)
    return [{name: array[at] for name, array in pool.items()} for at in range(len(feeds))]


def _artifact(graph: _Graph, checked: Mapping[str, Mapping[str, float]], context: Context) -> Artifact:
    proto, variant, stage = graph.kernelised.proto, graph.variant, graph.stage
    file = context.keep(graph.place.read_bytes(), "tvm")
    return Artifact(
        name="-".join((*dict.fromkeys((variant.name, stage.name)), "tvm")),
        path=file.path,
        digest=file.digest,
        size=file.path.stat().st_size,
        format="tvm",
        variant=variant.name,
        stage=stage.name,
        ir=onnxkit.lowest_ir(proto),
        opsets=onnxkit.opsets(proto),
        operators=onnxkit.operators(proto),
        numerics=checked.get(variant.name, {}) if stage is variant.stages[-1] else {},
    )
