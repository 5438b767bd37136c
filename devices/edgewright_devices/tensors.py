"""What is known about the tensors of a graph: their sizes, how wide they are stored, which runtimes never write."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

from edgewright_devices.nodes import Node
from edgewright_devices.operators import FUSED, MOVED, MULTIPLIES, PARAMETRIC, WIDE
from edgewright_devices.shapes import EXTERNAL, sizes_of

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]

FLOATS = {1, 10, 11}
"""FLOAT, FLOAT16 and DOUBLE, by their number in TensorProto.DataType."""


@dataclass
class Tensors:
    """What is known about the tensors of a graph: shapes, bits per element, and which are constant.

    `products` are results that what follows may finish, `zeros` known to be 0, `widened` read by float kernels alone,
    `inputs` come from outside.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    bits: dict[str, int] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    quantised: set[str] = field(default_factory=set)
    products: set[str] = field(default_factory=set)
    zeros: set[str] = field(default_factory=set)
    widened: set[str] = field(default_factory=set)
    inputs: set[str] = field(default_factory=set)

    def copy(self) -> Tensors:
        """A copy for a branch, which sees its parent's tensors."""
        sets = (set(self.constants), set(self.quantised), set[str](), set(self.zeros))
        return Tensors(dict(self.shapes), dict(self.bits), *sets)

    def type(self, name: str, elem_type: int) -> None:
        """Note the element type of a tensor."""
        self.bits[name] = _bits(elem_type)
        if elem_type in _integers():
            self.quantised.add(name)

    def size(self, name: str) -> int:
        """Elements of a tensor."""
        return math.prod(self.shapes[name])

    def bytes(self, name: str) -> int:
        """Bytes of a tensor as it is stored."""
        return math.ceil(self.size(name) * self.bits.get(name, 32) / 8)


def read_constants(graph: onnx.GraphProto, tensors: Tensors) -> None:
    """Note the weights of `graph`."""
    for initializer in graph.initializer:
        name, sizes, kind = initializer.name, tuple(initializer.dims), initializer.data_type
        tensors.shapes[name] = sizes
        tensors.type(name, kind)
        tensors.constants.add(name)
        if kind in FLOATS and math.prod(sizes) == 1 and _is_zero(initializer):
            tensors.zeros.add(name)


def read_tensors(graph: onnx.GraphProto, nodes: Sequence[Node], tensors: Tensors) -> None:
    """Note what `nodes` read and write; the weights of `graph` are noted already."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        name, tensor = value.name, value.type.tensor_type
        sizes = sizes_of(tensor)
        if sizes is not None:
            tensors.shapes.setdefault(name, sizes)
        if name not in tensors.bits:
            tensors.type(name, tensor.elem_type)
    tensors.inputs.update(value.name for value in graph.input)
    uses = Counter(chain.from_iterable(node.input for node in nodes))
    for node in nodes:
        _follow(node, tensors)
        if uses[node.output[0]] == 1 and (multiplies(node) or is_fused(node, tensors)):
            tensors.products.add(node.output[0])
    _narrow_outputs(nodes, tensors)
    wide = (node for node in nodes if node.op_type in WIDE and node.op_type not in FUSED)
    tensors.widened.update(name for node in wide for name in node.input)


def _follow(node: Node, tensors: Tensors) -> None:
    """Mark what is constant, and give dequantised tensors the width they are stored in."""
    read = [name for name in node.input if name]
    if node.op_type == "Constant" or (read and tensors.constants.issuperset(read)):
        tensors.constants.update(node.output)
    if _gives_zeros(node, tensors):
        tensors.zeros.update(node.output)
    if node.op_type == "DequantizeLinear":
        tensors.bits[node.output[0]] = tensors.bits.get(node.input[0], 8)
        tensors.quantised.add(node.output[0])
    elif node.op_type in MOVED and read and read[0] in tensors.quantised:
        tensors.bits[node.output[0]] = tensors.bits[read[0]]
        tensors.quantised.add(node.output[0])


def _gives_zeros(node: Node, tensors: Tensors) -> bool:
    """Whether all that the node writes is 0, or as constant as that: it multiplies by 0, or reads nothing else."""
    if not tensors.zeros:
        return False
    if node.op_type == "Mul":
        return any(name in tensors.zeros for name in node.input)
    data = data_of(node, tensors)
    return bool(data) and all(name in tensors.zeros for name in data)


def _is_zero(initializer: onnx.TensorProto) -> bool:
    """Whether a constant of one float is 0; a zero point is none."""
    from onnx import numpy_helper

    if initializer.data_location == EXTERNAL:
        return False
    if initializer.raw_data or initializer.float_data:
        return not any(initializer.raw_data or initializer.float_data)
    return not numpy_helper.to_array(initializer).any()


def _narrow_outputs(nodes: Sequence[Node], tensors: Tensors) -> None:
    """A node between DequantizeLinear and QuantizeLinear runs fused with both: its output is written narrow."""
    by_output = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type != "QuantizeLinear":
            continue
        names = [node.input[0]]
        while names[-1] in by_output and is_fused(by_output[names[-1]], tensors):
            names.append(data_of(by_output[names[-1]], tensors)[0])
        if names[-1] in by_output and is_quantised(by_output[names[-1]], tensors):
            tensors.bits.update(dict.fromkeys(names, tensors.bits.get(node.output[0], 8)))
            tensors.quantised.update(names)


def is_quantised(node: Node, tensors: Tensors) -> bool:
    """Whether the node computes on narrow integers: those it reads, or those it reads dequantised."""
    operands = operands_of(node)[:2]
    narrow = bool(operands) and all(name in tensors.quantised for name in operands)
    return narrow and node.op_type not in WIDE


def is_fused(node: Node, tensors: Tensors) -> bool:
    """Whether the node only finishes a product: normalises it, activates it or adds a constant to it."""
    if node.op_type not in FUSED and (node.op_type not in {"Add", "Mul"} or len(node.input) != 2):
        return False
    data = data_of(node, tensors)
    return len(data) == 1 and data[0] in tensors.products


def stands_apart(node: Node, tensors: Tensors) -> bool:
    """Whether the node is a sum of two tensors that no product can take in: its second term is no product.

    A product that is added to what is there may be added as it is written (beta of a GEMM), if it is as large.
    """
    if node.op_type != "Add" or len(data_of(node, tensors)) != 2:
        return False
    added, total = node.input[1], node.output[0]
    return added not in tensors.products or tensors.shapes[added] != tensors.shapes[total]


def data_of(node: Node, tensors: Tensors) -> list[str]:
    """What the node reads but for constants."""
    return [name for name in node.input if name and name not in tensors.constants]


def multiplies(node: Node) -> bool:
    """Whether the node sums products."""
    return node.op_type in MULTIPLIES


def operands_of(node: Node) -> list[str]:
    """The data that the node reads, weights included."""
    read = [name for name in node.input if name]
    if node.op_type.endswith("Integer"):
        return read[:2]
    return read[:1] if node.op_type in PARAMETRIC else read


@cache
def _integers() -> frozenset[int]:
    """The integer types that weights and activations are quantised to."""
    import onnx

    names = onnx.TensorProto.DataType
    narrow = {"INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"}
    return frozenset(value for name, value in names.items() if name in narrow)


@cache
def _bits(elem_type: int) -> int:
    """Bits per element of an ONNX type; 32 for those without a fixed width."""
    import onnx

    names = onnx.TensorProto.DataType
    narrow = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2, "BOOL": 8, "BFLOAT16": 16}
    label = names.Name(elem_type) if elem_type in names.values() else ""
    if label in narrow:
        return narrow[label]
    if label in {"", "UNDEFINED", "STRING"}:
        return 32
    return int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize) * 8
