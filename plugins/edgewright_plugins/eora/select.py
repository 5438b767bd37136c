"""Which layers are rounded and get a branch, in which order, and why the others do not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import onnx

from edgewright.errors import RecipeError, suggest
from edgewright_plugins.eora import LINEAR, Params
from edgewright_plugins.qdq.layers import Layer, attribute, layers_of


@dataclass(frozen=True)
class Selection:
    """The linear layers to round, in running order, and the names of all other layers with the reason."""

    layers: tuple[Layer, ...]
    others: tuple[tuple[str, str], ...]


def select(proto: onnx.ModelProto, params: Params) -> Selection:
    """Splits the layers of a prepared graph.

    Raises: RecipeError when `keep` names no layer.
    """
    found = layers_of(proto)
    names = [layer.name for layer in found]
    unknown = [name for name in params.keep if name not in names]
    if unknown:
        raise RecipeError(f"eora cannot keep {unknown[0]!r}: no layer is called that; {suggest(unknown[0], names)}")
    uses = Counter(name for node in proto.graph.node for name in node.input)
    nodes = {node.output[0]: node for node in proto.graph.node if node.output}
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in proto.graph.initializer}
    reasons = [
        _reason(layer, params, plain=_plain(layer, nodes[layer.output], sizes), uses=uses[layer.weight])
        for layer in found
    ]
    layers = tuple(layer for layer, reason in zip(found, reasons, strict=True) if not reason)
    return Selection(layers, tuple((layer.name, why) for layer, why in zip(found, reasons, strict=True) if why))


def _reason(layer: Layer, params: Params, *, plain: bool, uses: int) -> str:
    """Why a layer is left; empty when it is rounded."""
    if layer.name in params.keep:
        return "named in keep"
    if layer.kind not in LINEAR:
        return f"a {layer.kind}"
    if not plain:
        return "no plain product of rows with a matrix"
    if uses > 1:
        return "its weight is used more than once"
    if params.rank * sum(layer.shape) >= layer.weights:
        return f"a branch of rank {params.rank} would be no smaller than its {layer.weights} weights"
    return ""


def _plain(layer: Layer, node: onnx.NodeProto, sizes: Mapping[str, int]) -> bool:
    """Whether it computes x W + b, with b one value per output or absent."""
    added = [name for name in node.input[2:] if name]
    scaled = attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0
    turned = int(cast("int", attribute(node, "transA", 0))) == 1
    fits = all(sizes.get(name) == layer.shape[layer.axis] for name in added)
    return len(layer.shape) == 2 and fits and not scaled and not turned


def waves(proto: onnx.ModelProto, layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers in groups: each depends on layers of earlier groups only, so that a group is fitted in one go."""
    at = {layer.output: layer for layer in layers}
    depth: dict[str, int] = {}
    found: list[list[Layer]] = []
    for node in proto.graph.node:
        level = max((depth.get(name, 0) for name in node.input), default=0)
        layer = at.get(node.output[0]) if node.output else None
        if layer is not None:
            found += [[] for _ in range(level + 1 - len(found))]
            found[level].append(layer)
            level += 1
        depth.update(dict.fromkeys(node.output, level))
    return found
