"""What a mix loses: how far the outputs move from the float network's, without labels; and layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from edgewright.types import Array, Arrays
from edgewright_plugins.mixed_bits.net import Mix, Net
from edgewright_plugins.qdq.sensitivity import divergence, outputs

LEAST = 1e-6
"""What fewer bits are taken to lose at least: less is noise, and may be negative."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Examples, and what the float network answers to them."""

    feeds: Sequence[Arrays]
    answers: Sequence[Array]

    def loss_of(self, graph: onnx.ModelProto) -> float:
        """How far a graph's answers are from the float network's (qdq.sensitivity.divergence)."""
        return divergence(outputs(graph, self.feeds), self.answers)


def judge_by(proto: onnx.ModelProto, feeds: Sequence[Arrays]) -> Judge:
    """The judge with these examples, and the float graph's answers to them."""
    return Judge(feeds, outputs(proto, feeds))


@dataclass(frozen=True)
class Losses:
    """What each layer adds to the loss with each of its options.

    Attributes:
        options: bits, ascending.
        base: the loss with every layer in its last, most precise option.
        alone: per layer and option, the loss with that layer so and all others in their last option.
    """

    options: tuple[int, ...]
    base: float
    alone: tuple[tuple[float, ...], ...]

    @property
    def increases(self) -> list[list[float]]:
        """Per layer and option, what it adds; the last option adds nothing."""
        return [[*(max(loss - self.base, LEAST) for loss in row[:-1]), 0.0] for row in self.alone]

    def predicted(self, mix: Mix) -> float:
        """What the losses of the single layers add up to."""
        added = (row[self.options.index(bits)] for row, bits in zip(self.increases, mix, strict=True))
        return self.base + sum(added)


def losses_of(
    layers: Sequence[str], options: Sequence[int], base: float, ranked: Sequence[tuple[str, int, float]]
) -> Losses:
    """Of the ranking that `quantize` uses too: what fewer bits add to the loss that the last option has by itself."""
    alone = {(name, bits): loss for name, bits, loss in ranked}
    rows = [[base + alone[name, bits] - alone[name, options[-1]] for bits in options] for name in layers]
    return Losses(tuple(options), base, tuple(map(tuple, rows)))


def measure_losses(
    net: Net, options: Sequence[int], measure: Callable[[Mix], float], progress: Callable[[int, int], None]
) -> Losses:
    """Each layer in each option alone, with its activations; `measure` gives the loss of a mix."""
    best = net.uniform(options[-1])
    base = measure(best)
    rows: list[tuple[float, ...]] = []
    for position in range(len(net.layers)):
        progress(position, len(net.layers))
        fewer = (measure(net.with_layer(best, position, bits)) for bits in options[:-1])
        rows.append((*fewer, base))
    return Losses(tuple(options), base, tuple(rows))
