"""Which layers lose most: each is quantised alone and the outputs are compared with the float ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx

from edgewright import onnxkit
from edgewright.types import Array, Arrays
from edgewright_plugins.qdq.layers import with_constants
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
    choices: Sequence[tuple[str, int, Arrays]],
    feeds: Sequence[Arrays],
    progress: Callable[[int, int], None],
) -> list[tuple[str, int, float]]:
    """What each choice (layer, bits, the constants as so many bits give them) does to the outputs, the worst first.

    Each one alone, everything else float. Found by the `divergence` of the outputs: no label is read.
    """
    reference = outputs(proto, feeds)
    ranked: list[tuple[str, int, float]] = []
    for done, (layer, bits, constants) in enumerate(choices):
        progress(done, len(choices))
        ranked.append((layer, bits, divergence(outputs(with_constants(proto, constants), feeds), reference)))
    return sorted(ranked, key=lambda entry: -entry[2])


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


# ------------------------------------------------------------------ divergence


def divergence(found: Sequence[Array], wanted: Sequence[Array]) -> float:
    """How far outputs are from the float ones, on average over the outputs; 0 when they are the same.

    Outputs [n, classes] count as logits (as probabilities where each row sums to 1): the Kullback-Leibler divergence
    of the classes, in nats. Others count by the energy of their error over the float outputs'.
    """
    return float(
        np.mean(
            [_apart(np.asarray(f, np.float64), np.asarray(w, np.float64)) for f, w in zip(found, wanted, strict=True)]
        )
    )


def divergence_of(integers: onnx.ModelProto, proto: onnx.ModelProto, feeds: Sequence[Arrays]) -> float:
    """The `divergence` of a graph's outputs from those of the float graph, both run here."""
    return divergence(outputs(integers, feeds), outputs(proto, feeds))


def _apart(found: Array, wanted: Array) -> float:
    if wanted.ndim != 2 or wanted.shape[1] < 2:
        return float(np.square(found - wanted).sum() / max(float(np.square(wanted).sum()), 1e-30))
    p, q = _log_shares(wanted), _log_shares(found)
    return float(np.mean(np.sum(np.exp(p) * (p - q), axis=1)))


def _log_shares(outputs: Array) -> Array:
    """Log-probabilities of each row's classes; those of probabilities are their logarithms."""
    if outputs.min() >= 0 and np.allclose(outputs.sum(axis=1), 1, atol=1e-2):
        return np.log(np.maximum(outputs, 1e-9))
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
