"""How far the predictor is off, by cross-validation, on public measurements.

    python -m predictor.evaluate --data DIR [ROW...]       (in benchmarks/)

Rows: nasbench fbnet few mlperf transfer ncnn. docs/results/predictor.md holds what it printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewright_devices.predictor.fit import Floats, Posterior, fit
from edgewright_devices.predictor.predict import WIDEN
from predictor.tables import Place, places, prior_of

SURE = 1.645
DRAWS = 4
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Guess:
    """Predictions of networks left out of the fit, with the half-width of their 90 % interval in logarithms."""

    value: Floats
    measured: Floats
    half: Floats

    @property
    def errors(self) -> Floats:
        """Absolute, relative to what was measured."""
        return np.abs(self.value / self.measured - 1)

    @property
    def covered(self) -> float:
        """The share of networks in their interval."""
        return float(np.mean(np.abs(np.log(self.value / self.measured)) < self.half))

    @property
    def spearman(self) -> float:
        """Correlation of ranks, ties in the middle."""
        return float(np.corrcoef(ranks(self.value), ranks(self.measured))[0, 1])

    def __str__(self) -> str:
        within, half = np.mean(self.errors < 0.1), np.expm1(np.median(self.half))
        return (
            f"n {len(self.value):4}  within 10 % {within:6.1%}  MAPE {self.errors.mean():6.1%}  "
            f"Spearman {self.spearman:.3f}  covered {self.covered:6.1%}  half-width {half:6.1%}"
        )


def ranks(values: Floats) -> Floats:
    """Ranks, equal values sharing the mean of theirs."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Floats = (last - (counts - 1) / 2)[at]
    return found


def guess(posterior: Posterior, terms: Floats, measured: Floats) -> Guess:
    """What a posterior says of networks, against what they take."""
    value = np.maximum(terms @ posterior.coefficients, 1e-12)
    unsure = WIDEN * np.linalg.norm(terms @ posterior.spread, axis=1) / value
    return Guess(value, measured, SURE * np.hypot(unsure, posterior.noise))


def joined(parts: Sequence[Guess]) -> Guess:
    """All of them together."""
    return Guess(*(np.concatenate([getattr(part, key) for part in parts]) for key in ("value", "measured", "half")))


def five_fold(place: Place, measured: Floats, prior: Floats) -> Guess:
    """Each network predicted without those that compute the same, a fifth at a time."""
    names, group = np.unique(place.same, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[group] % 5
    return joined([split(place, measured, fold != at, prior) for at in range(5)])


def split(place: Place, measured: Floats, inside: Mask, prior: Floats) -> Guess:
    """Fitted on the networks inside, asked for the others."""
    return guess(fit(place.terms[inside], measured[inside], prior), place.terms[~inside], measured[~inside])


def others(known: Sequence[Place], place: Place) -> list[Place]:
    """Places of the same unit from other sources: the prior knows nothing of what is judged."""
    return [each for each in known if each.source != place.source and each.unit == place.unit]


def nasbench(known: Sequence[Place]) -> None:
    """NAS-Bench-201, every column, five folds."""
    edge = [place for place in known if place.source == "edge"]
    priors = {place.unit: prior_of(others(known, place), most=20) for place in edge}
    for place in edge:
        print(f"{place.name:18} {five_fold(place, place.ms, priors[place.unit])}", flush=True)


def fbnet(known: Sequence[Place]) -> None:
    """FBNet on the Pixel 2, five folds."""
    place = next(place for place in known if (place.source, place.name) == ("fbnet", "pixel2"))
    print(f"{place.name:18} {five_fold(place, place.ms, prior_of(others(known, place), most=20))}", flush=True)


def few(known: Sequence[Place]) -> None:
    """A device never seen, ten measured networks: the prior of the other columns, against a line through MACs."""
    edge = [place for place in known if place.source == "edge" and len(place.ms) > 800]
    mapes, correlations = [], []
    for place in edge:
        rest = [each for each in edge if each is not place and each.unit == place.unit]
        prior, ours, line = prior_of(rest), list[Guess](), list[float]()
        for seed in range(DRAWS):
            inside = np.zeros(len(place.ms), bool)
            inside[np.random.default_rng(seed).permutation(len(place.ms))[:10]] = True
            ours.append(split(place, place.ms, inside, prior))
            slope, level = np.polyfit(place.macs[inside], place.ms[inside], 1)
            line.append(float(np.mean(np.abs((slope * place.macs + level) / place.ms - 1)[~inside])))
        mapes.append(np.mean([each.errors.mean() for each in ours]))
        correlations.append(np.mean([each.spearman for each in ours]))
        print(f"{place.name:18} {joined(ours)}  line through MACs {np.mean(line):6.1%}", flush=True)
    print(f"median MAPE {np.median(mapes):.1%}, worst {max(mapes):.1%}, median Spearman {np.median(correlations):.3f}")


def mlperf(known: Sequence[Place]) -> None:
    """MLPerf boards, latency and energy, split by network, per round and runtime."""
    boards = [place for place in known if place.source == "mlperf"]
    priors = {place.unit: prior_of(others(known, place), most=20) for place in boards}
    found: dict[str, list[float]] = {"latency": [], "energy": []}
    for place in boards:
        for quantity, measured in (("latency", place.ms), ("energy", place.mj)):
            if np.isfinite(measured).all():
                asked = five_fold(place, measured, priors[place.unit])
                found[quantity].append(float(asked.errors.mean()))
                print(f"{place.name:48} {quantity:8} {asked}", flush=True)
    for quantity, errors in found.items():
        print(f"{quantity}: mean MAPE {np.mean(errors):.1%}, median {np.median(errors):.1%} of {len(errors)} places")


def transfer(known: Sequence[Place]) -> None:
    """Fitted on MobileNet v1, asked for v2, and the other way round; the prior saw neither."""

    def strangers(place: Place) -> Mask:
        return ~np.isin(place.family, ["mobilenet", "mobilenet_v2"])

    boards = [place for place in known if place.source == "mlperf"]
    priors = {place.unit: prior_of(others(known, place), strangers, most=20) for place in boards}
    for family in ("v1", "v2"):
        parts = [split(place, place.ms, place.family == family, priors[place.unit]) for place in boards]
        print(f"fitted on {family}: {joined(parts)}", flush=True)


def ncnn(known: Sequence[Place]) -> None:
    """Each family of ncnn's networks left out in turn, of the device and of the prior."""
    devices = [place for place in known if place.source == "ncnn" and len(place.ms) >= 12]
    errors: dict[str, list[float]] = {}
    parts: list[Guess] = []
    for family in sorted({str(name) for place in devices for name in place.family}):
        now: list[Guess] = []
        for unit in ("cpu", "gpu"):
            of_unit = [place for place in devices if place.unit == unit]
            prior = prior_of(of_unit, keep=lambda place, family=family: place.family != family)
            for place in of_unit:
                if (place.family == family).any():
                    now.append(split(place, place.ms, place.family != family, prior))
                    errors.setdefault(place.name, []).extend(now[-1].errors)
        print(f"{family:18} {joined(now)}", flush=True)
        parts += now
    print(f"all {joined(parts)}\nmedian MAPE of devices {np.median([np.mean(each) for each in errors.values()]):.1%}")


ROWS: Mapping[str, Callable[[Sequence[Place]], None]] = {
    row.__name__: row for row in (nasbench, fbnet, few, mlperf, transfer, ncnn)
}


def main() -> None:
    """Read, and print the rows that were asked for."""
    parser = argparse.ArgumentParser(description="Cross-validate the predictor.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the measurements")
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], metavar="ROW")
    asked = parser.parse_args()
    known = places(asked.data)
    for name in asked.rows or ROWS:
        print(f"== {name}")
        ROWS[name](known)


if __name__ == "__main__":
    main()
