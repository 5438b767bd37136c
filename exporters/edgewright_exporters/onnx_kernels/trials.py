"""Tries a kernel in graphs of its own: every tile compiled, run and compared, for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import helper, parser

from edgewright.errors import PluginError, RefusedError
from edgewright.protocols import Kernel, Trial
from edgewright.types import Array, Offer
from edgewright_exporters.onnx_kernels.choose import object_place
from edgewright_exporters.onnx_kernels.looking import blamed, constants, places
from edgewright_exporters.onnx_kernels.obstacles import without_tools, without_tvm
from edgewright_exporters.onnx_kernels.proofs import Seen, doubt_of, isa_here, seen, task_of
from edgewright_exporters.onnx_kernels.templates import Kernel as Chosen
from edgewright_exporters.onnx_kernels.templates import entry_of
from edgewright_exporters.onnx_kernels.wiring import Wiring, wired
from edgewright_exporters.onnx_kernels.workers import perform
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names


def trials(offer: Offer[Kernel], models: Sequence[str | bytes], folder: Path | None) -> Sequence[Trial]:
    """What a kernel does in each graph, given as text or bytes; nothing is compiled without a `folder`.

    Raises: RefusedError when nothing can be compiled here; PluginError for a text that is no graph, and for whatever
    the plugin does wrong before it comes to numbers.
    """
    looked = [_looked(offer, parsed(model)) for model in models]
    lost = _lost([shown for _, shown in looked], folder) if folder else [{}] * len(models)
    return [Trial(places, _doubts(shown), reasons) for (places, shown), reasons in zip(looked, lost)]


def _looked(offer: Offer[Kernel], proto: onnx.ModelProto) -> tuple[int, Sequence[Seen]]:
    """How many places there are, and what a run of the graph on noise shows at them; nothing where sizes are free."""
    wiring, isa = wired(proto), isa_here() or isa_named(isa_names()[0])
    found, feed = places(offer, wiring), _noise(wiring)
    if not found or feed is None:
        return len(found), ()
    for each in found:
        constants(each, Chosen(each.job, 0), wiring, isa)
    return len(found), seen(proto, wiring, found, feed)


def _doubts(shown: Sequence[Seen]) -> Mapping[str, str]:
    doubts = {next(iter(each.match.outputs.values())): doubt_of(each) for each in shown}
    return {name: doubt for name, doubt in doubts.items() if doubt}


def parsed(model: str | bytes) -> onnx.ModelProto:
    """A checked model. Raises: PluginError."""
    try:
        proto = parser.parse_model(model) if isinstance(model, str) else onnx.load_from_string(model)
        onnx.checker.check_model(proto)
    except (parser.ParseError, onnx.checker.ValidationError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise PluginError(f"an example is no ONNX model: {first.strip()}") from error
    return proto


def _noise(wiring: Wiring) -> Mapping[str, Array] | None:
    """Something for each input; None where a size is free."""
    rng, feed = np.random.default_rng(0), dict[str, Array]()
    for value in wiring.graph.input:
        kind, shape = wiring.types[value.name]
        if shape is None:
            return None
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
        drawn = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 100, shape)
        feed[value.name] = np.asarray(drawn).astype(dtype)
    return feed


def _lost(shown: Sequence[Sequence[Seen]], folder: Path) -> Sequence[Mapping[str, str]]:
    """Why tiles were lost, by graph: all of them on this machine's instructions, one on every other's."""
    isa = isa_here()
    if isa is None:
        raise RefusedError("there are no kernels for this machine")
    refusal = without_tvm() or without_tools(isa)
    if refusal:
        raise RefusedError(refusal.reason)
    reasons: list[dict[str, str]] = [{} for _ in shown]
    with TemporaryDirectory() as place:
        tasks = list(_tasks(shown, isa, folder, Path(place)))
        for outcome in perform([task for *_, task in tasks], isa):
            at, name, _ = tasks[outcome.task]
            if outcome.error:
                reasons[at].setdefault(name, outcome.error)
    return reasons


def _tasks(
    shown: Sequence[Sequence[Seen]], isa: Isa, folder: Path, place: Path
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """What is to be done for which graph and tile; all in one process, since TVM takes seconds to import."""
    numbered = [(at, each) for at, several in enumerate(shown) for each in several]
    for number, (at, each) in enumerate(numbered):
        for kernel in _tiles(each, isa):
            name, values = f"{isa.name}, {kernel.tile(isa)}", place / f"{number}-{kernel.choice}.npz"
            yield at, name, _make(kernel, isa, folder)
            yield at, name, task_of(each, kernel, object_place(kernel, isa, folder), values)
    for at, each in numbered[:1]:
        for other in (other for other in map(isa_named, isa_names()) if other is not isa):
            yield at, other.name, _make(Chosen(each.match.job, 0), other, folder)


def _tiles(each: Seen, isa: Isa) -> Sequence[Chosen]:
    job = each.match.job
    with blamed(each.match, "choosing tiles of"):
        return [Chosen(job, at) for at in range(len(job.module.tiles(job.case, isa)))]


def _make(kernel: Chosen, isa: Isa, folder: Path) -> Mapping[str, Any]:
    place = str(object_place(kernel, isa, folder))
    return {"do": "make", "kernel": entry_of(kernel), "place": place, "isa": isa.name}
