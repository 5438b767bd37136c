"""Which layers lose most: each is quantised alone and the outputs are compared with the float ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx

from edgewright import onnxkit
from edgewright.grids import Encoding
from edgewright.types import Array, Arrays
from edgewright_plugins.qdq.layers import Layer, constant, with_constants
from edgewright_plugins.qdq.place import CARRIERS, Scheme, quantised_nodes
from edgewright_plugins.qdq.ranges import Range
from edgewright_plugins.qdq.write import write

FINEST = 120.0
"""Decibels at which a difference is no longer told from rounding."""


def rank(
    proto: onnx.ModelProto,
    scheme: Scheme,
    ranges: Mapping[str, Range],
    feeds: Sequence[Arrays],
    progress: Callable[[int, int], None],
) -> list[tuple[str, float]]:
    """Every node that `scheme` quantises with its signal-to-noise ratio in dB, the most sensitive first.

    Nodes that only pass values on (Relu, Reshape, ...) have no rank: they follow the node before them.
    """
    reference = outputs(proto, feeds)
    carriers = {node.name for node in proto.graph.node if node.op_type in CARRIERS}
    quantised = [name for name in quantised_nodes(proto, scheme) if name not in scheme.kept]
    layers = [name for name in quantised if name not in carriers]
    ranked: list[tuple[str, float]] = []
    for done, layer in enumerate(layers):
        progress(done, len(layers))
        alone = write(proto, scheme.keeping(frozenset(layers) - {layer}), ranges)
        ranked.append((layer, signal_to_noise(outputs(alone, feeds), reference)))
    return sorted(ranked, key=lambda entry: entry[1])


def rank_weights(
    proto: onnx.ModelProto,
    choices: Sequence[tuple[Layer, Encoding]],
    feeds: Sequence[Arrays],
    progress: Callable[[int, int], None],
) -> list[tuple[str, int, float]]:
    """Layer, bits and signal-to-noise ratio in dB of each choice, the most harmful first.

    Each one alone: this layer's weights rounded so, everything else float.
    """
    reference = outputs(proto, feeds)
    ranked: list[tuple[str, int, float]] = []
    for done, (layer, encoding) in enumerate(choices):
        progress(done, len(choices))
        alone = with_constants(proto, {layer.weight: encoding.rounded(constant(proto, layer.weight))})
        ranked.append((layer.name, encoding.grid.bits, signal_to_noise(outputs(alone, feeds), reference)))
    return sorted(ranked, key=lambda entry: entry[2])


def outputs(proto: onnx.ModelProto, feeds: Iterable[Arrays]) -> list[Array]:
    """The outputs over `feeds`, computed here, joined on the first axis."""
    batches = list(onnxkit.run(onnxkit.pack(proto), feeds))
    return [np.concatenate([np.atleast_1d(array) for array in column]) for column in zip(*batches, strict=True)]


def signal_to_noise(found: Sequence[Array], reference: Sequence[Array]) -> float:
    """In dB: 10 log10 of the mean over the outputs of energy / energy of the error. From -120 to 120.

    Each output counts the same whatever its scale is. Outputs that are not numbers with a fraction are
    compared as numbers all the same.
    """
    shares = [
        _noise(np.asarray(f, np.float64), np.asarray(r, np.float64)) for f, r in zip(found, reference, strict=True)
    ]
    noise = float(np.mean(shares))
    if not np.isfinite(noise):
        return -FINEST
    return float(np.clip(-10 * np.log10(max(noise, 1e-12)), -FINEST, FINEST))


def _noise(found: np.ndarray, reference: np.ndarray) -> float:
    return float(np.sum((found - reference) ** 2) / max(float(np.sum(reference**2)), 1e-30))
