"""Which nodes only turn answers into one number per row: the score of a gate, a value that is regressed."""

from __future__ import annotations

import onnx

from edgewright_plugins.qdq.obstacle import LAYERS


def score_nodes(proto: onnx.ModelProto) -> frozenset[str]:
    """The names of nodes behind the last layers that lead to nothing but outputs [rows].

    They stay float: of 8 bits a largest probability would keep 256 values, while a threshold has to tell 0.998 from
    0.999; and there is no time to win on a number per row.
    """
    numbers = {value.name for value in proto.graph.output if len(value.type.tensor_type.shape.dim) == 1}
    leading = dict.fromkeys((value.name for value in proto.graph.output), False) | dict.fromkeys(numbers, True)
    found: set[str] = set()
    for node in reversed(proto.graph.node):
        used = [leading[name] for name in node.output if name in leading]
        only = bool(used) and all(used) and node.op_type not in LAYERS
        if only:
            found.add(node.name)
        for name in node.input:
            leading[name] = only and leading.get(name, True)
    return frozenset(found)
