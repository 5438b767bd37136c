"""A graph as patterns look at it: who makes a value, who reads it, what is constant, and which shapes are fixed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright.types import Array

STANDARD = ("", "ai.onnx")
INTEGERS = {TensorProto.INT8: np.int8, TensorProto.INT32: np.int32}
"""What narrower codes are widened to."""


@dataclass(frozen=True, eq=False)
class Wiring:
    """The nodes of a graph by position, with maps between them and their values."""

    graph: onnx.GraphProto

    @cached_property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """Every node, in the graph's order."""
        return tuple(self.graph.node)

    @cached_property
    def outputs(self) -> frozenset[str]:
        """What the graph returns."""
        return frozenset(value.name for value in self.graph.output)

    @cached_property
    def producers(self) -> Mapping[str, int]:
        """The position of the node that makes a value."""
        return {name: at for at, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def readers(self) -> Mapping[str, Sequence[int]]:
        """The positions of the nodes that read a value, those with bodies that read it inside included."""
        found: dict[str, list[int]] = {}
        for at, node in enumerate(self.nodes):
            for name in dict.fromkeys(read_by(node)):
                found.setdefault(name, []).append(at)
        return found

    @cached_property
    def constants(self) -> Mapping[str, TensorProto]:
        """Initializers that nobody can override, and what nodes `Constant` hold as tensors."""
        given = {value.name for value in self.graph.input}
        found = {tensor.name: tensor for tensor in self.graph.initializer if tensor.name not in given}
        for node in self.nodes:
            held = attributes(node).get("value") if node.op_type == "Constant" else None
            if isinstance(held, TensorProto):
                found[node.output[0]] = held
        return found

    @cached_property
    def types(self) -> Mapping[str, tuple[int, tuple[int, ...] | None]]:
        """The element type and shape of a value; the shape is None where a size is free or unknown."""
        values = (*self.graph.input, *self.graph.value_info, *self.graph.output)
        found = {value.name: _type_of(value) for value in values}
        return {**found, **{name: (tensor.data_type, tuple(tensor.dims)) for name, tensor in self.constants.items()}}

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a value, where every size is fixed."""
        return self.types.get(name, (0, None))[1]

    def floats(self, name: str) -> tuple[int, ...] | None:
        """The shape of a float32 value with at least one axis and no size of zero; None of anything else."""
        kind, shape = self.types.get(name, (0, None))
        return shape if kind == TensorProto.FLOAT and shape and prod(shape) else None

    def constant(self, name: str) -> Array | None:
        """What a constant holds, also one of codes that are stored in fewer bits and widened or looked up."""
        tensor = self.constants.get(name)
        return self._codes(self.maker(name)) if tensor is None else numpy_helper.to_array(tensor)

    def _codes(self, node: onnx.NodeProto | None) -> Array | None:
        """The integers that a Cast makes of narrower ones, or a Gather of places in a table of bytes."""
        if node is None or not is_standard(node, "Cast", "Gather"):
            return None
        held = [self.constant(name) for name in node.input]
        if is_standard(node, "Cast"):
            narrow, wide = held[0], INTEGERS.get(attributes(node)["to"])
            return None if narrow is None or wide is None else narrow.astype(wide)
        table, places = held
        if table is None or places is None or table.dtype != np.int8 or table.ndim != 1:
            return None
        return table[places]

    def number(self, name: str) -> float | None:
        """What a constant of one element holds."""
        value = self.constant(name)
        return float(value.ravel()[0]) if value is not None and value.size == 1 else None

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a value."""
        at = self.producers.get(name)
        return None if at is None else self.nodes[at]

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that needs a value; None where there are several, or the graph returns it."""
        readers = self.readers.get(name, ())
        return self.nodes[readers[0]] if len(readers) == 1 and name not in self.outputs else None


def wired(proto: onnx.ModelProto) -> Wiring:
    """The main graph of a model with every shape that can be inferred."""
    return Wiring(onnx.shape_inference.infer_shapes(proto, data_prop=True).graph)


def is_standard(node: onnx.NodeProto | None, *operators: str) -> bool:
    """Whether `node` is one of these operators of ONNX itself."""
    return node is not None and node.domain in STANDARD and node.op_type in operators


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node by name, text as str."""
    held = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in held.items()}


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Every value that a node reads, and every name that is read in its bodies."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for body in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            yield from (value.name for value in body.output)
            for inner in body.node:
                yield from read_by(inner)


def other_input(node: onnx.NodeProto, name: str) -> str:
    """The input of a node of two that is not `name`; `name` itself where it is both."""
    first, second = node.input
    return second if first == name else first


def stored(name: str, value: Array) -> TensorProto:
    """A constant named by what it holds, so that equal ones are stored once."""
    digest = hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest()[:16]
    return numpy_helper.from_array(value, f"{name}.{digest}")


def as_row(value: Array | None, columns: int) -> Array | None:
    """A constant that adds one number to each of `columns` columns, as that row; None of anything else."""
    if value is None or value.dtype != np.float32 or not value.ndim:
        return None
    return value.ravel() if value.shape[-1] == columns == value.size else None


def _type_of(value: onnx.ValueInfoProto) -> tuple[int, tuple[int, ...] | None]:
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    fixed = tensor.HasField("shape") and all(dim is not None and dim >= 0 for dim in dims)
    return tensor.elem_type, tuple(dim for dim in dims if dim is not None) if fixed else None
