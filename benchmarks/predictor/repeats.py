"""What is noise in the measurements, and what is structure that the predictor does not see.

    python -m predictor.repeats --data DIR       (in benchmarks/)

Networks of NAS-Bench-201 that compute the same and ask for the same kernels; one board and runtime in several rounds
of MLPerf; whether what FBNets are off by on a phone is what they are off by on another; how well a table of the edges
of a cell does, which knows the space.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from edgewright_devices.predictor.fit import Floats
from predictor.evaluate import joined, others, split
from predictor.nets import all_edges, live_edges
from predictor.sources import rows
from predictor.tables import Place, places, prior_of


def twins(place: Place) -> str:
    """How far each network lies from the mean of its like, were that mean known for sure."""
    _, counted = np.unique(np.round(place.terms, 9), axis=0, return_inverse=True)
    names = [f"{same} {terms}" for same, terms in zip(place.same, counted.ravel())]
    _, group, size = np.unique(names, return_inverse=True, return_counts=True)
    n = size[group]
    others_mean = (np.bincount(group, place.ms)[group] - place.ms) / np.maximum(n - 1, 1)
    errors = (np.abs(others_mean / place.ms - 1) * np.sqrt(1 - 1 / n))[n > 1]
    return f"twins {len(errors):4}  within 10 % {np.mean(errors < 0.1):6.1%}  MAPE {errors.mean():6.1%}"


def table_of_edges(archs: Sequence[str], measured: Floats) -> str:
    """Five folds of least squares on which operator stands on which edge of the cell."""
    seen = [{*all_edges(arch)} for arch in archs]
    kinds = sorted(set[tuple[int, int, str]]().union(*seen))
    terms = np.array([[1.0, *(float(kind in each) for kind in kinds)] for each in seen])
    fold, found = np.random.default_rng(0).permutation(len(archs)) % 5, np.zeros(len(archs))
    for at in range(5):
        inside = fold != at
        found[~inside] = terms[~inside] @ np.linalg.lstsq(terms[inside], measured[inside], rcond=None)[0]
    errors = np.abs(found / measured - 1)
    return f"within 10 % {np.mean(errors < 0.1):6.1%}  MAPE {errors.mean():6.1%}"


def rounds(boards: Sequence[Place]) -> None:
    """Pairs of rounds of one board and runtime: how far networks move, once the boards' ratio is taken out."""
    for first, other in combinations(boards, 2):
        if board(first) == board(other):
            before = times(first)
            logs = np.array([np.log(ms / before[key]) for key, ms in times(other).items() if key in before])
            apart = np.mean(np.abs(logs - np.median(logs)))
            print(f"{first.name} to {other.name}: x {np.exp(np.median(logs)):.2f}, networks move by {apart:.1%}")


def board(place: Place) -> tuple[str, str]:
    """The board and runtime without its version, and what it ran on."""
    system = place.name.split(" ")[1]
    return system.rsplit("-v", 1)[0], system.rsplit("-", 1)[1]


def times(place: Place) -> dict[tuple[str, str], float]:
    """Milliseconds by network and width."""
    return {(str(same), str(dtype)): float(ms) for same, dtype, ms in zip(place.same, place.dtype, place.ms)}


def residuals(place: Place, prior: Floats) -> Floats:
    """The logarithm of what each network is off by, five folds."""
    fold, found = np.random.default_rng(0).permutation(len(place.ms)) % 5, np.zeros(len(place.ms))
    for at in range(5):
        guess = joined([split(place, place.ms, fold != at, prior)])
        found[fold == at] = np.log(guess.value / guess.measured)
    return found


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description="How far measurements of the same thing lie apart.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the measurements")
    data = parser.parse_args().data
    known = places(data)
    archs = [row["arch_str"] for row in rows(data / "nasbench201_edge.csv.gz")]
    archs = [arch for arch in archs if any("conv" in operator for *_, operator in live_edges(arch))]
    for place in (place for place in known if place.source == "edge"):
        table = table_of_edges(archs, place.ms) if len(archs) == len(place.ms) else ""
        print(f"{place.name:18} {twins(place)}  table of edges {table}")
    rounds([place for place in known if place.source == "mlperf"])
    phones = [place for place in known if place.source == "fbnet"]
    priors = {place.unit: prior_of(others(known, place), most=20) for place in phones}
    off = {place.name: residuals(place, priors[place.unit]) for place in phones}
    print("what FBNets are off by on pixel2, correlated with what they are off by on")
    print(*(f"{name} {np.corrcoef(off['pixel2'], each)[0, 1]:+.2f}" for name, each in off.items()), sep=", ")


if __name__ == "__main__":
    main()
