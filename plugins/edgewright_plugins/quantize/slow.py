"""Which nodes and operators int8 made slower, from two profiles of one graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from edgewright.protocols import OperatorTime
from edgewright_plugins.qdq.place import LAYERS

ATTACHED = ("Clip", "LeakyRelu", "Relu", "Sigmoid")
"""Runtimes run these as part of the layer before them."""
NOTABLE = 0.005
"""A node counts as slower when it loses more than this share of the float graph's time."""


@dataclass(frozen=True)
class Slower:
    """A node that takes longer in int8: what it loses, in microseconds and as a share of the float graph's time."""

    name: str
    operator: str
    microseconds: float
    share: float


def slower_nodes(
    proto: onnx.ModelProto, floats: Sequence[OperatorTime], integers: Sequence[OperatorTime]
) -> list[Slower]:
    """Nodes that both profiles show and that take notably longer in int8, worst first."""
    kinds = {node.name: node.op_type for node in proto.graph.node}
    before, after = _time_per_node(proto, floats), _time_per_node(proto, integers)
    total = sum(before.values())
    lost = {name: after[name] - before[name] for name in before if name in after}
    notable = [Slower(n, kinds[n], us, us / total) for n, us in lost.items() if us > NOTABLE * total]
    return sorted(notable, key=lambda node: -node.microseconds)


def per_operator(slower: Sequence[Slower]) -> dict[str, float]:
    """The microseconds lost per operator, worst first."""
    lost: dict[str, float] = defaultdict(float)
    for node in slower:
        lost[node.operator] += node.microseconds
    return dict(sorted(lost.items(), key=lambda entry: -entry[1]))


def same_operators(proto: onnx.ModelProto, slower: Sequence[Slower]) -> frozenset[str]:
    """All nodes that share an operator with a slower one, layers apart: those are judged one by one."""
    operators = {node.operator for node in slower} - set(LAYERS)
    return frozenset(node.name for node in proto.graph.node if node.op_type in operators)


def _time_per_node(proto: onnx.ModelProto, times: Sequence[OperatorTime]) -> dict[str, float]:
    """Microseconds by the name of our own node; what cannot be traced back to one is left out."""
    owners = _owners(proto)
    total: dict[str, float] = defaultdict(float)
    for entry in times:
        node = _owner(entry.node, owners)
        if node:
            total[node] += entry.median_us
    return total


def _owners(proto: onnx.ModelProto) -> dict[str, str]:
    """The node that answers for a name: for its own, for the values it puts out, for activations attached to it."""
    producers = {output: node for node in proto.graph.node for output in node.output if output}
    owners: dict[str, str] = {}
    for node in proto.graph.node:
        before = producers.get(node.input[0]) if node.input else None
        attached = before is not None and node.op_type in ATTACHED and before.op_type in LAYERS
        owner = before.name if attached and before is not None else node.name
        owners.update(dict.fromkeys((node.name, *node.output), owner))
    return owners


def _owner(name: str, owners: Mapping[str, str]) -> str | None:
    """Runtimes add to names (`conv1_token_8`, `relu1_nchwc`, `x/SliceToSplit`): the longest known beginning wins."""
    while name:
        if name in owners:
            return owners[name]
        name = name[: max(name.rfind(mark) for mark in "_/")] if "_" in name or "/" in name else ""
    return None
