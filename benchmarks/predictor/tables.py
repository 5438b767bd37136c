"""The cases of each place as matrices, which is all that fitting needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewright_devices.predictor.fit import Floats, learn_prior
from edgewright_devices.predictor.kernels import TERMS, design
from edgewright_devices.workload import Work
from predictor.sources import Case, fbnet_cases, mlperf_cases, nasbench_cases, ncnn_cases

IDLE = {"rice_edgegpu", "rice_raspi4", "rice_pixel3", "rice_fpga"}
"""Columns of NAS-Bench-201 whose authors' runtimes seem to have computed on zeros too: so they are fitted better."""

ACCELERATORS = (
    "gpu", "dsp", "tpu", "fpga", "vpu", "gtx", "jetson", "630", "640", "1080ti", "titan", "opencl", "vulkan",
)  # fmt: skip
START = {"ops": 0.1, "taken": 1.0, "given": 1.0, "taps": 1.0, "bytes": 0.3, "launches": 0.02, "inputs": 10.0}
"""What coefficients are about, in ms on a small core: where no device tells, this does."""

MOST = 60
"""Networks of one place that the prior reads."""


@dataclass(frozen=True, eq=False)
class Place:
    """Measured networks of one device and runtime: terms (n x m), latency in ms, energy in mJ (nan), labels."""

    source: str
    name: str
    terms: Floats
    ms: Floats
    mj: Floats
    family: npt.NDArray[np.str_]
    same: npt.NDArray[np.str_]
    dtype: npt.NDArray[np.str_]
    macs: Floats

    @property
    def unit(self) -> str:
        """`cpu`, or `gpu` for whatever else computes."""
        words = self.name.split(" ")
        label = " ".join(words[:2]) if self.source == "ncnn" else self.name
        return "gpu" if any(word in label for word in ACCELERATORS) else "cpu"


def places(data: Path) -> list[Place]:
    """Every place of every source."""
    sources: Mapping[str, Iterable[Case]] = {
        "edge": nasbench_cases(data),
        "nasbench": nasbench_cases(data, "nasbench201.csv.gz"),
        "fbnet": fbnet_cases(data),
        "mlperf": mlperf_cases(data),
        "ncnn": ncnn_cases(data),
    }
    found: list[Place] = []
    for source, cases in sources.items():
        groups: dict[str, list[Case]] = {}
        for case in cases:
            groups.setdefault(case.place, []).append(case)
        found += [place_of(source, name, group) for name, group in groups.items()]
    return found


def place_of(source: str, name: str, cases: list[Case]) -> Place:
    """The cases of one place."""
    rows: dict[int, Floats] = {}
    for case in cases:
        if id(case.works) not in rows:
            rows[id(case.works)] = design(case.works, idle=name in IDLE)
    return Place(
        source,
        name,
        np.array([rows[id(case.works)] for case in cases]),
        np.array([case.ms for case in cases]),
        np.array([np.nan if case.mj is None else case.mj for case in cases]),
        np.array([case.family for case in cases]),
        np.array([case.same for case in cases]),
        np.array([case.dtype for case in cases]),
        np.array([macs(case.works) for case in cases], dtype=float),
    )


def macs(works: Iterable[Work]) -> int:
    """Multiply-accumulates that are not on zeros."""
    return sum(work.macs for work in works if not work.idle)


def start() -> Floats:
    """Where the prior begins."""
    found = []
    for name in TERMS:
        _, *kind, what = name.split(".")
        kind = kind or [what]
        packs = what == "taken" and kind[0] in {"window", "unit", "depth"}  # each value is taken once per tap
        found.append(0.02 if packs else START[what])
    return np.array(found)


def prior_of(
    known: Iterable[Place], keep: Callable[[Place], npt.NDArray[np.bool_]] | None = None, *, most: int = 30
) -> Floats:
    """The prior of places; of those of ncnn, which are many, `most` drawn by seed. `keep` chooses networks."""
    pools: dict[bool, list[tuple[Floats, Floats]]] = {True: [], False: []}
    for place in known:
        chosen = np.flatnonzero(np.ones(len(place.ms), bool) if keep is None else keep(place))
        if len(chosen) > MOST:
            chosen = np.random.default_rng(0).choice(chosen, MOST, replace=False)
        if len(chosen) >= 5:
            pools[place.source == "ncnn"].append((place.terms[chosen], place.ms[chosen]))
    drawn = np.random.default_rng(0).permutation(len(pools[True]))[:most]
    return learn_prior([*(pools[True][at] for at in drawn), *pools[False]], start())
