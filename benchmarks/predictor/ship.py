"""Fits what the predictor ships: the prior of devices, and the coefficients of profiles whose device was measured.

    python -m predictor.ship --data DIR       (in benchmarks/)

DIR holds the measurements as benchmarks/predictor/sources.py names them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgewright_devices.predictor.coefficients import PRIOR, rounded, to_entry
from edgewright_devices.predictor.fit import PLAIN, Floats, Posterior, fit
from edgewright_devices.predictor.kernels import TERMS, WIDTHS
from edgewright_devices.predictor.profile import without_fitted, written
from edgewright_devices.profiles import FOLDER
from predictor.devices import target_of
from predictor.tables import IDLE, Place, places, prior_of

PROFILES = {
    "raspberry-pi-4": ("v2.0 rpi4-tflite-v2.7.1-ruy", "TFLite 2.7.1 (ruy), MLPerf Inference v2.0"),
    "raspberry-pi-5": (
        "ncnn cpu 4 Raspberry Pi 5 Broadcom BCM2712, Cortex",
        "ncnn, 4 threads, community benchmark",
    ),
    "snapdragon-8-gen-2": ("ncnn cpu 4 Qualcomm SM8550", "ncnn, 4 threads, community benchmark"),
    "jetson-tx2": ("rice_edgegpu", "TensorRT (HW-NAS-Bench), batch 1"),
}
"""The place whose measurements a profile's coefficients come from, and the runtime that they stand for.

The other Jetsons were measured by ncnn on Vulkan alone, in 17 networks whose error was 35 to 75 %: no better than none.
"""


def scales_of(known: list[Place], prior: Floats) -> dict[str, Any]:
    """By width: time x peak of devices relative to the prior, its median and the sd of its logarithm."""
    found: dict[str, list[float]] = {width: [] for width in WIDTHS}
    for place in known:
        target = target_of(place.name)
        for width, dtype in zip(WIDTHS, ("float32", "int8")):
            rows = place.dtype == dtype
            if target is not None and rows.sum() >= 5:
                ratio = np.median(place.ms[rows] / (place.terms[rows] @ prior))
                found[width].append(float(np.log(ratio * target.compute.get(dtype, target.compute["float32"]).value)))
    floats = found["float"]
    return {
        width: [rounded(float(np.exp(np.median(logs or floats)))), rounded(spread(logs or floats))]
        for width, logs in found.items()
    }


def spread(logs: list[float]) -> float:
    """The sd of a new device's logarithm: the mean is not known either."""
    around = np.abs(np.array(logs) - np.median(logs))
    return float(np.quantile(around, 0.9) / 1.645 * np.sqrt(1 + 1 / len(logs)))


def power_spread(known: list[Place]) -> float:
    """The sd of the logarithm of watts about the mean of their board, over boards with a meter."""
    logs = [np.log(p.mj / p.ms) for p in known if np.isfinite(p.mj).all()]
    boards: dict[str, list[Floats]] = {}
    for place, watts in zip((p for p in known if np.isfinite(p.mj).all()), logs):
        boards.setdefault(place.name.split()[1].split("-")[0], []).append(watts)
    errors = np.concatenate([np.concatenate(runs) - np.mean(np.concatenate(runs)) for runs in boards.values()])
    return float(np.std(errors))


def left_out_spread(known: list[Place], prior: Floats) -> float:
    """The sd of the logarithm of single networks about their device's scale, under the prior alone."""
    errors = []
    for place in known:
        for dtype in ("float32", "int8"):
            rows = place.dtype == dtype
            if rows.sum() >= 5:
                logs = np.log(place.ms[rows] / (place.terms[rows] @ prior))
                errors.append(np.quantile(np.abs(logs - np.median(logs)), 0.9) / 1.645)
    return float(np.median(errors))


def cross_validated(terms: Floats, measured: Floats, same: Any, prior: Floats) -> float:
    """The mean absolute relative error of five folds."""
    names, fold = np.unique(same, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[fold] % 5
    errors = np.zeros(len(measured))
    for at in range(5):
        out = fold == at
        value, _ = fit(terms[~out], measured[~out], prior).predict(terms[out])
        errors[out] = np.abs(value / measured[out] - 1)
    return float(errors.mean())


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description="Fit what the predictor ships.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the measurements")
    known = places(parser.parse_args().data)
    priors: dict[str, Floats] = {}
    document: dict[str, Any] = {}
    power = power_spread(known)
    for unit in ("cpu", "gpu"):
        part = [place for place in known if place.unit == unit]
        prior = priors[unit] = prior_of(part)
        plain = prior * PLAIN  # as the predictor takes a device that was not measured
        document[unit] = {
            "coefficients": {name: rounded(value) for name, value in zip(TERMS, prior)},
            "scales": scales_of(part, plain),
            "loose": 0.3,
            "noise": rounded(left_out_spread(part, plain)),
            "power": rounded(power),
            "n": sum(len(place.ms) for place in part),
            "source": f"benchmarks/predictor/ship.py on public measurements of {len(part)} devices and runtimes "
            "(NAS-Bench-201, FBNet, MLPerf Inference, ncnn); this device was not measured",
        }
    PRIOR.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name, (start, runtime) in PROFILES.items():
        ship_profile(name, next(place for place in known if place.name.startswith(start)), runtime, priors)


def ship_profile(name: str, place: Place, runtime: str, priors: dict[str, Floats]) -> None:
    """Write the coefficients of one place into a profile."""
    fitted: dict[str, Any] = {}
    for quantity, measured in (("latency", place.ms), ("energy", place.mj)):
        if np.isfinite(measured).all():
            error = cross_validated(place.terms, measured, place.same, priors[place.unit])
            posterior: Posterior = fit(place.terms, measured, priors[place.unit])
            source = f"benchmarks/predictor/ship.py on {len(measured)} networks: {runtime}; error by five folds"
            fitted[quantity] = to_entry(posterior, len(measured), source, error, idle=place.name in IDLE)
            print(f"{name:20} {quantity:8} n {len(measured)}  error {error:.1%}  noise {posterior.noise:.1%}")
    path = FOLDER / f"{name}.toml"
    text = without_fitted(path.read_text(encoding="utf-8"))
    path.write_text(f"{text}\n{written(fitted)}", encoding="utf-8")


if __name__ == "__main__":
    main()
