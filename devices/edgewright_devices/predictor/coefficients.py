"""What is known of a device: coefficients where its profile holds fitted ones, else the prior and the peaks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.errors import TargetError, suggest
from edgewright.types import Target
from edgewright_devices.predictor.fit import PLAIN, Floats, Posterior
from edgewright_devices.predictor.kernels import INDEX, TERMS, WIDTHS

PRIOR = Path(__file__).parent / "prior.json"
"""What devices share, as benchmarks/predictor/ship.py wrote it."""


RANK = 16
"""Directions of a posterior that a profile keeps, the least sure first; the others hold next to nothing."""


@dataclass(frozen=True, eq=False)
class Known:
    """Coefficients with how sure they are, the number of measurements behind them, and where they come from.

    `idle`: the runtime computes on zeros too. `fitted`: measured on such a device.
    """

    posterior: Posterior
    n: int
    source: str
    idle: bool = False
    fitted: bool = True


@dataclass(frozen=True)
class Scale:
    """Time x peak, relative to the prior: the median of devices, and how far they differ (sd of the logarithm)."""

    median: float
    sd: float


@dataclass(frozen=True, eq=False)
class Prior:
    """What devices of one kind share: coefficients in ms x GFLOP/s, scales by width, what single networks are off by.

    `power` is the sd of the logarithm of watts between runs of a board.
    """

    coefficients: Floats
    scales: Mapping[str, Scale]
    loose: float
    noise: float
    power: float
    n: int
    source: str


@cache
def read_prior(unit: str, path: Path = PRIOR) -> Prior:
    """The prior for `cpu` or `gpu`. Raises: TargetError for another unit."""
    known: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    if unit not in known:
        raise TargetError(f"the predictor knows no unit {unit!r}; {suggest(unit, known)}")
    entry = dict(known[unit])
    entry["coefficients"] = vector(entry["coefficients"])
    entry["scales"] = {width: Scale(*pair) for width, pair in entry["scales"].items()}
    return Prior(**entry)


def known_of(target: Target, quantity: str) -> Known | None:
    """What is known of `quantity` on `target`; None where only a device like it was never measured."""
    entry = target.fitted.get(quantity)
    if entry is not None:
        return from_entry(entry)
    return assumed(target) if quantity == "latency" else None


def assumed(target: Target) -> Known:
    """Latency by the prior and the target's peaks, one kernel at a time. What devices differ by is one unknown for each
    width.
    """
    prior = read_prior(target.unit)
    unit, columns = np.zeros(len(TERMS)), np.zeros((len(TERMS), len(WIDTHS)))
    for at, width in enumerate(WIDTHS):
        peak = target.compute.get("int8" if width == "int8" else "float32", target.compute["float32"]).value
        scale = prior.scales[width]
        mask = np.array([name.startswith(width) for name in TERMS])
        unit[mask] = (prior.coefficients * PLAIN)[mask] * scale.median / peak
        columns[mask, at] = unit[mask] * scale.sd
    spread = np.hstack([np.diag(unit * prior.loose), columns])
    return Known(Posterior(unit, spread, prior.noise), prior.n, prior.source, fitted=False)


def to_entry(posterior: Posterior, n: int, source: str, error: float, *, idle: bool) -> dict[str, Any]:
    """A posterior as a profile holds it: terms that matter by name, and the directions in which they are unsure."""
    unsure, values, _ = np.linalg.svd(posterior.spread, full_matrices=False)
    kept = (unsure * values)[:, :RANK]
    names = [name for name in TERMS if posterior.coefficients[INDEX[name]] > 0 or np.abs(kept[INDEX[name]]).max() > 0]
    return {
        "coefficients": {name: rounded(posterior.coefficients[INDEX[name]]) for name in names},
        "spread": {name: [rounded(value) for value in kept[INDEX[name]]] for name in names},
        "noise": rounded(posterior.noise),
        "error": rounded(error),
        "n": n,
        "idle": idle,
        "source": source,
    }


def from_entry(entry: Mapping[str, Any]) -> Known:
    """The posterior in a profile."""
    spread = np.zeros((len(TERMS), max((len(row) for row in entry["spread"].values()), default=1)))
    for name, row in entry["spread"].items():
        spread[INDEX[name], : len(row)] = row
    posterior = Posterior(vector(entry["coefficients"]), spread, entry["noise"])
    return Known(posterior, entry["n"], entry["source"], bool(entry["idle"]))


def vector(named: Mapping[str, float]) -> Floats:
    """Values by name in the order of the terms; 0 for those not named."""
    found = np.zeros(len(TERMS))
    for name, value in named.items():
        found[INDEX[name]] = value
    return found


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")
