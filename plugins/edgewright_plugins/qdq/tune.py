"""Moves the outputs of integer layers back to where the float layers had them, channel by channel, without labels.

Batch-norm tuning of I. Hubara et al. 2021 (arXiv:2006.10518, section 3.4) on graphs whose norms are folded: a norm with
the float statistics, put in after a layer and estimated anew, is y' = s_f (y - m_q) / s_q + m_f, where m and s are
the mean and deviation of a channel in float and in integers; it folds into the scale of the channel's weights and bias.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from edgewright.grids import Encoding
from edgewright.types import Array, Arrays
from edgewright_plugins.qdq.layers import Layer, captured, constant, layers_of, with_constants
from edgewright_plugins.qdq.place import Scheme
from edgewright_plugins.qdq.ranges import Range
from edgewright_plugins.qdq.write import write

FAINT = 0.01
"""A channel that varies by less than this share of its layer keeps its scale: that may be rounding alone."""
MOST = 2.0
"""The most that a channel is widened, or narrowed, by."""


@dataclass(frozen=True, eq=False)
class Adapted:
    """What an integer graph is written with besides the float graph: other constants, and encodings by name.

    `errors` maps a layer that was fitted to its squared error before and after, on examples held out, as shares of
    the energy of its outputs.
    """

    values: Mapping[str, Array]
    encodings: Mapping[str, Encoding]
    errors: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def written(self, proto: onnx.ModelProto, scheme: Scheme, ranges: Mapping[str, Range]) -> onnx.ModelProto:
        """The integer graph of the float graph `proto`."""
        return write(with_constants(proto, self.values), scheme, ranges, self.encodings)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Mean and standard deviation of each channel of a layer's outputs, before any activation."""

    mean: Array
    deviation: Array


def tune_norms(
    proto: onnx.ModelProto,
    scheme: Scheme,
    ranges: Mapping[str, Range],
    adapted: Adapted,
    feeds: Sequence[Arrays],
    *,
    progress: Callable[[int, int], None],
) -> Adapted:
    """The integer layers with their channels' float statistics, layer by layer in running order.

    Codes stay what they are: the deviation goes into the scales of weights with an encoding per channel, the mean into
    the bias. Layers without a bias, or that share weights, are left.

    Args:
        proto: the prepared float graph.
        scheme: what is quantised.
        ranges: of the activations, as for `write`.
        adapted: constants and encodings so far.
        feeds: unlabelled examples.
        progress: called with the layers that are done and the number of all.
    """
    layers = [layer for layer in layers_of(proto) if layer.bias is not None and _alone(proto, layer)]
    for done, layer in enumerate(layers):
        progress(done, len(layers))
        wanted = _moments(proto, layer, feeds)
        found = _moments(adapted.written(proto, scheme, ranges), layer, feeds)
        adapted = _corrected(proto, layer, adapted, wanted, found)
    progress(len(layers), len(layers))
    return adapted


def _corrected(proto: onnx.ModelProto, layer: Layer, adapted: Adapted, wanted: _Moments, found: _Moments) -> Adapted:
    assert layer.bias is not None
    encoding = adapted.encodings.get(layer.weight)
    channels = encoding is not None and encoding.grid.per == "channel" and encoding.axis == layer.axis
    factor = _factor(wanted, found) if channels else np.ones_like(found.mean)
    bias = adapted.values.get(layer.bias, constant(proto, layer.bias))
    moved = ((bias - found.mean) * factor + wanted.mean).astype(np.float32)
    values, encodings = {layer.bias: moved}, {}
    if encoding is not None and channels:
        weight = adapted.values.get(layer.weight, constant(proto, layer.weight))
        encodings[layer.weight] = encoding.scaled(factor)
        values[layer.weight] = encodings[layer.weight].values(encoding.codes(weight))
    return replace(adapted, values={**adapted.values, **values}, encodings={**adapted.encodings, **encodings})


def _factor(wanted: _Moments, found: _Moments) -> Array:
    """What the deviation of each channel is multiplied by; 1 for channels that hardly vary."""
    faint = FAINT * max(float(np.mean(wanted.deviation)), 1e-12)
    varies = (wanted.deviation > faint) & (found.deviation > faint)
    ratio = np.divide(wanted.deviation, found.deviation, where=varies, out=np.ones_like(found.deviation))
    return np.clip(ratio, 1 / MOST, MOST)


def _moments(proto: onnx.ModelProto, layer: Layer, feeds: Sequence[Arrays]) -> _Moments:
    output = next(node.output[0] for node in proto.graph.node if node.name == layer.name)
    values = captured(proto, [output], feeds)[output]
    axes = (0, *range(2, values.ndim)) if layer.kind == "Conv" else tuple(range(values.ndim - 1))
    return _Moments(values.mean(axis=axes, dtype=np.float64), values.std(axis=axes, dtype=np.float64))


def _alone(proto: onnx.ModelProto, layer: Layer) -> bool:
    uses = Counter(name for node in proto.graph.node for name in node.input)
    return uses[layer.weight] == 1 and uses[layer.bias or ""] == 1
