"""Which range of an activation the 256 levels of int8 cover: four methods over a histogram, in plain numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Range = tuple[float, float]
Loss = Callable[["Histogram", Range], float]

METHODS = ("min-max", "percentile", "entropy", "mse")
STEPS = 255
"""Steps between the 256 levels."""
SHARE = 0.9999
"""How much of a tensor's values the percentile method keeps on each side."""
DENSE = 100
"""Values per bin below which a histogram shows chance rather than a shape."""
NARROW = 1e-30
"""A range below this has no scale in float32 and is left as it is."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often values fell into equal bins between the exact lowest and highest value."""

    lowest: float
    highest: float
    counts: npt.NDArray[np.float64]

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """One more than there are bins."""
        return np.linspace(self.lowest, self.highest, len(self.counts) + 1)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """The middle of each bin."""
        edges = self.edges
        return (edges[:-1] + edges[1:]) / 2


def find_range(histogram: Histogram, method: str) -> Range:
    """The range by one of METHODS. It always holds zero, which must be exact: padding and ReLU make many."""
    if method == "min-max" or not histogram.counts.any():
        return min_max(histogram)
    if method == "percentile":
        return percentile(histogram, SHARE)
    return least_entropy(histogram) if method == "entropy" else least_error(histogram)


def min_max(histogram: Histogram) -> Range:
    """Everything that was seen."""
    return min(histogram.lowest, 0.0), max(histogram.highest, 0.0)


def percentile(histogram: Histogram, share: float) -> Range:
    """The narrowest edges that leave out at most `1 - share` of the values on each side."""
    shares = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail = 1.0 - share
    below = int(np.searchsorted(shares, tail, side="right"))
    above = int(np.searchsorted(np.cumsum(histogram.counts[::-1]) / histogram.counts.sum(), tail, side="right"))
    edges = histogram.edges
    return min(float(edges[below]), 0.0), max(float(edges[len(edges) - 1 - above]), 0.0)


def least_error(histogram: Histogram) -> Range:
    """The range with the smallest `squared_error`; never worse in it than min-max."""
    return _search(histogram, squared_error, smallest=0.01)


def least_entropy(histogram: Histogram) -> Range:
    """The range with the smallest `divergence`, zeros left aside; min-max where there are too few values."""
    bins = len(histogram.counts)
    others = without_zeros(histogram)
    if others.counts.sum() < DENSE * bins:
        return min_max(histogram)
    return _search(others, divergence, smallest=min(1.0, (STEPS + 1) / bins))


def squared_error(histogram: Histogram, limits: Range) -> float:
    """The mean squared difference between a value and its nearest level, clipping included."""
    scale, zero = grid(limits)
    levels = np.clip(np.round(histogram.centres / scale) + zero, 0, STEPS)
    error = histogram.centres - (levels - zero) * scale
    return float(np.sum(histogram.counts * error**2) / np.sum(histogram.counts))


def divergence(histogram: Histogram, limits: Range) -> float:
    """How much the quantised distribution differs from the true one, in nats.

    Kullback-Leibler divergence sum p log(p / q). `p` is the histogram with what lies outside the range moved
    to its ends; `q` spreads the mass of each level evenly over the bins in use that fall on it and does not
    see what was moved, so that clipping costs (S. Migacz, 8-bit Inference with TensorRT, GTC 2017).
    """
    scale, zero = grid(limits)
    levels = np.clip(np.round(histogram.centres / scale) + zero, 0, STEPS).astype(np.int64)
    inside = (histogram.centres >= limits[0]) & (histogram.centres <= limits[1])
    if not inside.any():
        return float("inf")
    kept = np.where(inside, histogram.counts, 0.0)
    clipped = _with_tails(histogram.counts, inside)
    used = (clipped > 0).astype(np.float64)
    bins = np.bincount(levels, used, STEPS + 1)
    mass = np.bincount(levels, kept, STEPS + 1)
    spread = used * (mass / np.maximum(bins, 1.0))[levels]
    return _kullback_leibler(clipped, spread)


def without_zeros(histogram: Histogram) -> Histogram:
    """With the bin that holds zero as full as its neighbours.

    ReLU makes most values zero, and zero is a level of its own, so they lose nothing; to the divergence they
    would look like a peak that every level but the finest blurs.
    """
    if not histogram.lowest <= 0.0 <= histogram.highest:
        return histogram
    counts = histogram.counts.copy()
    zero = min(int(np.searchsorted(histogram.edges, 0.0, side="right")) - 1, len(counts) - 1)
    beside = [counts[i] for i in (zero - 1, zero + 1) if 0 <= i < len(counts)]
    counts[zero] = min(counts[zero], float(np.mean(beside)))
    return Histogram(histogram.lowest, histogram.highest, counts)


def grid(limits: Range) -> tuple[float, int]:
    """Scale and zero point of 8 unsigned bits over a range; the zero point is a level of its own."""
    scale = (limits[1] - limits[0]) / STEPS
    return scale, round(-limits[0] / scale)


def _with_tails(counts: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The counts inside, with those outside added to the first and the last bin inside."""
    first, last = int(np.argmax(inside)), len(inside) - 1 - int(np.argmax(inside[::-1]))
    moved = np.where(inside, counts, 0.0)
    moved[first] += counts[:first].sum()
    moved[last] += counts[last + 1 :].sum()
    return moved


def _kullback_leibler(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    """In nats. A bin that `q` lost altogether counts as a billionth of the mass rather than as infinity."""
    used = p > 0
    p, q = p[used] / p.sum(), q[used] / max(q.sum(), 1.0)
    return float(np.sum(p * np.log(p / np.maximum(q, 1e-9))))


def _search(histogram: Histogram, loss: Loss, *, smallest: float) -> Range:
    """Shrinks both ends together, then the upper, then the lower one; never worse than min-max in `loss`."""
    best = min_max(histogram)
    if best[1] - best[0] < NARROW:
        return best
    for low, high in ((True, True), (False, True), (True, False)):
        # The widest comes first and min() keeps the first of equals.
        best = min(_shrunk(best, low=low, high=high, smallest=smallest), key=lambda r: loss(histogram, r))
    return best


def _shrunk(limits: Range, *, low: bool, high: bool, smallest: float) -> Iterator[Range]:
    for factor in np.geomspace(1.0, smallest, 40):
        shrunk = limits[0] * (factor if low else 1.0), limits[1] * (factor if high else 1.0)
        if shrunk[1] - shrunk[0] >= NARROW:
            yield float(shrunk[0]), float(shrunk[1])
