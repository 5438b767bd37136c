"""Brings an ONNX graph into the one form that the translators know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx
from onnx import inliner, version_converter

from edgewright.errors import RefusedError
from edgewright_plugins.lift.ops import OPS

OPSET = 18
"""What the table of operators speaks; later opsets added to these operators, but took nothing back."""


def prepared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy at `OPSET` or later, without functions of its own, each bias drawn into its MatMul.

    Raises: RefusedError naming the operators that torch cannot stand for, or why the opset cannot be raised.
    """
    flat = inliner.inline_local_functions(proto)
    missing = unsupported(flat)
    if missing:
        raise RefusedError(f"lift has no torch form of {', '.join(missing)}; use methods that take ONNX on this model")
    ready = _raised(flat)
    draw_in_biases_(ready.graph)
    return ready


def unsupported(proto: onnx.ModelProto) -> list[str]:
    """Each operator that the table lacks, with its opset and its first node."""
    known = {*OPS, "Upsample"}  # raising the opset turns Upsample into Resize
    versions = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    first: dict[tuple[str, str], str] = {}
    for node in proto.graph.node:
        domain = node.domain or "ai.onnx"
        if domain != "ai.onnx" or node.op_type not in known:
            first.setdefault((domain, node.op_type), node.name or next(iter(node.output), ""))
    return [
        f"{domain}::{op} (opset {versions.get(domain, 0)}, at node {name!r})"
        for (domain, op), name in sorted(first.items())
    ]


def opset(proto: onnx.ModelProto) -> int:
    """The version of the standard domain."""
    return next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))


def _raised(proto: onnx.ModelProto) -> onnx.ModelProto:
    if opset(proto) >= OPSET:
        return proto
    try:
        return version_converter.convert_version(proto, OPSET)
    except RuntimeError as error:
        raise RefusedError(f"lift needs opset {OPSET}, but onnx cannot raise {opset(proto)} to it: {error}") from error


def draw_in_biases_(graph: onnx.GraphProto) -> None:
    """Turn `MatMul(x, w)` then `Add(_, bias)` into `MatMul(x, w, bias)`, a form of our own.

    Only where both are constants of the file and nothing else reads the product.
    """
    constants = _constants(graph)
    reads = Counter(name for node in graph.node for name in node.input)
    reads.update(value.name for value in graph.output)
    products = {node.output[0]: node for node in graph.node if _is_linear(node, constants)}
    for node in list(graph.node):
        if node.op_type != "Add":
            continue
        for product, bias in (tuple(node.input), tuple(reversed(node.input))):
            source = products.get(product)
            if source is None or reads[product] > 1 or constants.get(bias) != constants[source.input[1]][-1:]:
                continue
            source.input.append(bias)
            source.output[0] = node.output[0]
            graph.node.remove(node)
            break


def _constants(graph: onnx.GraphProto) -> Mapping[str, tuple[int, ...]]:
    """The shapes of initializers and of Constant nodes that hold a tensor."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            shapes[node.output[0]] = tuple(node.attribute[0].t.dims)
    return shapes


def _is_linear(node: onnx.NodeProto, constants: Mapping[str, tuple[int, ...]]) -> bool:
    return node.op_type == "MatMul" and len(constants.get(node.input[1], ())) == 2 and node.input[0] not in constants
