"""Puts kernels into a graph: what patterns found becomes calls, and what nothing reads any more goes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright import onnxkit
from edgewright_exporters.onnx_kernels.attentions import attentions
from edgewright_exporters.onnx_kernels.match import Match
from edgewright_exporters.onnx_kernels.norms import norms
from edgewright_exporters.onnx_kernels.products import products
from edgewright_exporters.onnx_kernels.qproducts import qproducts
from edgewright_exporters.onnx_kernels.reshapes import without_reshapes
from edgewright_exporters.onnx_kernels.templates import Job, Kernel
from edgewright_exporters.onnx_kernels.wiring import Wiring, read_by, wired
from edgewright_exporters.tir.isa import Isa

DOMAIN = "edgewright"
HEAVY = ("Conv", "ConvTranspose", "Gemm", "LayerNormalization", "MatMul", "Softmax")
"""Operators worth a word when they stay."""

Choose = Callable[[Sequence[Job], Isa], Mapping[Job, int]]
"""Which tile each job gets, counted from its template's best guess."""


@dataclass(frozen=True, eq=False)
class Kernelised:
    """A graph that calls kernels: those it needs by symbol, and how many calls there are of each template."""

    proto: onnx.ModelProto
    kernels: Mapping[str, Kernel]
    replaced: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Call:
    """A match with its kernel chosen, as the graph will hold it."""

    kernel: Kernel
    node: onnx.NodeProto
    constants: Sequence[TensorProto]


def matches(wiring: Wiring) -> Sequence[Match]:
    """Everything in a graph that kernels can do; no value is made by two of them."""
    found: list[Match] = [*attentions(wiring), *products(wiring), *qproducts(wiring)]
    found.extend(norms(wiring, {name for match in found for name in match.outputs.values()}))
    return without_reshapes(wiring, found)


def jobs(proto: onnx.ModelProto) -> Sequence[Job]:
    """What kernels would do in a graph, each job once."""
    return tuple(dict.fromkeys(match.job for match in matches(wired(proto))))


def rewrite(proto: onnx.ModelProto, isa: Isa, choose: Choose) -> Kernelised:
    """The same computation with kernels for `isa` in the place of what they can do.

    `proto` stays as it is. Sizes must be fixed for a node to be replaced; everything else stays.
    """
    wiring = wired(proto)
    found = matches(wiring)
    chosen = choose(tuple(dict.fromkeys(match.job for match in found)), isa)
    calls = [_call(wiring, match, Kernel(match.job, chosen[match.job]), isa) for match in found]
    kept = _rebuilt(proto, wiring, calls)
    kernels = {call.kernel.symbol(isa): call.kernel for call in calls}
    replaced = Counter(call.kernel.job.template for call in calls)
    return Kernelised(kept, dict(sorted(kernels.items())), dict(sorted(replaced.items())), tuple(_stay(kept)))


def packed(kernelised: Kernelised) -> bytes:
    """The graph's bytes, with the shapes around kernels, by which they are checked when the file is opened."""
    proto = onnx.ModelProto()
    proto.CopyFrom(kernelised.proto)
    proto.ir_version = onnxkit.lowest_ir(proto)
    return proto.SerializeToString(deterministic=True)


def _call(wiring: Wiring, match: Match, kernel: Kernel, isa: Isa) -> _Call:
    values = iter(kernel.pack(isa, match.weights))
    given, made, constants = [], [], []
    for argument in kernel.arguments(isa):
        if argument.name in match.outputs:
            made.append((match.outputs[argument.name], argument.dtype))
        elif argument.name in match.inputs:
            given.append(match.inputs[argument.name])
        else:
            constants.append(_constant(f"{kernel.job.template}.{argument.name}", next(values)))
            given.append(constants[-1].name)
    node = helper.make_node(
        "FloatKernel" if all(dtype == "float32" for _, dtype in made) else "Kernel",
        given,
        [name for name, _ in made],
        name=f"{kernel.job.template}:{made[-1][0]}",
        domain=DOMAIN,
        symbol=kernel.symbol(isa),
        shapes=[number for name, _ in made for number in _with_rank(wiring, name)],
        types=[helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for _, dtype in made],
        items=kernel.items(isa),
    )
    return _Call(kernel, node, constants)


def _with_rank(wiring: Wiring, name: str) -> Sequence[int]:
    shape = wiring.shape(name) or ()
    return len(shape), *shape


def _constant(name: str, value: Any) -> TensorProto:
    """Named by what it holds, so that equal ones are stored once."""
    digest = hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest()[:16]
    return numpy_helper.from_array(value, f"{name}.{digest}")


def _rebuilt(proto: onnx.ModelProto, wiring: Wiring, calls: Sequence[_Call]) -> onnx.ModelProto:
    made = {name for call in calls for name in call.node.output}
    others = [node for node in wiring.nodes if not made.intersection(node.output)]
    nodes = tuple(_ordered(_needed([*others, *(call.node for call in calls)], wiring.outputs)))
    read = {*wiring.outputs, *(name for node in nodes for name in read_by(node))}
    constants = {tensor.name: tensor for call in calls for tensor in call.constants}
    initializers = [*proto.graph.initializer, *constants.values()]
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    for field in ("node", "initializer", "value_info"):
        result.graph.ClearField(field)
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(tensor for tensor in initializers if tensor.name in read)
    result.graph.value_info.extend(_shapes_around(wiring, calls))
    if all(entry.domain != DOMAIN for entry in result.opset_import):
        result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return result


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> Sequence[onnx.NodeProto]:
    """The nodes that the outputs depend on, in their order."""
    makers = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    waiting, needed = [makers[name] for name in outputs if name in makers], set[int]()
    while waiting:
        at = waiting.pop()
        if at not in needed:
            needed.add(at)
            waiting.extend(makers[name] for name in read_by(nodes[at]) if name in makers)
    return [node for at, node in enumerate(nodes) if at in needed]


def _ordered(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Each node after those it reads from."""
    makers = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    before = {at: [makers[n] for n in read_by(node) if n in makers] for at, node in enumerate(nodes)}
    return (nodes[at] for at in TopologicalSorter(before).static_order())


def _shapes_around(wiring: Wiring, calls: Sequence[_Call]) -> Iterator[onnx.ValueInfoProto]:
    known = {*wiring.outputs, *(value.name for value in wiring.graph.input)}
    for name in dict.fromkeys(name for call in calls for name in (*call.node.input, *call.node.output)):
        kind, shape = wiring.types.get(name, (0, None))
        if name not in known and shape is not None:
            yield helper.make_tensor_value_info(name, kind, shape)


def _stay(proto: onnx.ModelProto) -> Iterator[str]:
    staying = {name: count for name, count in onnxkit.operators(proto).items() if name in HEAVY}
    if staying:
        listed = ", ".join(f"{count} {name}" for name, count in staying.items())
        yield f"{listed} stay with onnxruntime"
