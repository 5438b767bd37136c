"""Biases that take up what rounding a layer's weights adds to the mean of its outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from edgewright.grids import Encoding
from edgewright.types import Array
from edgewright_plugins.qdq.calibrate import Feeds, channel_means
from edgewright_plugins.qdq.layers import Layer, constant, layers_of, with_constants


def input_means(proto: onnx.ModelProto, layers: Iterable[Layer], feeds: Feeds) -> dict[str, list[float]]:
    """The mean of each input channel of the layers, by the name of the input."""
    return channel_means(proto, {layer.input: 1 if layer.kind == "Conv" else -1 for layer in layers}, feeds)


def corrected(
    proto: onnx.ModelProto, encodings: Mapping[str, Encoding], means: Mapping[str, list[float]]
) -> onnx.ModelProto:
    """The graph with the biases b + sum_i (W - W') E[x_i] of layers whose weights W an encoding rounds to W'.

    Bias correction of M. Nagel et al., Data-Free Quantization (ICCV 2019, arXiv 1906.04721, section 4.2), with means
    that were measured; padding counts as if it were an input. Layers without a bias of their own stay as they are.
    """
    layers = layers_of(proto)
    users = Counter(name for node in proto.graph.node for name in node.input)
    biases: dict[str, Array] = {}
    for layer in layers:
        encoding = encodings.get(layer.weight)
        if encoding is not None and layer.bias is not None and users[layer.bias] == 1 and layer.input in means:
            weight, bias = constant(proto, layer.weight), constant(proto, layer.bias)
            shift = _shift(layer, weight - encoding.rounded(weight), np.array(means[layer.input]))
            if shift.shape == bias.shape:
                biases[layer.bias] = (bias + shift).astype(np.float32)
    return with_constants(proto, biases)


def _shift(layer: Layer, lost: Array, means: Array) -> Array:
    """What each output channel loses on average; `lost` has the weight's shape."""
    if layer.kind != "Conv":
        return lost.astype(np.float64) @ means if layer.axis == 0 else means @ lost.astype(np.float64)
    taps = lost.reshape(*lost.shape[:2], -1).sum(axis=2, dtype=np.float64)
    groups = len(means) // taps.shape[1]
    per_group = taps.reshape(groups, -1, taps.shape[1])
    return np.einsum("goi,gi->go", per_group, means.reshape(groups, -1)).reshape(-1)
