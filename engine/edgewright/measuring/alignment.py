"""Puts the samples of an instrument with a clock of its own on the device's clock, by two bursts of load.

The device rests, works, and rests again before the measurement and after it, and tells when. In the instrument's log
these bursts are where power is highest above what lies on both sides of it. Two of them give offset and rate of the
clock; a line between the two is all that quartz clocks need for some hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright.errors import RefusedError

Floats = npt.NDArray[np.float64]

MOST_DRIFT = 0.005
"""How far the rates of the clocks may differ: quartz is within 0.0001, counted samples are not."""

LEAST_CONTRAST = 4.0
"""How many times a burst has to stand out from the scatter of resting power."""

CANDIDATES = 40


@dataclass(frozen=True)
class Burst:
    """When the device worked, by its own clock, in ns; it rested for as long before and after."""

    begin_ns: int
    end_ns: int


@dataclass(frozen=True)
class Alignment:
    """The instrument's clock on the device's: device = begin + rate x (instrument - start), in seconds.

    `drift` is rate - 1; `contrast` how many W the weaker burst stood out.
    """

    start_s: float
    begin_s: float
    rate: float
    contrast: float

    @property
    def drift(self) -> float:
        """How much faster the device's clock runs than the instrument's, as a share."""
        return self.rate - 1

    def device_ns(self, times_s: Floats) -> npt.NDArray[np.int64]:
        """Times of the instrument on the device's clock."""
        return np.round((self.begin_s + self.rate * (times_s - self.start_s)) * 1e9).astype(np.int64)


def align(times_s: Floats, watts: Floats, first: Burst, last: Burst) -> Alignment:
    """Where the bursts lie in a log: times in seconds of any clock, ascending; power in W.

    Raises: RefusedError when they cannot be told there.
    """
    length = (first.end_ns - first.begin_ns) / 1e9
    apart = (last.begin_ns - first.begin_ns) / 1e9
    if len(times_s) < 2 or times_s[-1] - times_s[0] < apart + 2 * length:
        raise RefusedError("the log of the power meter does not span the measurement; start it first and stop it last")
    curve = _Curve(times_s, watts)
    step = min(length / 20, max(float(np.median(np.diff(times_s))) / 2, length / 200))
    at = np.arange(times_s[0] + length, times_s[-1] - 2 * length, step)
    begin, end = _best_pair(at, curve.contrast(at, length), apart)
    begin, end = (curve.peak(each, length, 2 * step) for each in (begin, end))
    contrast = float(curve.contrast(np.array([begin, end]), length).min())
    scatter = curve.scatter(begin - length, begin) / np.sqrt(max(1.0, length / (2 * step)))
    if contrast <= LEAST_CONTRAST * scatter or contrast <= 0:
        raise RefusedError(
            f"no two bursts of load {apart:.1f} s apart stand out in the log of the power meter ({contrast:.2g} W); "
            "is it this device that it measures?"
        )
    return Alignment(begin, first.begin_ns / 1e9, apart / (end - begin), contrast)


def _best_pair(at: Floats, contrast: Floats, apart: float) -> tuple[float, float]:
    """The beginnings of two bursts so far apart of which the weaker one stands out most."""
    step = at[1] - at[0]
    reach = max(1, int(np.ceil(MOST_DRIFT * apart / step)))
    best = (-np.inf, 0, 0)
    for one in np.argsort(-contrast)[: CANDIDATES * reach]:
        for other in (one + round(apart / step), one - round(apart / step)):
            low, high = max(0, other - reach), min(len(at), other + reach + 1)
            if low >= high:
                continue
            two = low + int(np.argmax(contrast[low:high]))
            best = max(best, (min(contrast[one], contrast[two]), min(one, two), max(one, two)))
    return float(at[best[1]]), float(at[best[2]])


class _Curve:
    """Joules against the instrument's time."""

    def __init__(self, times_s: Floats, watts: Floats) -> None:
        self._times, self._watts = times_s, watts
        steps = (watts[1:] + watts[:-1]) / 2 * np.diff(times_s)
        self._joules = np.concatenate(([0.0], np.cumsum(steps)))

    def contrast(self, at: Floats, length: float) -> Floats:
        """By how much the mean power of a burst that begins there is above the higher one of its sides, in W."""
        edges = [np.interp(at + n * length, self._times, self._joules) for n in (-1, 0, 1, 2)]
        before, during, after = (np.subtract(b, a) / length for a, b in zip(edges, edges[1:], strict=False))
        return during - np.maximum(before, after)

    def peak(self, near: float, length: float, reach: float) -> float:
        """Where the burst begins, finer than the samples lie."""
        at = np.linspace(near - reach, near + reach, 201)
        found = self.contrast(at, length)
        top = at[found >= found.max() - 1e-9 * abs(found.max())]
        return float(top.mean())

    def scatter(self, begin: float, end: float) -> float:
        """The standard deviation of power between two times."""
        inside = self._watts[(self._times >= begin) & (self._times <= end)]
        return float(inside.std()) if len(inside) > 1 else 0.0


def ascending(samples: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    """Times and values in order; of several at one time the last counts."""
    found = dict(sorted(samples, key=lambda each: each[0]))
    return np.fromiter(found.keys(), np.float64, len(found)), np.fromiter(found.values(), np.float64, len(found))
