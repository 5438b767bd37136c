"""Which node of a graph a runtime means, after it has fused nodes and given them names of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

SUFFIXES = re.compile(r"(_nchwc|_token_\d+|_quant)+$")
"""What onnxruntime's passes put behind the name of a node, or of the tensor that it gives."""

FOLLOWING = {
    "BatchNormalization",
    "Cast",
    "Clip",
    "DequantizeLinear",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "QuantizeLinear",
    "Relu",
    "Sigmoid",
}
"""Operators that runtimes merge into the node before."""


def originals(proto: onnx.ModelProto) -> Mapping[str, tuple[str, str]]:
    """By every name a runtime may use of a node (its own, its output's), the node's name and operator."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    found = {node.name: (node.name, node.op_type) for node in proto.graph.node if node.name}
    for output, node in makers.items():
        maker = node
        while maker.op_type in FOLLOWING and maker.input[0] in makers:
            maker = makers[maker.input[0]]
        found.setdefault(output, (maker.name or maker.output[0], maker.op_type))
    return found


def original(node: str, operator: str, known: Mapping[str, tuple[str, str]]) -> str:
    """The name in the graph of what a runtime calls so; empty where nothing fits."""
    name, wanted = known.get(node) or known.get(SUFFIXES.sub("", node)) or ("", "")
    return name if _work(wanted) == _work(operator) else ""


def _work(operator: str) -> str:
    """What is computed, whatever the numbers are: QLinearConv and FusedConv convolve."""
    return next((each for each in ("Conv", "MatMul", "Gemm") if each in operator), operator)
