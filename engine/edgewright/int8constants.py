"""Constants of int8 in a graph, each for one reader: what onnxruntime needs to keep products exact."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx

WEIGHT, ZERO_POINT = 0, 2
"""Inputs of a `DequantizeLinear`."""
OF_INTEGERS = 1, 3
"""The same of a `MatMulInteger`."""


def part_int8_constants(graph: onnx.GraphProto) -> None:
    """Give each reader of dequantised int8 weights a `DequantizeLinear`, and each product of bytes its own constants.

    On x86 without VNNI onnxruntime makes such weights unsigned (see `onnxkit.EXACT_PRODUCTS`), one reader after the
    other, and up to version 1.32 refuses the second one that meets the same weights or the same zero point.
    """
    held = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    makers = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[WEIGHT] in held]
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    for node in graph.node:
        for at, name in enumerate(node.input):
            readers[name].append((node, at))
    more = {id(node): list(_copies(node, readers[node.output[0]][1:])) for node in makers}
    taken = set[str]()
    for node in makers:
        for each in (node, *more[id(node)]):
            _take(graph, held, each, (WEIGHT, ZERO_POINT), taken)
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            _take(graph, held, node, OF_INTEGERS, taken)
    _insert(graph, more)


def _copies(node: onnx.NodeProto, readers: list[tuple[onnx.NodeProto, int]]) -> Iterator[onnx.NodeProto]:
    """The same node once more for each of `readers`, which read its copy from then on."""
    for number, (reader, at) in enumerate(readers, 2):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name, copy.output[0] = f"{node.name}:{number}", f"{node.output[0]}:{number}"
        reader.input[at] = copy.output[0]
        yield copy


def _take(
    graph: onnx.GraphProto,
    held: dict[str, onnx.TensorProto],
    node: onnx.NodeProto,
    places: tuple[int, int],
    taken: set[str],
) -> None:
    """Let a node read copies of those constants that another node has `taken`."""
    for at in places:
        name = node.input[at] if at < len(node.input) else ""
        if name not in held:
            continue
        if name in taken:
            copy = onnx.TensorProto()
            copy.CopyFrom(held[name])
            copy.name = node.input[at] = f"{name}:{node.output[0]}"
            graph.initializer.append(copy)
        taken.add(name)


def _insert(graph: onnx.GraphProto, more: dict[int, list[onnx.NodeProto]]) -> None:
    """Put copies behind the nodes they were made of."""
    if any(more.values()):
        nodes = [each for node in graph.node for each in (node, *more.get(id(node), ()))]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
