"""What each layer in float costs or wins in time, learnt from races of random mixes, and what neighbours share.

A float layer between integer ones pays for conversions and layouts on both sides, and two float layers in a row pay
only once: so the latency of a mix is not a sum over layers. It is modelled as 1 (8 bits everywhere) plus a part for
each float layer plus a part for each pair of float layers that feed one another directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.types import Array
from edgewright_plugins.mixed_bits.net import FLOAT, FOLLOWERS, FULL, Mix, Net
from edgewright_plugins.mixed_bits.prices import Prices
from edgewright_plugins.qdq.allocate import Pair

NOISE = 0.02
"""How far a race may be off, beside which layers' own times differ."""


@dataclass(frozen=True)
class Race:
    """A mix and its latency as a share of that of 8 bits everywhere; `kind` is `measured` or `predicted`."""

    mix: Mix
    share: float
    kind: str = "measured"


def random_mixes(layers: int, count: int, seed: int) -> list[Mix]:
    """Float everywhere, and mixes with ever fewer float layers, down to about one; the same for the same seed."""
    rng = np.random.default_rng(seed)
    shares = np.linspace(1.0, 1.0 / layers, count)
    mixes = [tuple(FLOAT if drawn < share else FULL for drawn in rng.random(layers)) for share in shares]
    return list(dict.fromkeys(mix for mix in mixes if FLOAT in mix))


def neighbours(net: Net) -> list[tuple[int, int]]:
    """Pairs of layers (by position) of which one feeds the other directly, or through what follows float layers."""
    maker = {layer.output: position for position, layer in enumerate(net.layers)}
    for node in net.proto.graph.node:
        if node.op_type in FOLLOWERS and node.input[0] in maker:
            maker[node.output[0]] = maker[node.input[0]]
    return [(maker[layer.input], position) for position, layer in enumerate(net.layers) if layer.input in maker]


def learn(net: Net, races: Sequence[Race]) -> Prices:
    """The prices under which the races come out best.

    Least squares over: one part per multiplication and one per layer that all float layers share, each layer's own
    deviation from that (ridge regression, since there are more layers than some budgets have races), and one part
    that all pairs of float neighbours share.
    """
    pairs = neighbours(net)
    work = np.array([layer.macs for layer in net.layers], np.float64)
    work = work / max(float(work.sum()), 1.0)
    rows = np.array([_features(race.mix, work, pairs) for race in races])
    wanted = np.array([race.share - 1.0 for race in races])
    parts = _ridge(rows, wanted, free=3, strength=NOISE * len(net.layers))
    alone = parts[0] / len(net.layers) + parts[1] * work + parts[3:]
    costs = tuple((0.0, float(part)) for part in alone)
    shared = float(parts[2]) / max(len(pairs), 1)
    together = tuple(Pair((a, 1), (b, 1), shared) for a, b in pairs)
    return Prices((FULL, FLOAT), costs, together, fixed=1.0)


def _features(mix: Mix, work: Array, pairs: Sequence[tuple[int, int]]) -> list[float]:
    floats = np.array([bits == FLOAT for bits in mix], np.float64)
    both = sum(1 for a, b in pairs if mix[a] == mix[b] == FLOAT)
    return [float(floats.mean()), float(floats @ work), both / max(len(pairs), 1), *floats.tolist()]


def _ridge(rows: Array, wanted: Array, *, free: int, strength: float) -> Array:
    """The least-squares solution in which all but the first `free` unknowns are held near 0 by `strength`."""
    held = strength * np.eye(rows.shape[1])[free:]
    solution = np.linalg.lstsq(np.vstack([rows, held]), np.concatenate([wanted, np.zeros(len(held))]), rcond=None)
    return np.asarray(solution[0])
