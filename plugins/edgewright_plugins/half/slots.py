"""Which inputs and outputs of an operator may be 16-bit floats: by its schema, and by what onnxruntime has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import helper

from edgewright import onnxkit
from edgewright_plugins.half.floats import HalfType, is_float

KEPT = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
"""A scale in 16 bits would move every quantised value."""

Formal = onnx.defs.OpSchema.FormalParameter


@dataclass(frozen=True)
class Slots:
    """The positions of a node's inputs and outputs that take the 16-bit type."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def find_slots(node: ir.Node, opsets: Mapping[str, int], half: HalfType) -> Slots | None:
    """Where the operator's schema takes the type; None when nowhere, or when it is not known.

    An output follows when it has the type variable of an input that does: so a Cast's does not.
    """
    if node.op_type in KEPT or any(_is_graph(attribute) for attribute in node.attributes.values()):
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 0), node.domain)
    except onnx.defs.SchemaError:
        return None
    formals = {i: _formal(schema.inputs, i) for i, value in enumerate(node.inputs) if is_float(value)}
    taken = {i: formal.type_str for i, formal in formals.items() if half.schema in formal.types}
    given = (
        i
        for i, value in enumerate(node.outputs)
        if is_float(value) and _formal(schema.outputs, i).type_str in taken.values()
    )
    return Slots(tuple(taken), tuple(given)) if taken else None


@dataclass(frozen=True)
class Runtime:
    """What onnxruntime on this host can run, each question asked once."""

    opsets: Mapping[str, int]
    half: HalfType
    known: dict[str, bool]

    def has(self, node: ir.Node, slots: Slots) -> bool:
        """Whether it opens a graph of that one node in 16 bits. It may well cast inside: that is its business."""
        types = [self._code(v, i in slots.inputs) for i, v in enumerate(node.inputs) if v is not None]
        key = f"{node.domain}::{node.op_type} {types} {sorted(node.attributes)}"
        if key not in self.known:
            self.known[key] = _opens(self._alone(node, slots))
        return self.known[key]

    def _alone(self, node: ir.Node, slots: Slots) -> onnx.ModelProto:
        inputs = {v.name: self._info(v, i in slots.inputs) for i, v in enumerate(node.inputs) if v is not None}
        outputs = [self._info(v, i in slots.outputs) for i, v in enumerate(node.outputs) if v.name]
        graph = helper.make_graph([ir.serde.serialize_node(node)], "alone", list(inputs.values()), outputs)
        imports = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        return helper.make_model(graph, opset_imports=imports)

    def _info(self, value: ir.Value, halved: bool) -> onnx.ValueInfoProto:
        sizes = None if value.shape is None else [d if isinstance(d, int) else None for d in value.shape]
        return helper.make_tensor_value_info(str(value.name), self._code(value, halved), sizes)

    def _code(self, value: ir.Value, halved: bool) -> int:
        return int(self.half.code if halved else value.dtype or 0)


def _is_graph(attribute: ir.Attr) -> bool:
    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _formal(formals: Sequence[Formal], index: int) -> Formal:
    """The last formal parameter of a variadic operator stands for all that follow."""
    return formals[min(index, len(formals) - 1)]


def _opens(proto: onnx.ModelProto) -> bool:
    try:
        onnxkit.session(onnxkit.pack(proto))
    except Exception:  # noqa: BLE001 - onnxruntime has no common root for what it raises; any failure is a no
        return False
    return True
