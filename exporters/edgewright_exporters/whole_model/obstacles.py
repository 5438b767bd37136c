"""Says what keeps a model from being compiled whole, before anything is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.types import Model, Refusal, Target
from edgewright_exporters.onnx_kernels.obstacles import best_isa, without_tvm
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, wired
from edgewright_exporters.tir.linking import find_compiler
from edgewright_exporters.whole_model.preparing import narrow_readers

KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft")
"""TVM tells operators by name alone: one of another domain would be taken for its namesake."""

NOT_IMPORTED = (
    *("QLinearAdd", "QLinearConv", "QLinearMatMul", "ConvInteger", "DynamicQuantizeMatMul", "MatMulNBits"),
    *("GRU", "LSTM", "RNN", "Loop", "Scan"),
)
"""What TVM 0.27 has no importer for, as far as quantised and recurrent models use it."""

INSTEAD = "run it with onnxruntime (--exporter onnx or kernels)"

Trouble = Callable[[Wiring, onnx.NodeProto], str]


def _both_branches(wiring: Wiring, node: onnx.NodeProto) -> str:
    return "TVM computes both branches of an If, so that it saves nothing"


def _size_at_run_time(wiring: Wiring, node: onnx.NodeProto) -> str:
    constant = node.input[1] in wiring.constants
    return "" if constant else "TVM takes no TopK whose k is known only when it runs"


def _blocked(wiring: Wiring, node: onnx.NodeProto) -> str:
    return "TVM takes no DequantizeLinear with scales per block" if attributes(node).get("block_size") else ""


TROUBLES: Mapping[str, Trouble] = {"DequantizeLinear": _blocked, "If": _both_branches, "TopK": _size_at_run_time}
"""What TVM imports, but not to our liking."""


def obstacle(model: Model, target: Target) -> Refusal | None:
    """The first reason why a model cannot be compiled; None where none is known."""
    isa = best_isa(target)
    if isa is None:
        return Refusal(f"nothing can be compiled for {target.name}: its instruction set ({target.isa}) is not known")
    refusal = without_tvm()
    if refusal is not None:
        return refusal
    try:
        find_compiler(isa)
    except RefusedError as error:
        return Refusal(str(error))
    found = next((trouble for stage in model.stages for trouble in troubles(onnxkit.read(stage.graph))), None)
    return Refusal(f"{found}; {INSTEAD}") if found else None


def troubles(proto: onnx.ModelProto) -> Iterator[str]:
    """What a graph holds that TVM cannot do, each in a sentence that names the operator."""
    wiring = wired(proto)
    yield from (f"TVM cannot read the 4-bit constants of {operator}" for operator in narrow_readers(wiring))
    for node in wiring.nodes:
        if node.domain not in KNOWN_DOMAINS:
            yield f"TVM does not know the operator {node.domain}::{node.op_type}"
        elif node.op_type in NOT_IMPORTED:
            yield f"TVM cannot import {node.op_type}"
        elif said := TROUBLES.get(node.op_type, _no_trouble)(wiring, node):
            yield said


def _no_trouble(wiring: Wiring, node: onnx.NodeProto) -> str:
    return ""
