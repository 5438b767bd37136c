"""Every statistic of the engine: percentiles, intervals, paired ratios and differences, stability (numpy only)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = Sequence[float] | npt.NDArray[Any]
Interval = tuple[float, float]

SUPPORT = {50.0: 1, 90.0: 100, 99.0: 1000, 99.9: 10000}
"""How many samples a percentile needs before it is worth printing."""

WARN_COV = 0.025
UNSTABLE_COV = 0.10
TRIMMED = 0.05
TRIMMED_ROUNDS = 0.2

_T_SMALL = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def percentiles(samples: Samples) -> dict[float, float]:
    """The percentiles that so many samples support (see SUPPORT), by percent."""
    values = _checked(samples)
    supported = [q for q, needed in SUPPORT.items() if len(values) >= needed]
    return {q: float(v) for q, v in zip(supported, np.percentile(values, supported), strict=True)}


def median_interval(samples: Samples, confidence: float = 0.95) -> Interval | None:
    """The order-statistic interval of the median; None when there are too few samples for it.

    Distribution-free: the ranks l and u with P(l <= Binomial(n, 1/2) < u) >= confidence (Conover,
    Practical Nonparametric Statistics, section 3.2). It takes samples to be independent.
    """
    values = np.sort(_checked(samples))
    n = len(values)
    tail = (1.0 - confidence) / 2.0
    if n < 200:
        cumulative = np.cumsum([math.comb(n, k) / 2.0**n for k in range(n + 1)])  # integers would overflow from 64 on
        below = int(np.searchsorted(cumulative, tail, side="right"))
    else:
        below = math.floor(n / 2 + NormalDist().inv_cdf(tail) * math.sqrt(n) / 2)
    return None if below == 0 else (float(values[below - 1]), float(values[n - below]))


def student_t(freedom: int) -> float:
    """The two-sided 95 % point of Student's t.

    A table up to ten degrees of freedom, above it Abramowitz and Stegun 26.7.5 (off by less than 0.001).
    """
    if freedom < 1:
        raise ValueError("an interval needs at least two values")
    if freedom <= len(_T_SMALL):
        return _T_SMALL[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def mean_interval(samples: Samples) -> tuple[float, Interval | None]:
    """The mean and its 95 % interval by Student's t; no interval for a single value."""
    values = _checked(samples)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None
    half = student_t(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, (mean - half, mean + half)


def trimmed_mean_interval(samples: Samples) -> tuple[float, Interval | None]:
    """The mean without the lowest and highest fifth (one value each at least), and its 95 % interval.

    Yuen, The two-sample trimmed t for unequal population variances (Biometrika 61, 1974), for one sample:
    the variance is that of the winsorised values. Below five values nothing is trimmed.
    """
    values = np.sort(_checked(samples))
    n = len(values)
    if n < 5:
        return mean_interval(values)
    cut = max(1, math.floor(TRIMMED_ROUNDS * n))
    kept = n - 2 * cut
    mean = float(values[cut : n - cut].mean())
    winsorised = np.clip(values, values[cut], values[n - cut - 1])
    half = student_t(kept - 1) * float(winsorised.std(ddof=1)) * math.sqrt((n - 1) / (kept * (kept - 1)))
    return mean, (mean - half, mean + half)


def ratio_over_rounds(log_ratios: Samples) -> tuple[float, Interval | None]:
    """A ratio and its 95 % interval from one log ratio per independent round, by the trimmed mean.

    Runs inside a round share that round's processes, so they are not independent and enter only through
    their round's value. Trimmed, because single rounds are disturbed on shared machines, and one round that is
    off by 20 % hides a difference of 5 % in a plain t interval over six.
    """
    mean, interval = trimmed_mean_interval(log_ratios)
    return math.exp(mean), None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))


def bootstrap_ratio(
    reference: Samples, candidate: Samples, *, seed: int = 0, resamples: int = 2000
) -> tuple[float, Interval]:
    """reference / candidate for paired samples, and its 95 % percentile-bootstrap interval over the pairs.

    The value is exp(median of log ratios). Use it for independent pairs (one per example or model);
    timings of one process are not independent, see `ratio_over_rounds`.
    """
    logs = np.log(_checked(reference)) - np.log(_checked(candidate))
    rng = np.random.default_rng(seed)
    drawn = np.median(logs[rng.integers(0, len(logs), (resamples, len(logs)))], axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return math.exp(float(np.median(logs))), (math.exp(float(low)), math.exp(float(high)))


def ratio_of_means(
    reference: Samples, candidate: Samples, *, seed: int = 0, resamples: int = 2000
) -> tuple[float, Interval]:
    """mean(reference) / mean(candidate) of paired samples, with the 95 % percentile-bootstrap interval over pairs."""
    first, second = _checked(reference), _checked(candidate)
    drawn = np.random.default_rng(seed).integers(0, len(first), (resamples, len(first)))
    low, high = np.percentile(first[drawn].mean(1) / second[drawn].mean(1), (2.5, 97.5))
    return float(first.mean() / second.mean()), (float(low), float(high))


# ------------------------------------------------------------------ stability


@dataclass(frozen=True)
class Stability:
    """How steady a set of timings was: `cov` is a share, `verdict` is `stable`, `noisy` or `unstable`."""

    cov: float
    verdict: str


def coefficient_of_variation(samples: Samples) -> float:
    """Standard deviation / mean of all but the slowest 5 % of the samples.

    An interruption can only make a run slower, and a handful of them does not move a median; a clock that
    changes, or a second program that takes a share of the core, hits more than 5 % and shows.
    """
    values = np.sort(_checked(samples))
    kept = values[: max(1, math.ceil(len(values) * (1 - TRIMMED)))]
    return float(kept.std() / kept.mean()) if kept.mean() > 0 else 0.0


def stability(samples: Samples) -> Stability:
    """Over 2.5 % is noisy (a warning), over 10 % is unstable (the number is marked)."""
    cov = coefficient_of_variation(samples)
    if cov > UNSTABLE_COV:
        return Stability(cov, "unstable")
    return Stability(cov, "noisy" if cov > WARN_COV else "stable")


# ------------------------------------------------------------------ accuracy


def paired_difference(candidate: Samples, original: Samples) -> tuple[float, Interval]:
    """candidate - original in mean score per example, with its 95 % interval over the pairs.

    For scores that are 0 or 1, Agresti and Min, Simple improved confidence intervals for comparing
    matched proportions (Statistics in Medicine 24, 2005): half a pair is added to each cell of the
    2 x 2 table, so that two models that agree on every example still get an interval of some width.
    For other scores, Student's t on the differences.
    """
    a, b = _checked(candidate), _checked(original)
    if len(a) != len(b):
        raise ValueError(f"paired scores differ in number: {len(a)} and {len(b)}")
    difference = a - b
    if not np.isin(a, (0, 1)).all() or not np.isin(b, (0, 1)).all():
        mean, interval = mean_interval(difference)
        return mean, interval or (-math.inf, math.inf)
    n = len(a) + 2.0
    gained, lost = float((difference > 0).sum()) + 0.5, float((difference < 0).sum()) + 0.5
    centre = (gained - lost) / n
    half = NormalDist().inv_cdf(0.975) * math.sqrt((gained + lost) - (gained - lost) ** 2 / n) / n
    return float(difference.mean()), (max(-1.0, centre - half), min(1.0, centre + half))


def _checked(samples: Samples) -> npt.NDArray[np.float64]:
    values = np.asarray(samples, dtype=np.float64).ravel()
    if len(values) == 0:
        raise ValueError("no samples")
    return values
