"""The measuring protocol: warm-up, presets, and candidates timed in turns so that noise meets all of them alike.

How a comparison works. A round opens every candidate in a fresh process, because two processes that hold
the same model differ by where their memory happens to lie, by up to a few per cent and for as long as they
live. All processes of a round share the same CPUs, and the next round takes the next ones: on a shared machine
one CPU can be a quarter slower than its neighbour for seconds. Within a round the candidates take turns of a
few milliseconds, in an order that is drawn anew and then reversed, so that a drift meets all of them alike. A
round is summed up by the fifth percentile of each candidate's runs, which interruptions move least; the ratio
and its interval are the trimmed mean over rounds (stats.ratio_over_rounds). docs/results/ab.md shows how often
such an interval is right.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.agent import Agent, Opened
from edgewright.errors import DeviceError, RecipeError, suggest
from edgewright.timings import Measured, Setting, latency_of, median_of, peak_of, ratio_of
from edgewright.types import Device

TURN_NS = 12_000_000
TURN_RUNS = 3
SETTLE_NS = 1_500_000
BLOCK_NS = 250_000_000
UNDISTURBED = 5
"""The percentile of a round's runs that stands for the round."""
LATER_WARM_UP = {"least_ns": 40_000_000, "most_ns": 500_000_000}
"""For rounds after the first: the clocks are up, only the new process has to find its caches."""

Progress = Callable[[str, int, int], None]
"""(message, done, total)."""


@dataclass(frozen=True)
class Preset:
    """How long to measure each candidate: both `seconds` and `runs` are reached, over `rounds` processes."""

    name: str
    seconds: float
    runs: int
    rounds: int


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("quick", seconds=1, runs=30, rounds=6),
        Preset("default", seconds=10, runs=100, rounds=10),
        Preset("thorough", seconds=60, runs=1000, rounds=16),
    )
}


@dataclass(frozen=True)
class Candidate:
    """A bundle to be measured, and how its worker opens it (see Agent.open)."""

    bundle: Path
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def find_preset(name: str) -> Preset:
    """Raises: RecipeError for an unknown name."""
    if name not in PRESETS:
        raise RecipeError(f"there is no preset {name!r}; {suggest(name, PRESETS)}")
    return PRESETS[name]


@contextmanager
def device_lock(folder: Path, address: str, progress: Progress | None = None) -> Generator[None]:
    """While the block runs, no other measurement of this user's runs on that device.

    Raises: DeviceError when another one still holds the lock after ten minutes.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in address)
    give_up = time.monotonic() + 600
    with open(folder / f"measuring-{name}.lock", "w", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise DeviceError(f"another measurement has held {address} for ten minutes; end it") from None
                if progress:
                    progress(f"waiting for another measurement on {address}", 0, 0)
                time.sleep(0.2)
        yield


# ------------------------------------------------------------------ one candidate


def measure_one(agent: Agent, candidate: Candidate, preset: Preset, progress: Progress | None = None) -> Measured:
    """Latency, load, first inference and peak memory of one bundle, in one process.

    Raises: InputError, PluginError, DeviceError as `Agent.open` does.
    """
    opened = agent.open(candidate.bundle, **candidate.options, turn=0)
    try:
        _, settled = agent.warm(opened)
        taken: list[int] = []
        while len(taken) < preset.runs or sum(taken) < preset.seconds * 1e9:
            taken += agent.time(opened, least_runs=1, least_ns=BLOCK_NS)
            if progress:
                progress("measuring", int(sum(taken) / 1e6), int(preset.seconds * 1e3))
        peak = agent.memory(opened)
    finally:
        agent.close(opened)
    setting = _setting(agent.device(), candidate, preset, (opened,)).noting(settled=settled)
    return Measured(
        latency=latency_of(setting, [taken]),
        load=median_of(setting, "load", [opened.load_ms]),
        first=median_of(setting, "first inference", [opened.first_ms]),
        memory=peak_of(setting, [peak]),
        ratio=None,
        runs_ns=(tuple(taken),),
    )


# ------------------------------------------------------------------ several candidates, in turns


@dataclass(frozen=True)
class _Round:
    """One round: what was opened, every run, and the log ratio of each candidate's quick runs to the reference's."""

    opened: Mapping[str, Opened]
    runs_ns: Mapping[str, tuple[int, ...]]
    log_ratio: Mapping[str, float]
    memory: Mapping[str, Mapping[str, int | None]]


def compare(
    agent: Agent,
    candidates: Mapping[str, Candidate],
    preset: Preset,
    *,
    reference: str,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Measured]:
    """Measure candidates side by side; every one gets a ratio to `reference` with its 95 % interval.

    Raises: InputError, PluginError, DeviceError as `Agent.open` does; RecipeError for an unknown reference.
    """
    if reference not in candidates:
        raise RecipeError(f"there is no candidate {reference!r} to compare with; {suggest(reference, candidates)}")
    rng = np.random.default_rng(seed)
    rounds: list[_Round] = []
    for number in range(preset.rounds):
        rounds.append(_round(agent, candidates, preset, reference=reference, rng=rng, number=number))
        if progress:
            progress(f"comparing {', '.join(candidates)}", number + 1, preset.rounds)
    return {name: _summed_up(agent.device(), name, candidates[name], preset, rounds) for name in candidates}


def _round(
    agent: Agent,
    candidates: Mapping[str, Candidate],
    preset: Preset,
    *,
    reference: str,
    rng: np.random.Generator,
    number: int,
) -> _Round:
    order = _shuffled(candidates, rng)
    opened: dict[str, Opened] = {}
    try:
        for name in order:
            opened[name] = agent.open(candidates[name].bundle, **candidates[name].options, turn=number)
            agent.warm(opened[name], rules=LATER_WARM_UP if number else None)
        turns = list(_turns(agent, opened, preset, rng))
        memory = {name: agent.memory(opened[name]) for name in order}
    finally:
        for worker in opened.values():
            agent.close(worker)
    runs = {name: tuple(ns for turn in turns for ns in turn[name]) for name in order}
    quick = {name: float(np.percentile(taken, UNDISTURBED)) for name, taken in runs.items()}
    ratios = {name: math.log(quick[reference] / quick[name]) for name in order}
    return _Round(opened, runs, ratios, memory)


def _turns(
    agent: Agent, opened: Mapping[str, Opened], preset: Preset, rng: np.random.Generator
) -> Iterator[dict[str, list[int]]]:
    """Turns until each candidate has its share of the preset's seconds and runs; two at least, and an even number."""
    seconds, runs = preset.seconds / preset.rounds, math.ceil(preset.runs / preset.rounds)
    spent = dict.fromkeys(opened, 0.0)
    counted = dict.fromkeys(opened, 0)
    while min(spent.values()) < seconds or min(counted.values()) < runs:
        forward = _shuffled(opened, rng)
        for order in (forward, forward[::-1]):
            turn = {name: _turn(agent, opened[name]) for name in order}
            for name, taken in turn.items():
                spent[name] += sum(taken) / 1e9
                counted[name] += len(taken)
            yield turn


def _shuffled(names: Iterable[str], rng: np.random.Generator) -> list[str]:
    listed = list(names)
    return [listed[int(i)] for i in rng.permutation(len(listed))]


def _turn(agent: Agent, opened: Opened) -> list[int]:
    return agent.time(opened, least_runs=TURN_RUNS, least_ns=TURN_NS, settle_ns=SETTLE_NS)


def _summed_up(device: Device, name: str, candidate: Candidate, preset: Preset, rounds: Sequence[_Round]) -> Measured:
    opened = [r.opened[name] for r in rounds]
    setting = _setting(device, candidate, preset, opened)
    return Measured(
        latency=latency_of(setting, [r.runs_ns[name] for r in rounds]),
        load=median_of(setting, "load", [o.load_ms for o in opened]),
        first=median_of(setting, "first inference", [o.first_ms for o in opened]),
        memory=peak_of(setting, [r.memory[name] for r in rounds]),
        ratio=ratio_of(setting, [r.log_ratio[name] for r in rounds]),
        runs_ns=tuple(r.runs_ns[name] for r in rounds),
    )


def _setting(device: Device, candidate: Candidate, preset: Preset, opened: Sequence[Opened]) -> Setting:
    conditions = {
        "device": device.fingerprint,
        "cpu": device.cpu,
        "cores": device.cores,
        "governor": device.governor,
        "versions": dict(device.versions),
        "placements": list(opened[0].placements),
        "overrides": {key: value for key, value in candidate.options.items() if key in ("threads", "allow_fallback")},
        "preset": preset.name,
        "rounds": len(opened),
        "before": dict(opened[0].conditions),
        "after": dict(opened[-1].conditions),
    }
    return Setting("simulated" if device.emulated else "measured", conditions)
