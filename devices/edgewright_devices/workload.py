"""Counts what an ONNX graph asks of a device: operations and bytes, node by node, at the width they run in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright_devices.fusions import fuse
from edgewright_devices.loops import Product, macs_of, product_of
from edgewright_devices.nodes import Node, nodes_of
from edgewright_devices.operators import OPAQUE, SELECT, VIEWS
from edgewright_devices.prepare import branches, prepare, read
from edgewright_devices.tensors import (
    Shape,
    Tensors,
    data_of,
    is_fused,
    is_quantised,
    multiplies,
    operands_of,
    read_constants,
    read_tensors,
    stands_apart,
)

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Work:
    """What one node asks for. `operator` is the standard one that does the same work; `ops` counts a MAC as two
    (other nodes: one per output element). `dtype` is what the node computes in: `int8` between quantised tensors,
    `float16`, else `float32`. `product` says how a node that multiplies does it. `idle` marks work on what is known
    to be 0: some runtimes leave it out. `fed` are the values among what it reads that come from outside the graph.
    `critical` marks what multiplies on the path with the most MACs: no runtime can do that at the same time as the
    rest of the path, however many kernels it runs at once. `apart` marks a sum that no product before it can take in.
    """

    name: str
    operator: str
    dtype: str
    macs: int
    ops: int
    weight_bytes: int
    activation_bytes: int
    product: Product | None = None
    idle: bool = False
    fed: int = 0
    critical: bool = False
    apart: bool = False

    @property
    def bytes(self) -> int:
        """All that moves between the node and memory, if nothing stays in a cache."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True)
class Workload:
    """The nodes of a graph that cost something, and by name and operator those that could not be counted.

    `opaque` ones may hide most of the work; `uncounted` ones only move data, whose size is not known.
    """

    works: tuple[Work, ...]
    opaque: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(work.macs for work in self.works)

    @property
    def weight_bytes(self) -> int:
        """Weights read in one run, at their stored width; a shared weight counts each time it is read."""
        return sum(work.weight_bytes for work in self.works)


def workload(path: Path, shapes: Mapping[str, Shape] | None = None, *, batch: int = 1) -> Workload:
    """What one run of the ONNX file at `path` asks for.

    `shapes` are the sizes of inputs by name; for other inputs a free first dimension is `batch`, any other 1.
    The branches of an `If` count as the dearer of the two.

    Raises: ModelError when the file cannot be read.
    """
    return count(read(path), shapes, batch=batch)


def count(proto: onnx.ModelProto, shapes: Mapping[str, Shape] | None = None, *, batch: int = 1) -> Workload:
    """`workload` of a model in memory, which is changed."""
    prepared = prepare(proto, shapes or {}, batch)
    return _count(prepared.graph, prepared.nodes, Tensors())


def _count(graph: onnx.GraphProto, nodes: Sequence[Node], tensors: Tensors) -> Workload:
    tensors = tensors.copy()
    read_constants(graph, tensors)
    nodes = fuse(nodes, tensors.constants, [value.name for value in graph.output])
    read_tensors(graph, nodes, tensors)
    works: list[Work] = []
    opaque: list[str] = []
    uncounted: list[str] = []
    path = _heaviest_path(nodes, tensors)
    for node in nodes:
        if node.op_type == "If":
            inner = max((_count(each, nodes_of(each), tensors) for each in branches(node)), key=lambda load: load.macs)
            works += inner.works
            opaque += inner.opaque
            uncounted += inner.uncounted
        elif _is_free(node, tensors):
            continue
        elif not _is_opaque(node) and _known(node, tensors):
            works.append(_work(node, tensors, critical=node.output[0] in path))
        elif _is_opaque(node) or multiplies(node):
            opaque.append(_label(node))
        else:
            uncounted.append(_label(node))
    return Workload(tuple(works), tuple(opaque), tuple(uncounted))


def _heaviest_path(nodes: Sequence[Node], tensors: Tensors) -> set[str]:
    """What is written along the path through the graph that has the most MACs, work on zeros left out."""
    total: dict[str, int] = {"": 0}
    before: dict[str, str] = {}
    for node in nodes:
        most, longest = max([(total.get(name, 0), name) for name in node.input], default=(0, ""))
        own = _live_macs(node, tensors) if multiplies(node) else 0
        for name in node.output:
            total[name], before[name] = most + own, longest
    path, name = set[str](), max(total, key=lambda name: total[name])
    while name in before:
        path.add(name)
        name = before[name]
    return path


def _live_macs(node: Node, tensors: Tensors) -> int:
    counted = not _is_opaque(node) and _known(node, tensors) and tensors.zeros.isdisjoint(data_of(node, tensors))
    return macs_of(node, operands_of(node), tensors) if counted else 0


def _label(node: Node) -> str:
    return f"{node.name} ({node.op_type})"


def _is_opaque(node: Node) -> bool:
    """Whether shapes do not tell the node's work: a loop, an attention, an operator of someone's own."""
    return node.op_type in OPAQUE or node.domain not in {"", "ai.onnx", "ai.onnx.ml"}


def _is_free(node: Node, tensors: Tensors) -> bool:
    """Constant expressions are folded, views move nothing, and (de)quantising is fused into its neighbours."""
    if tensors.constants.issuperset(node.output) or node.op_type in VIEWS:
        return True
    if node.op_type == "QuantizeLinear":
        return node.input[0] in tensors.quantised
    if node.op_type == "DequantizeLinear":
        return node.output[0] not in tensors.widened
    return is_fused(node, tensors)


def _known(node: Node, tensors: Tensors) -> bool:
    return node.output[0] in tensors.shapes and all([name in tensors.shapes for name in operands_of(node)])


def _work(node: Node, tensors: Tensors, *, critical: bool) -> Work:
    read = operands_of(node)
    macs = macs_of(node, read, tensors)
    weights = sum(tensors.bytes(name) for name in read if name in tensors.constants)
    moved = sum(tensors.bytes(name) for name in read if name not in tensors.constants)
    written = sum(tensors.bytes(name) for name in node.output if name in tensors.shapes)
    moved = min(moved, written) if node.op_type in SELECT else moved
    return Work(
        name=node.name,
        operator=node.op_type,
        dtype=_dtype(node, tensors),
        macs=macs,
        ops=2 * macs or tensors.size(node.output[0]),
        weight_bytes=weights,
        activation_bytes=moved + written,
        product=product_of(node, read, tensors, macs) if macs else None,
        idle=any(name in tensors.zeros for name in (*data_of(node, tensors), *node.output)),
        fed=sum(tensors.size(name) for name in read if name in tensors.inputs),
        critical=critical and macs > 0,
        apart=stands_apart(node, tensors),
    )


def _dtype(node: Node, tensors: Tensors) -> str:
    if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        return "int8"
    if is_quantised(node, tensors):
        return "int8"
    return "float16" if tensors.bits.get(node.input[0], 32) == 16 else "float32"
