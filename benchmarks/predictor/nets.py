"""The networks behind the public measurements, from the papers' tables, as ONNX graphs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx

from predictor.graphs import Graph

V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
V2 = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
FBNET = [(16, 1, 1), (24, 4, 1), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1)]
"""Channels, blocks and first stride of each stage, as FBNet searches on images of 32 pixels."""


def divisible(channels: float) -> int:
    """Channels as the MobileNets round them: to a multiple of 8, never down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def mobilenet_v1(alpha: float, size: int, dtype: str) -> onnx.ModelProto:
    """Howard et al., arXiv:1704.04861, table 1."""
    net = Graph((1, 3, size, size), dtype)
    x = net.conv("x", divisible(32 * alpha), 3, 2)
    for channels, stride in V1:
        taken = net.shapes[x][1]
        x = net.conv(x, taken, 3, stride, group=taken)
        x = net.conv(x, divisible(channels * alpha), 1)
    return net.model(net.conv(net.mean(x), 1001, 1, act=""))


def mobilenet_v2(alpha: float, size: int, dtype: str) -> onnx.ModelProto:
    """Sandler et al., arXiv:1801.04381, table 2."""
    net = Graph((1, 3, size, size), dtype)
    x = net.conv("x", divisible(32 * alpha), 3, 2)
    for factor, channels, repeats, first in V2:
        for stride in (first, *[1] * (repeats - 1)):
            x = inverted(net, x, divisible(channels * alpha), factor, stride)
    x = net.conv(x, divisible(1280 * max(1.0, alpha)), 1)
    return net.model(net.conv(net.mean(x), 1001, 1, act=""))


def inverted(net: Graph, x: str, given: int, factor: int, stride: int, *, kernel: int = 3, group: int = 1) -> str:
    """The block of MobileNet v2: widen, filter each channel, narrow; added to its input where sizes agree."""
    taken = net.shapes[x][1]
    inner = net.conv(x, taken * factor, 1, group=group) if factor > 1 or group > 1 else x
    inner = net.shuffle(inner, group) if group > 1 else inner
    inner = net.conv(inner, taken * factor, kernel, stride, group=taken * factor)
    y = net.conv(inner, given, 1, act="", group=group)
    return net.add(y, x) if stride == 1 and taken == given else y


def fbnet(arch: str) -> onnx.ModelProto:
    """Wu et al., arXiv:1812.03443, on 3x32x32 with 100 classes; a block is named `k5_e6`, `k3_e1_g2` or `skip`."""
    net = Graph((1, 3, 32, 32))
    x = net.conv("x", 16, 3)
    strides = [(given, first if at == 0 else 1) for given, repeats, first in FBNET for at in range(repeats)]
    for block, (given, stride) in zip(arch.split(), strides):
        found = re.fullmatch(r"k(\d)_e(\d)(?:_g(\d))?", block)
        if found:
            kernel, factor, group = int(found[1]), int(found[2]), int(found[3] or 1)
            x = inverted(net, x, given, factor, stride, kernel=kernel, group=group)
        elif stride != 1 or net.shapes[x][1] != given:
            x = net.conv(x, given, 1, stride)
    return net.model(net.linear(net.mean(net.conv(x, 1504, 1)), 100))


def nasbench201(arch: str, dtype: str = "float32") -> onnx.ModelProto:
    """Dong and Yang, arXiv:2001.00326: three stages of five cells, pre-activated, as their definition says it:
    an edge `none` is a product with 0, and what no edge takes to the output is left out.
    """
    edges = [edge for edge in all_edges(arch) if edge[1] in useful_nodes(all_edges(arch))]
    net = Graph((1, 3, 32, 32), dtype)
    x = net.conv("x", 16, 3, act="")
    for channels in (16, 32, 64):
        if channels != 16:
            inner = net.conv(net.act(x, "Relu"), channels, 3, 2)
            short = net.conv(net.pool(x, 2, 2), channels, 1, act="")
            x = net.add(short, net.conv(inner, channels, 3, act=""))
        for _ in range(5):
            x = cell(net, x, edges)
    return net.model(net.linear(net.mean(net.act(x, "Relu")), 10))


def cell(net: Graph, x: str, edges: Sequence[tuple[int, int, str]]) -> str:
    """One cell: node by node the sum of its edges; edges of zeros beside others are left out of the sum."""
    nodes = [x]
    for end in (1, 2, 3):
        taken = [(start, operator) for start, other, operator in edges if other == end]
        some = [(start, operator) for start, operator in taken if operator != "none"] or taken[:1]
        nodes.append(net.add(*(edge(net, operator, nodes[start]) for start, operator in some)) if some else x)
    return nodes[3]


def edge(net: Graph, operator: str, x: str) -> str:
    """One edge of a cell."""
    if operator == "none":
        return net.node("Mul", [x, net.zero()], net.shapes[x])
    if "conv" in operator:
        return net.conv(net.act(x, "Relu"), net.shapes[x][1], int(operator[-1]), act="")
    return net.pool(x, 3) if "pool" in operator else x


def all_edges(arch: str) -> list[tuple[int, int, str]]:
    """The edges (start, end, operator) of a cell."""
    nodes = [re.findall(r"(\w+)~(\d)", part) for part in arch.split("+")]
    return [(int(start), end + 1, op) for end, node in enumerate(nodes) for op, start in node]


def useful_nodes(edges: Sequence[tuple[int, int, str]]) -> set[int]:
    """The nodes of a cell that an edge other than `none` connects with its output."""
    useful = {3}
    for start, end, operator in sorted(edges, key=lambda edge: -edge[0]):
        useful |= {start} if end in useful and operator != "none" else set()
    return useful


def live_edges(arch: str) -> tuple[tuple[int, int, str], ...]:
    """The edges of a cell that lie on a path from its input to its output, without `none`."""
    edges, reached = [edge for edge in all_edges(arch) if edge[2] != "none"], {0}
    for start, end, _ in sorted(edges, key=lambda edge: edge[1]):
        reached |= {end} if start in reached else set()
    useful = useful_nodes(edges)
    return tuple(edge for edge in edges if edge[0] in reached and edge[1] in useful)
