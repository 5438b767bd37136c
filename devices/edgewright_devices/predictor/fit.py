"""Fits the coefficients of kernels to measured networks: constrained least squares around a prior, numpy only.

The time of a network is a sum of terms times coefficients, none of them negative. The prior says how coefficients
relate to one another on devices of the same kind. So ten measured networks do, and what they leave open stays open:
the posterior's variance is what makes an interval wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright_devices.predictor.kernels import TERMS, WIDTHS

Floats = npt.NDArray[np.float64]

LOOSE = 3.0
"""How far a coefficient lies from its prior, relative to it (one standard deviation), once the scale is known."""

STARTS = [TERMS.index(next(name for name in TERMS if name.startswith(width))) for width in WIDTHS]
"""Where the terms of each width begin."""


def without(*kinds: str) -> Floats:
    """0 for the terms of these kinds, 1 for all others."""
    return np.array([name.split(".")[1] not in kinds for name in TERMS], dtype=float)


PLAIN = without("path", "apart")
"""Leaves out what few devices tell: terms of the path, for those that run one kernel at a time, and of sums apart, for
those that join none to a product.
"""

MODES = [PLAIN, without("apart"), without("path"), without()]
"""What a device may do: neither, run kernels side by side, join sums, both."""

NOISE = 0.03
"""What a sum of terms is off by at the least, relative: how strongly measurements pull against the prior."""

LEAST_NOISE = 0.01
FAINT = 1e-4
"""What the start of a prior weighs beside one device."""

ROUNDS = 5


@dataclass(frozen=True)
class Posterior:
    """Coefficients per term, `spread` with spread @ spread.T their covariance, the relative `noise` of a network."""

    coefficients: Floats
    spread: Floats
    noise: float

    def predict(self, terms: Floats) -> tuple[Floats, Floats]:
        """Values and their relative standard deviations, for rows of terms."""
        value = terms @ self.coefficients
        unsure = np.linalg.norm(terms @ self.spread, axis=1)
        return value, np.hypot(unsure / np.maximum(value, 1e-12), self.noise)

    def only(self, kept: Floats) -> Posterior:
        """This posterior with nothing but the terms that `kept` has 1 for."""
        return Posterior(self.coefficients * kept, self.spread * kept[:, None], self.noise)


def fit(terms: Floats, measured: Floats, prior: Floats, loose: float = LOOSE) -> Posterior:
    """The coefficients that explain `measured` (n) by `terms` (n x m), pulled towards a multiple of `prior` (m).

    Whether the device runs kernels beside the path at the same time, and whether it joins sums to products, is what
    predicts networks left out better.
    """
    modes = [_fit(terms * mode, measured, prior, loose).only(mode) for mode in MODES]
    return min(modes, key=lambda posterior: posterior.noise)


def _fit(terms: Floats, measured: Floats, prior: Floats, loose: float) -> Posterior:
    """Errors count relative to what was measured, and those beyond two standard deviations by their size only
    (Huber's weights): some measurements were disturbed.
    """
    scaled = terms * prior / measured[:, None]
    unit = prior * scales(scaled)
    rows = terms * unit / measured[:, None]
    pull = (NOISE / loose) ** 2 * np.eye(len(prior))
    weights = np.ones(len(measured))
    ratio, leverage, errors, normal = weights, weights, weights, pull
    for _ in range(ROUNDS):
        heavy = rows * weights[:, None]
        normal = heavy.T @ rows + pull
        ratio = nonnegative(normal, heavy.sum(axis=0) + np.diag(pull))
        errors = 1 - rows @ ratio
        leverage = np.einsum("nm,mn->n", heavy, np.linalg.solve(normal, rows.T))
        usual = 1.5 * float(np.median(np.abs(errors))) + LEAST_NOISE
        weights = np.minimum(1.0, 3 * usual / np.maximum(np.abs(errors), 1e-12))
    left_out = np.sqrt(weights) * errors / np.maximum(1 - leverage, 0.1)
    noise = max(LEAST_NOISE, float(np.sqrt(np.mean(left_out**2))))
    covariance = np.linalg.inv(normal) * NOISE**2
    return Posterior(ratio * unit, np.linalg.cholesky(covariance) * unit[:, None], noise)


def scales(scaled: Floats) -> Floats:
    """How many times slower than the prior a device is, for terms of each width: the times of rows, each 1 in all.

    `scaled` are the rows' times by term as the prior has them, relative to what was measured.
    """
    parts = np.add.reduceat(scaled, STARTS, axis=1)
    alike = float(1 / np.median(parts.sum(axis=1)))
    pull = 1e-3 * (parts**2).sum() * np.eye(len(STARTS)) / len(STARTS)
    normal, right = parts.T @ parts + pull, parts.T @ np.ones(len(parts)) + pull @ np.full(len(STARTS), alike)
    found = np.maximum(np.linalg.solve(normal, right), alike / 10)
    return np.repeat(found, np.diff([*STARTS, scaled.shape[1]]))


def nonnegative(normal: Floats, right: Floats) -> Floats:
    """The x >= 0 that minimises x' normal x / 2 - right' x for a positive definite `normal`.

    Lawson and Hanson, Solving Least Squares Problems (1974), algorithm 23.10, on the normal equations; it begins with
    every x free at 1, which is near where a fit ends, and not with none.
    """
    x, free = np.ones(len(right)), np.ones(len(right), bool)
    least = 1e-9 * float(np.abs(right).max())
    for _ in range(3 * len(right)):
        while free.any():
            best = np.zeros(len(right))
            best[free] = np.linalg.solve(normal[np.ix_(free, free)], right[free])
            low = free & (best <= 0)
            if not low.any():
                x = best
                break
            step = float((x[low] / (x[low] - best[low])).min())
            x = x + step * (best - x)
            free &= x > 1e-12 * float(np.abs(x).max())
            x[~free] = 0
        slope = right - normal @ x
        if free.all() or slope[~free].max() <= least:
            break
        free[np.argmax(np.where(free, -np.inf, slope))] = True
    return x


def learn_prior(places: list[tuple[Floats, Floats]], start: Floats, rounds: int = 8) -> Floats:
    """The one set of coefficients that explains many devices, each up to its own scale (alternating least squares).

    `start` counts as faintly as it takes to decide what no device tells. What is not plain stays there: few devices run
    kernels side by side or join sums, and those do not tell what the others do.
    """
    ratio = np.ones(len(start))
    for _ in range(rounds):
        normal, right = np.zeros((len(start),) * 2), np.zeros(len(start))
        for terms, measured in places:
            rows = terms * PLAIN * start / measured[:, None]
            rows = rows * scales(rows * ratio)
            errors = np.abs(1 - rows @ ratio)
            weights = np.minimum(1.0, 2 * np.median(errors) / np.maximum(errors, 1e-12)) / len(rows)
            normal += rows.T @ (rows * weights[:, None])
            right += rows.T @ weights
        faint = FAINT * len(places)
        ratio = nonnegative(normal + faint * np.eye(len(start)), right + faint)
    return start * np.maximum(ratio, 0.05)
