"""What a mix costs, as a share of what 8 bits everywhere cost: bytes of weights, bit operations, or latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgewright.errors import RecipeError
from edgewright.grids import Grid
from edgewright_plugins.mixed_bits.losses import Losses
from edgewright_plugins.mixed_bits.net import FLOAT, FULL, Mix
from edgewright_plugins.qdq.allocate import Pair, allocate, cost_of
from edgewright_plugins.qdq.layers import Layer

ROUNDING = 1e-9
"""Shares are sums of fractions: a budget that is met exactly must not fail by their last digit."""


@dataclass(frozen=True)
class Prices:
    """Per layer and option its share of the cost, what pairs of options add, and what is paid anyway."""

    options: tuple[int, ...]
    costs: tuple[tuple[float, ...], ...]
    pairs: tuple[Pair, ...] = ()
    fixed: float = 0.0

    def share(self, mix: Mix) -> float:
        """The cost of a mix as a share of that of 8 bits everywhere."""
        choice = tuple(self.options.index(bits) for bits in mix)
        return self.fixed + cost_of(choice, self.costs, self.pairs)

    def best(self, losses: Losses, budget: float) -> Mix:
        """The mix within the budget (a share) whose layers' losses sum up to the least.

        Raises: RecipeError when there is none.
        """
        try:
            left = budget * (1 + ROUNDING) - self.fixed
            choice = allocate(losses.increases, self.costs, left, pairs=self.pairs)
        except RecipeError as error:
            raise RecipeError(
                f"mixed-bits: budget={budget:.4g} is too little for the options {'+'.join(map(str, self.options))}: "
                f"beside a fixed share of {self.fixed:.4g}, {error}"
            ) from None
        return tuple(self.options[position] for position in choice)


def bytes_of(layer: Layer, bits: int) -> float:
    """The bytes of a layer's weights in a file, which has 2, 4 and 8 bits; scales and biases are not counted."""
    stored = FLOAT if bits == FLOAT else Grid(bits).stored_bits
    return layer.weights * stored / 8


def bitops_of(layer: Layer, bits: int, activations: int) -> float:
    """Multiplications times the bits of both factors; a float layer takes float inputs."""
    return float(layer.macs * bits * (FLOAT if bits == FLOAT else activations))


def prices_of(layers: Sequence[Layer], options: Sequence[int], cost: Callable[[Layer, int], float]) -> Prices:
    """Prices that simply add up, from the cost of a layer in so many bits."""
    full = sum(cost(layer, FULL) for layer in layers) or 1.0
    return Prices(tuple(options), tuple(tuple(cost(layer, bits) / full for bits in options) for layer in layers))
