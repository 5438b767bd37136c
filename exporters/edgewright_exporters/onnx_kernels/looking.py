"""Lets kernels look for places in a graph, and checks what plugins give back before anything is compiled for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import prod

import numpy as np
from onnx import TensorProto, helper

from edgewright.errors import PluginError
from edgewright.protocols import Kernel
from edgewright.registry import blame
from edgewright.registry.discovery import GROUP
from edgewright.types import Array, Offer
from edgewright_exporters.onnx_kernels.blocks import Blocks
from edgewright_exporters.onnx_kernels.match import Match
from edgewright_exporters.onnx_kernels.templates import CASES, MEMBERS
from edgewright_exporters.onnx_kernels.templates import Kernel as Chosen
from edgewright_exporters.onnx_kernels.wiring import Wiring
from edgewright_exporters.tir.builder import Argument
from edgewright_exporters.tir.isa import Isa


def is_ours(offer: Offer[Kernel]) -> bool:
    """Whether a kernel comes with the engine."""
    return offer.plugin == GROUP


def places(offer: Offer[Kernel], wiring: Wiring) -> Sequence[Match]:
    """Every place that a kernel finds. Raises: PluginError naming its plugin where one cannot be used."""
    with blame(offer, f"looking for places of the kernel {offer.value.name!r}"):
        found = tuple(offer.value.find(wiring))
        faults = [fault for each in found if (fault := _fault(each, wiring))]
    if faults:
        raise PluginError(f"{offer.label}: the kernel {offer.value.name!r} {faults[0]}")
    return [replace(each, by=offer) for each in found]


def blamed(match: Match, doing: str) -> AbstractContextManager[object]:
    """What a template does is its plugin's doing."""
    return nullcontext() if match.by is None else blame(match.by, f"{doing} the kernel {match.by.value.name!r}")


def constants(match: Match, kernel: Chosen, wiring: Wiring, isa: Isa) -> Mapping[str, Array]:
    """What the kernel reads beside values of the graph, packed, by pointer.

    Raises: PluginError where pointers and what lies behind them are not of one type and size: it would read or write
    what is not its own.
    """
    with blamed(match, "packing constants of"):
        pointers = [each for each in kernel.arguments(isa) if each.name not in {**match.inputs, **match.outputs}]
        packed = tuple(kernel.pack(isa, match.weights))
        kernel.items(isa)
        faults = [*_misfits(match, kernel, wiring, isa), *_unfilled(pointers, packed)]
        if faults:
            raise PluginError(f"{_label(match)}: the kernel {match.job.name} {faults[0]}")
    return {pointer.name: array for pointer, array in zip(pointers, packed)}


def _label(match: Match) -> str:
    return match.by.label if match.by else "edgewright"


def _fault(match: object, wiring: Wiring) -> str | None:
    """What keeps a place from being used, to follow the kernel's name; None where nothing does."""
    if not isinstance(match, Match):
        return f"gives a {type(match).__name__}; give a Match"
    for name in (*match.inputs.values(), *match.outputs.values()):
        if name not in wiring.types:
            return f"names {name!r}, which is no value of the graph"
        if wiring.shape(name) is None:
            return f"takes {name!r}, whose sizes are not fixed; leave such values alone"
    strangers = [name for name in match.outputs.values() if name not in wiring.producers]
    if strangers:
        return f"makes {strangers[0]!r}, which no node makes"
    if match.job.template in CASES:
        return None
    lacking = [member for member in MEMBERS if not hasattr(match.job.module, member)]
    return f"has a template without {', '.join(lacking)}: {match.job.template}" if lacking else None


def _misfits(match: Match, kernel: Chosen, wiring: Wiring, isa: Isa) -> Iterator[str]:
    pointers, blocks = {each.name: each for each in kernel.arguments(isa)}, Blocks(isa.lanes)
    for name, value in {**match.inputs, **match.outputs}.items():
        kind, shape = wiring.types.get(value, (TensorProto.UNDEFINED, None))
        if name not in pointers:
            yield f"has no pointer {name!r} for {value!r}"
            continue
        dtype = str(np.dtype(helper.tensor_dtype_to_np_dtype(kind)))
        size = prod(blocks.shape(shape or ()) if name in match.blocked else shape or ())
        if (pointers[name].dtype, pointers[name].size) != (dtype, size):
            taken = f"{pointers[name].size} {pointers[name].dtype}"
            yield f"takes {taken} behind the pointer {name!r}, and {value!r} holds {size} {dtype}"


def _unfilled(pointers: Sequence[Argument], packed: Sequence[Array]) -> Iterator[str]:
    want = [(each.dtype, each.size) for each in pointers]
    have = [(str(each.dtype), each.size) for each in packed]
    if want != have:
        yield f"packs {have}, and its pointers take {want}"
