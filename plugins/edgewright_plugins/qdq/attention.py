"""Which nodes are attention's own: its two products, what stands between them, and what only prepares their operands.

They stay float: their sums are short, so that bytes save little, while scores of 8 bits and shares in steps of 1/256
lose much; and a kernel that computes all of attention at once takes floats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod

import onnx

VIEWS = ("Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
"""They only arrange what they are given."""
BETWEEN = ("Add", "Cast", "Div", "Identity", "Mul", "Softmax", "Where", *VIEWS)
"""What may stand between the products: scales, masks, and the softmax that must."""


Shapes = Mapping[str, tuple[int, ...]]
"""Of constants, by name."""


def attention_nodes(proto: onnx.ModelProto) -> frozenset[str]:
    """The names of these nodes in a graph."""
    constants = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    found = _between_products(proto.graph.node, constants)
    readers = defaultdict[str, list[str]](list)
    for node in proto.graph.node:
        for name in node.input:
            readers[name].append(node.name)
    kept = {value.name for value in proto.graph.output}
    for node in reversed(proto.graph.node):
        takers = [reader for name in node.output for reader in readers[name]]
        prepares = node.op_type in VIEWS or _scales(node, constants)
        if prepares and takers and found.issuperset(takers) and kept.isdisjoint(node.output):
            found.add(node.name)
    return frozenset(found)


def _between_products(nodes: Sequence[onnx.NodeProto], constants: Shapes) -> set[str]:
    """Products whose first operand comes through a softmax from another product, that one, and what is between."""
    scores, shares = set[str](), set[str]()
    for node in nodes:
        given = set(node.input)
        if _multiplies(node, constants):
            scores.update(node.output)
        elif node.op_type in BETWEEN and (given & shares or given & scores):
            later = given & shares or node.op_type == "Softmax"
            (shares if later else scores).update(node.output)
    found, wanted = set[str](), set[str]()
    for node in reversed(nodes):
        if _multiplies(node, constants) and node.input[0] in shares:
            found.add(node.name)
            wanted.add(node.input[0])
        elif not wanted.isdisjoint(node.output):
            found.add(node.name)
            if node.op_type in BETWEEN:
                wanted.update(name for name in node.input if name in scores or name in shares)
    return found


def _multiplies(node: onnx.NodeProto, constants: Shapes) -> bool:
    """Whether it is a product of two values that are computed."""
    return node.op_type == "MatMul" and not any(name in constants for name in node.input)


def _scales(node: onnx.NodeProto, constants: Shapes) -> bool:
    """Whether it multiplies by one number."""
    return node.op_type in ("Mul", "Div") and any(prod(constants.get(name, (0,))) == 1 for name in node.input)
