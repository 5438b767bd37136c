"""Fits a target's coefficients to networks that were measured on such a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewright.errors import TargetError
from edgewright.protocols import Measurable
from edgewright.types import Target
from edgewright_devices.predictor.coefficients import read_prior, to_entry
from edgewright_devices.predictor.fit import Floats, fit
from edgewright_devices.predictor.kernels import design
from edgewright_devices.workload import Workload

FEWEST = 5
FOLDS = 5


def fitted_entries(
    measured: Sequence[Measurable], loads: Sequence[Sequence[Workload]], base: Target
) -> Mapping[str, Mapping[str, Any]]:
    """What `Target.fitted` holds for every quantity that enough networks tell.

    Raises: TargetError when fewer than FEWEST networks were measured.
    """
    values = {"latency": [case.latency_ms for case in measured], "energy": [case.energy_mj for case in measured]}
    found: dict[str, Mapping[str, Any]] = {}
    for quantity, column in values.items():
        rows = [at for at, value in enumerate(column) if value is not None]
        if len(rows) >= FEWEST:
            numbers = np.array([column[at] for at in rows], dtype=float)
            kinds = sorted({measured[at].kind for at in rows})
            source = f"engine calibrate on {len(rows)} networks {' and '.join(kinds)} on this device"
            found[quantity] = _entry([loads[at] for at in rows], numbers, base, source)
    if "latency" not in found:
        raise TargetError(f"{len(measured)} measured networks are too few to calibrate by; {FEWEST} are the fewest")
    return found


def _entry(loads: Sequence[Sequence[Workload]], measured: Floats, base: Target, source: str) -> Mapping[str, Any]:
    """Coefficients for one quantity; whether the runtime works on zeros is what fits better."""
    prior = read_prior(base.unit)
    tried: list[tuple[float, bool, Floats]] = []
    for idle in (False, True):
        terms = np.array([sum(design(load.works, idle=idle) for load in each) for each in loads])
        tried.append((left_out_error(terms, measured, prior.coefficients), idle, terms))
    error, idle, terms = min(tried, key=lambda one: one[0])
    source = f"{source}; error by {FOLDS} folds"
    return to_entry(fit(terms, measured, prior.coefficients), len(measured), source, error, idle=idle)


def left_out_error(terms: Floats, measured: Floats, prior: Floats) -> float:
    """The mean absolute relative error on networks left out of the fit, a fifth at a time."""
    fold = np.random.default_rng(0).permutation(len(measured)) % FOLDS
    errors = np.zeros(len(measured))
    for at in range(FOLDS):
        out = fold == at
        value, _ = fit(terms[~out], measured[~out], prior).predict(terms[out])
        errors[out] = np.abs(value / measured[out] - 1)
    return float(errors.mean())
