"""Compares what kernels of plugins compute with the graph that they stand in for, before anything ships."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgewright import onnxkit
from edgewright.errors import PluginError
from edgewright.numerics import difference
from edgewright.protocols import Context
from edgewright.types import Array, Arrays, Graph, Model
from edgewright_exporters.onnx_kernels.choose import made, object_place
from edgewright_exporters.onnx_kernels.looking import blamed, is_ours, places
from edgewright_exporters.onnx_kernels.machine import runs_here
from edgewright_exporters.onnx_kernels.match import Match
from edgewright_exporters.onnx_kernels.templates import CASES, Job, Kernel, entry_of
from edgewright_exporters.onnx_kernels.wiring import Wiring, wired
from edgewright_exporters.onnx_kernels.workers import perform
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names

FAR = 1e-4
"""How far a reference may be from what the graph computes in float32, as a share of the largest value."""

Read = Callable[[Graph], onnx.ModelProto]


@dataclass(frozen=True, eq=False)
class Seen:
    """A place of a kernel in a run of its graph: what it reads, and what the graph computes there, by pointer."""

    match: Match
    given: Mapping[str, Array]
    computed: Mapping[str, Array]


def check_plugins(
    model: Model, kernels: Collection[Kernel], isa: Isa, context: Context, *, read: Read = onnxkit.read
) -> None:
    """Compares the kernels of plugins among `kernels` with their references, and those with the model's stages.

    Where `isa` does not run here, the same cases are compiled for one that does. `read` gives the graphs of stages as
    kernels were found in them.

    Raises: PluginError naming the plugin whose kernel cannot be compiled, crashes, or computes something else.
    """
    if all(map(is_ours, context.kernels)):
        return
    choices = {kernel.job: kernel for kernel in kernels}
    shown = list(_seen_in(model, choices, context, read))
    for each in shown:
        doubt = doubt_of(each)
        if doubt:
            raise PluginError(f"{_named(each.match)} would change {model.name}: {doubt}")
    here = isa if runs_here(isa) else isa_here()
    if here is not None:
        firsts = {each.match.job: each for each in reversed(shown)}
        pairs = [(each, choices[job] if here is isa else Kernel(job, 0)) for job, each in firsts.items()]
        for kernel, reason in lost(pairs, here, context.folder("kernels")).items():
            raise PluginError(f"{_named(firsts[kernel.job].match)} is not used: compiled for {here.name}, {reason}")


def isa_here() -> Isa | None:
    """The best instruction set that this machine runs."""
    return next((isa for isa in map(isa_named, isa_names()) if runs_here(isa)), None)


def seen(proto: onnx.ModelProto, wiring: Wiring, matches: Sequence[Match], feed: Arrays) -> Sequence[Seen]:
    """What a run of a graph on this host shows at each place."""
    values = dict.fromkeys(name for each in matches for name in (*each.inputs.values(), *each.outputs.values()))
    shown = _shown(proto, wiring, tuple(values), feed)
    return [
        Seen(each, *({p: shown[name] for p, name in by.items()} for by in (each.inputs, each.outputs)))
        for each in matches
    ]


def _shown(proto: onnx.ModelProto, wiring: Wiring, names: Sequence[str], feed: Arrays) -> Mapping[str, Array]:
    held = {name: wiring.constant(name) for name in names if name in wiring.constants}
    inner = [name for name in names if name not in held and name not in feed]
    opened = onnx.ModelProto()
    opened.CopyFrom(proto)
    there = {value.name for value in opened.graph.output}
    extra = (helper.make_tensor_value_info(name, *wiring.types[name]) for name in inner if name not in there)
    opened.graph.output.extend(extra)
    (computed,) = onnxkit.run(onnxkit.pack(opened), [feed], inner) if inner else ([],)
    return {**feed, **{n: value for n, value in held.items() if value is not None}, **dict(zip(inner, computed))}


def reference_of(each: Seen) -> Mapping[str, Array]:
    """What the template's NumPy function says is computed there, by pointer, in the graph's types.

    Templates of ours are compared with theirs by tests: what the graph computes stands for it.
    """
    job = each.match.job
    if job.template in CASES:
        return each.computed
    with blamed(each.match, "computing the reference of"):
        found = job.module.reference(job.case, **each.given, **each.match.weights)
        parts = found if isinstance(found, tuple) else (found,)
        return {n: np.asarray(p).astype(want.dtype) for (n, want), p in zip(each.computed.items(), parts, strict=True)}


def doubt_of(each: Seen) -> str:
    """How the reference differs from the graph, in words; empty where it does not."""
    found = reference_of(each)
    for pointer, want in each.computed.items():
        off = difference(pointer, want.ravel(), found[pointer].ravel())
        if off.max_abs > 1 if want.dtype.kind in "iu" else off.max_rel > FAR:
            told = f"its reference is off by {off.max_rel:.2g} of the largest value of {each.match.outputs[pointer]!r}"
            return f"{told}, so that its pattern finds what it does not compute"
    return ""


def lost(pairs: Sequence[tuple[Seen, Kernel]], isa: Isa, cache: Path) -> Mapping[Kernel, str]:
    """The kernels that cannot be compiled, crash, or compute something else than their references, with reasons."""
    broken = dict(made([kernel for _, kernel in pairs], isa, cache))
    tried = [(each, kernel) for each, kernel in pairs if kernel not in broken]
    with TemporaryDirectory() as folder:
        tasks = [
            task_of(each, kernel, object_place(kernel, isa, cache), Path(folder) / f"{at}.npz")
            for at, (each, kernel) in enumerate(tried)
        ]
        broken.update({tried[each.task][1]: each.error for each in perform(tasks, isa) if each.error})
    return broken


def task_of(each: Seen, kernel: Kernel, place: Path, values: Path) -> Mapping[str, Any]:
    """The task `prove` of the workshop; what it needs is written to the file `values`."""
    parts = (("<", each.given), ("=", each.match.weights), (">", reference_of(each)))
    arrays = {f"{kind}{name}": np.asarray(value) for kind, part in parts for name, value in part.items()}
    np.savez(values, allow_pickle=False, **arrays)
    named = {"kernel": entry_of(kernel), "place": str(place), "values": str(values)}
    return {"do": "prove", **named, "blocked": sorted(each.match.blocked)}


def _named(match: Match) -> str:
    assert match.by is not None
    return f"{match.by.label}: the kernel {match.by.value.name!r}"


def _seen_in(model: Model, wanted: Collection[Job], context: Context, read: Read) -> Iterator[Seen]:
    """The places of plugins' kernels in every stage, as the first calibration example comes by."""
    feed = next(iter(context.feed(model, "calibration")), model.example)
    for variant in model.variants:
        pool = dict(feed)
        for stage in variant.stages:
            proto = read(stage.graph)
            wiring = wired(proto)
            found = [each for by in context.kernels if not is_ours(by) for each in places(by, wiring)]
            yield from seen(proto, wiring, [each for each in found if each.job in wanted], pool)
            names = [value.name for value in proto.graph.output]
            pool.update(zip(names, next(onnxkit.run(onnxkit.pack(proto), [pool]))))
