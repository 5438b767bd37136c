"""Finds convolutions of float32 with constant weights, and what follows each of them that its kernel can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx

from edgewright.types import Array
from edgewright_exporters.kernels.conv import ConvCase
from edgewright_exporters.kernels.depthwise import DepthwiseCase
from edgewright_exporters.kernels.window import Window
from edgewright_exporters.onnx_kernels.epilogues import Epilogue, image_epilogue_after
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.windows import window_of
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard, other_input

IMAGES = frozenset(("x", "y", "residual"))
"""The pointers that are images in blocks of channels."""


@dataclass(frozen=True, eq=False)
class _Conv:
    """y = conv(x, weight) + bias; `batch` and `channels` are those of x."""

    x: str
    weight: Array
    window: Window
    batch: int
    channels: int
    y: str
    bias: Array | None = None

    @property
    def depthwise(self) -> bool:
        return self.channels > 1 and self.weight.shape[:2] == (self.channels, 1)


def convs(wiring: Wiring) -> Iterator[Match]:
    """Every `Conv` over two axes that is dense or depthwise, with its batch norm, residual and activation."""
    for node in wiring.nodes:
        found = _conv(wiring, node) if is_standard(node, "Conv") else None
        if found is not None:
            yield _matched(wiring, _normalised(wiring, _biased(wiring, found)))


def _matched(wiring: Wiring, conv: _Conv) -> Match:
    filters, biased = len(conv.weight), conv.bias is not None
    weights = {"weight": conv.weight, "bias": conv.bias}
    after = image_epilogue_after(wiring, conv.y, residual=not conv.depthwise)
    if conv.depthwise:
        thin = DepthwiseCase(conv.batch, filters, conv.window, biased, after.activation)
        return match("depthwise", thin, inputs={"x": conv.x}, output=after.y, blocked=IMAGES, **weights)
    added = after.residual is not None
    case = ConvCase(conv.batch, conv.channels, filters, conv.window, biased, after.activation, added)
    return match("conv", case, inputs=_inputs(conv, after), output=after.y, blocked=IMAGES, **weights)


def _inputs(conv: _Conv, after: Epilogue) -> dict[str, str]:
    return {"x": conv.x} | ({} if after.residual is None else {"residual": after.residual})


def _conv(wiring: Wiring, node: onnx.NodeProto) -> _Conv | None:
    x, y, weight = node.input[0], node.output[0], wiring.constant(node.input[1])
    shape, named = wiring.floats(x), len(node.input) > 2 and node.input[2]
    bias = wiring.constant(node.input[2]) if named else None
    if (
        weight is None
        or shape is None
        or x in wiring.constants
        or weight.dtype != np.float32
        or (named and bias is None)
    ):
        return None
    window = window_of(attributes(node), shape[2:], weight.shape[2:])
    if window is None or wiring.floats(y) is None:
        return None
    found = _Conv(x, weight, window, shape[0], shape[1], y, bias)
    return found if found.depthwise or weight.shape[1] == shape[1] else None


def _biased(wiring: Wiring, conv: _Conv) -> _Conv:
    """With the number per channel that an `Add` behind it gives."""
    node, filters = wiring.only_reader(conv.y), len(conv.weight)
    if node is None or not is_standard(node, "Add") or conv.bias is not None:
        return conv
    added = wiring.constant(other_input(node, conv.y))
    if added is None or added.shape not in ((filters, 1, 1), (1, filters, 1, 1)):
        return conv
    return replace(conv, bias=added.ravel(), y=node.output[0])


def _normalised(wiring: Wiring, conv: _Conv) -> _Conv:
    """With the batch norm that follows it folded into weight and bias."""
    node = wiring.only_reader(conv.y)
    if node is None or not is_standard(node, "BatchNormalization") or any(node.output[1:]):
        return conv
    held = [wiring.constant(name) for name in node.input[1:]]
    scale, shift, mean, variance = (None if each is None else each.astype(np.float64) for each in held)
    if scale is None or shift is None or mean is None or variance is None:
        return conv
    scale = scale / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    bias = (0.0 if conv.bias is None else conv.bias) - mean
    weight = (conv.weight * scale.reshape(-1, 1, 1, 1)).astype(np.float32)
    return replace(conv, weight=weight, bias=(bias * scale + shift).astype(np.float32), y=node.output[0])
