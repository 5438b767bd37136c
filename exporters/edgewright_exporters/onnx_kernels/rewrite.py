"""Puts kernels into a graph: what patterns found becomes calls, and what nothing reads any more goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewright import onnxkit
from edgewright_exporters.onnx_kernels.blocks import Blocks
from edgewright_exporters.onnx_kernels.builtin import BUILT_IN
from edgewright_exporters.onnx_kernels.looking import constants as constants_of
from edgewright_exporters.onnx_kernels.looking import is_ours
from edgewright_exporters.onnx_kernels.match import Match
from edgewright_exporters.onnx_kernels.plan import Kernels, Plan, planned
from edgewright_exporters.onnx_kernels.templates import Job, Kernel
from edgewright_exporters.onnx_kernels.wiring import Wiring, read_by, stored, wired
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
    made: Sequence[onnx.ValueInfoProto]


def jobs(proto: onnx.ModelProto, isa: Isa, kernels: Kernels = BUILT_IN) -> Sequence[Job]:
    """What kernels would do in a graph, each job once."""
    wiring = wired(proto)
    return _jobs(planned(wiring, Blocks(isa.lanes), kernels), wiring, isa)


def rewrite(proto: onnx.ModelProto, isa: Isa, choose: Choose, kernels: Kernels = BUILT_IN) -> Kernelised:
    """The same computation with kernels for `isa` in the place of what they can do.

    `proto` stays as it is. Sizes must be fixed for a node to be replaced; everything else stays.
    """
    wiring, blocks = wired(proto), Blocks(isa.lanes)
    plan = planned(wiring, blocks, kernels)
    chosen = choose(_jobs(plan, wiring, isa), isa)
    calls = [_call(wiring, match, Kernel(match.job, chosen[match.job]), isa) for match in plan.matches]
    kept = _rebuilt(proto, wiring, plan, calls)
    called = {call.kernel.symbol(isa): call.kernel for call in calls}
    replaced = Counter(call.kernel.job.name for call in calls)
    return Kernelised(kept, dict(sorted(called.items())), dict(sorted(replaced.items())), tuple(_stay(kept)))


def _jobs(plan: Plan, wiring: Wiring, isa: Isa) -> Sequence[Job]:
    """Each job of a plan once; what a plugin's templates take is looked at before anybody works with them."""
    for match in plan.matches:
        if match.by is not None and not is_ours(match.by):
            constants_of(match, Kernel(match.job, 0), wiring, isa)
    return tuple(dict.fromkeys(match.job for match in plan.matches))


def packed(kernelised: Kernelised) -> bytes:
    """The graph's bytes, with the shapes around kernels, by which they are checked when the file is opened."""
    proto = onnx.ModelProto()
    proto.CopyFrom(kernelised.proto)
    proto.ir_version = onnxkit.lowest_ir(proto)
    return proto.SerializeToString(deterministic=True)


def _call(wiring: Wiring, match: Match, kernel: Kernel, isa: Isa) -> _Call:
    held, blocks = constants_of(match, kernel, wiring, isa), Blocks(isa.lanes)
    given, made, constants = [], [], []
    for argument in kernel.arguments(isa):
        if argument.name in match.outputs:
            made.append(_made(wiring, match, argument, blocks))
        elif argument.name in match.inputs:
            given.append(match.value(argument.name, blocks))
        else:
            constants.append(stored(f"{kernel.job.name}.{argument.name}", held[argument.name]))
            given.append(constants[-1].name)
    types = [value.type.tensor_type for value in made]
    node = helper.make_node(
        "FloatKernel" if all(each.elem_type == TensorProto.FLOAT for each in types) else "Kernel",
        given,
        [value.name for value in made],
        name=f"{kernel.job.name}:{made[-1].name}",
        domain=DOMAIN,
        symbol=kernel.symbol(isa),
        shapes=[
            number for each in types for number in (len(each.shape.dim), *(dim.dim_value for dim in each.shape.dim))
        ],
        types=[each.elem_type for each in types],
        items=kernel.items(isa),
    )
    return _Call(kernel, node, constants, made)


def _made(wiring: Wiring, match: Match, argument: Any, blocks: Blocks) -> onnx.ValueInfoProto:
    """What an output of a kernel is called, and its type."""
    shape = wiring.shape(match.outputs[argument.name]) or ()
    if argument.name in match.blocked:
        shape = blocks.shape(shape)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(argument.dtype))
    return helper.make_tensor_value_info(match.value(argument.name, blocks), kind, shape)


def _rebuilt(proto: onnx.ModelProto, wiring: Wiring, plan: Plan, calls: Sequence[_Call]) -> onnx.ModelProto:
    nodes = tuple(_ordered([*plan.nodes, *(each.node for each in plan.moved), *(call.node for call in calls)]))
    read = {*wiring.outputs, *(name for node in nodes for name in read_by(node))}
    constants = {tensor.name: tensor for each in (*calls, *plan.moved) for tensor in each.constants}
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


def _ordered(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Each node after those it reads from."""
    makers = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    before = {at: [makers[n] for n in read_by(node) if n in makers] for at, node in enumerate(nodes)}
    return (nodes[at] for at in TopologicalSorter(before).static_order())


def _shapes_around(wiring: Wiring, calls: Sequence[_Call]) -> Iterator[onnx.ValueInfoProto]:
    """The types of all that kernels read and make: onnxruntime infers no shapes behind them."""
    made = {value.name: value for call in calls for value in call.made}
    known = {*wiring.outputs, *(value.name for value in wiring.graph.input)}
    for name in dict.fromkeys(name for call in calls for name in (*call.node.input, *call.node.output)):
        kind, shape = wiring.types.get(name, (0, None))
        if name in known:
            continue
        if name in made:
            yield made[name]
        elif shape is not None:
            yield helper.make_tensor_value_info(name, kind, shape)


def _stay(proto: onnx.ModelProto) -> Iterator[str]:
    staying = {name: count for name, count in onnxkit.operators(proto).items() if name in HEAVY}
    if staying:
        listed = ", ".join(f"{count} {name}" for name, count in staying.items())
        yield f"{listed} stay with onnxruntime"
