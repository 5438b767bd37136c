"""The loops of nodes that multiply, and their multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgewright_devices.nodes import Node
from edgewright_devices.operators import CONVOLUTIONS, RECURRENT
from edgewright_devices.tensors import Tensors, multiplies


@dataclass(frozen=True)
class Product:
    """The loops of a node that multiplies: each of `rows` results of `given` values sums over `taken` x `window`.

    `given` counts all groups, `taken` one of them. `constant` tells weights from data on the right side.
    """

    rows: int
    taken: int
    given: int
    window: int = 1
    stride: int = 1
    groups: int = 1
    constant: bool = True


def macs_of(node: Node, read: Sequence[str], tensors: Tensors) -> int:
    """Multiply-accumulates of a node: each element of the output times what is summed into it."""
    if not multiplies(node):
        return 0
    if node.op_type == "Einsum":
        return _einsum_macs(node, tensors)
    if node.op_type in RECURRENT:
        return _recurrent_macs(node, tensors)
    left, right = (tensors.shapes[name] for name in read[:2])
    if node.op_type in CONVOLUTIONS:
        # a transposed convolution spreads each input element instead of gathering into each output element
        spread = node.op_type.endswith("Transpose")
        return (math.prod(left) if spread else tensors.size(node.output[0])) * math.prod(right[1:])
    summed = left[0] if node.op_type == "Gemm" and _attribute(node, "transA", 0) else left[-1]
    return tensors.size(node.output[0]) * summed


def _recurrent_macs(node: Node, tensors: Tensors) -> int:
    """Every step of every example multiplies by both weight matrices."""
    steps, batch = tensors.shapes[node.input[0]][:2]
    return steps * batch * (tensors.size(node.input[1]) + tensors.size(node.input[2]))


def _einsum_macs(node: Node, tensors: Tensors) -> int:
    """The product of the sizes of all labels."""
    terms = _attribute(node, "equation", b"").decode().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input):
        sizes.update(zip(term, tensors.shapes[name]))
    return math.prod(sizes.values()) if len(terms) > 1 else 0


def product_of(node: Node, read: Sequence[str], tensors: Tensors, macs: int) -> Product:
    """The loops behind `macs`."""
    right, constant = tensors.shapes[read[1]], read[1] in tensors.constants
    if node.op_type in CONVOLUTIONS:
        groups = _attribute(node, "group", 1)
        spread = node.op_type.endswith("Transpose")
        taken, given = (right[0] // groups, right[1] * groups) if spread else (right[1], right[0])
        strides = _attribute(node, "strides", [1])
        rows = macs // max(1, taken * given * math.prod(right[2:]))
        return Product(rows, taken, given, math.prod(right[2:]), max(strides), groups, constant)
    summed = max(1, macs // max(1, tensors.size(node.output[0])))
    given = tensors.shapes[node.output[0]][-1] if tensors.shapes[node.output[0]] else 1
    return Product(max(1, macs // (summed * max(1, given))), summed, given, constant=constant)


def _attribute(node: Node, name: str, default: Any) -> Any:
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default
