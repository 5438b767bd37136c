"""The measuring protocol: warm-up, presets, and candidates timed in turns so that noise meets all of them alike.

How a comparison works. A round opens every candidate in another process, because two processes that hold
the same model differ by where their memory happens to lie, by up to a few per cent and for as long as they
live. Those of the first rounds are started from nothing: they tell what loading takes, in time and in memory. Later
ones are forked from one that has the libraries already. All processes of a round share the same CPUs, and the next
round takes the next ones: on a shared machine one CPU can be a quarter slower than its neighbour for seconds. Within
a round the candidates take turns of a few milliseconds, in an order that is drawn anew and then reversed, so that a
drift meets all of them alike. A round is summed up by the fifth percentile of each candidate's runs, which
interruptions move least (of the runs to each exit, weighted by how many took it, where a model has gates); the
ratio and its interval are the trimmed mean over rounds (stats.ratio_over_rounds). docs/results/ab.md shows how
often such an interval is right.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.agents.agent import Agent, Opened, Timed
from edgewright.errors import DeviceError, RecipeError, suggest
from edgewright.measuring.metering import Metered, NoMeter
from edgewright.measuring.presets import Preset
from edgewright.measuring.timings import (
    Measured,
    Setting,
    deepest_of,
    depths_seen,
    latency_of,
    median_of,
    peak_of,
    ratio_of,
    undisturbed_ns,
)
from edgewright.types import Device

TURN_NS = 12_000_000
TURN_RUNS = 3
SETTLE_NS = 1_500_000
BLOCK_NS = 250_000_000
UNDISTURBED = 5
"""The percentile of a round's runs that stands for the round."""
ALONE = "alone"
"""What a candidate that is measured alone is called in a meter's marks."""
LATER_WARM_UP = {"least_ns": 40_000_000, "most_ns": 500_000_000}
"""For rounds after the first: the clocks are up, only the new process has to find its caches."""

FIRST_LOOK = 3
"""Rounds that every candidate takes part in."""
HOPELESS = 1.15
"""Who took so many times as long as the quickest in each of those rounds will not win a race; noise is far below it."""

Progress = Callable[[str, int, int], None]
"""(message, done, total)."""


@dataclass(frozen=True)
class Candidate:
    """A bundle to be measured, and how its worker opens it (see Agent.open)."""

    bundle: Path
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


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


def measure_one(
    agent: Agent,
    candidate: Candidate,
    preset: Preset,
    progress: Progress | None = None,
    *,
    meter: Metered | NoMeter | None = None,
) -> Measured:
    """Latency, load, first inference and peak memory of one bundle, in one process.

    The runs are marked for `meter` under the name ALONE; see metering.with_energy.

    Raises: InputError, PluginError, DeviceError as `Agent.open` does.
    """
    opened = agent.open(candidate.bundle, **candidate.options, turn=0, fresh=True)
    try:
        _, settled = agent.warm(opened)
        taken, depths = run_for(agent, opened, preset, progress, meter=meter)
        peak, after = agent.memory(opened), agent.conditions()
    finally:
        agent.close(opened)
    setting = _setting(agent.device(), candidate, preset, (opened,), after).noting(settled=settled)
    return Measured(
        latency=latency_of(setting, [taken], [depths]),
        load=median_of(setting, "load", [opened.load_ms]),
        first=median_of(setting, "first inference", [opened.first_ms]),
        memory=peak_of(setting, [peak]),
        ratio=None,
        runs_ns=(tuple(taken),),
        deepest=deepest_of(setting, taken, depths, len(opened.placements) - 1),
        depths=(tuple(depths),),
    )


def run_for(
    agent: Agent,
    opened: Opened,
    preset: Preset,
    progress: Progress | None = None,
    *,
    deadline_ms: float | None = None,
    meter: Metered | NoMeter | None = None,
) -> tuple[list[int], list[int]]:
    """Nanoseconds and depths (see Timed) of runs, until the preset's seconds and runs are both reached.

    With a meter they go on until it has samples enough.
    """
    taken: list[int] = []
    depths: list[int] = []
    pace = _pace(meter, preset, BLOCK_NS, 0)
    while len(taken) < preset.runs or sum(taken) < pace.seconds * 1e9:
        timed = agent.time(
            opened, least_runs=1, least_ns=pace.turn_ns, settle_ns=pace.settle_ns, deadline_ms=deadline_ms
        )
        if isinstance(meter, Metered):
            meter.mark(ALONE, timed, len(taken))
        taken += timed.ns
        depths += timed.depths
        if progress:
            progress("measuring", int(sum(taken) / 1e6), int(pace.seconds * 1e3))
    return taken, depths


@dataclass(frozen=True)
class _Pace:
    """How long a turn takes, what goes before it uncounted, and how long a candidate runs in all."""

    turn_ns: int
    settle_ns: int
    seconds: float


def _pace(meter: Metered | NoMeter | None, preset: Preset, turn_ns: int, settle_ns: int) -> _Pace:
    """A sensor that is slow needs long turns: it has to tell one candidate's from the next one's."""
    if not isinstance(meter, Metered):
        return _Pace(turn_ns, settle_ns, preset.seconds)
    return _Pace(max(turn_ns, meter.turn_ns), max(settle_ns, meter.period_ns), max(preset.seconds, meter.seconds))


# ------------------------------------------------------------------ several candidates, in turns


@dataclass(frozen=True)
class _Round:
    """One round: what was opened, every run, and (for models with gates) the last stage that each run came to.

    `memory` is of processes that were started from nothing; there is none of others.
    """

    opened: Mapping[str, Opened]
    runs_ns: Mapping[str, tuple[int, ...]]
    depths: Mapping[str, tuple[int, ...]]
    memory: Mapping[str, Mapping[str, int | None]]


def compare(
    agent: Agent,
    candidates: Mapping[str, Candidate],
    preset: Preset,
    *,
    reference: str,
    seed: int = 0,
    race: bool = False,
    progress: Progress | None = None,
    meter: Metered | NoMeter | None = None,
) -> dict[str, Measured]:
    """Measure candidates side by side; every one gets a ratio to `reference` with its 95 % interval.

    In a race only who may still win is measured in all rounds, and the reference; others keep a wider interval. What
    loading takes is not told then.
    The runs are marked for `meter` under the candidates' names; see metering.with_energy.

    Raises: InputError, PluginError, DeviceError as `Agent.open` does; RecipeError for an unknown reference.
    """
    if reference not in candidates:
        raise RecipeError(f"there is no candidate {reference!r} to compare with; {suggest(reference, candidates)}")
    rng = np.random.default_rng(seed)
    rounds: list[_Round] = []
    running = dict(candidates)
    for number in range(preset.rounds):
        fresh = number < preset.fresh and not race
        rounds.append(_round(agent, running, preset, rng=rng, number=number, fresh=fresh, meter=meter))
        if progress:
            progress(f"comparing {', '.join(running)}", number + 1, preset.rounds)
        if race and number + 1 == FIRST_LOOK:
            running = {name: candidates[name] for name in (reference, *_hopeful(running, reference, rounds))}
    after = agent.conditions()
    own = {name: [each for each in rounds if name in each.opened] for name in candidates}
    quick = {name: _undisturbed(name, own[name]) for name in candidates}
    return {
        name: _summed_up(
            name,
            own[name],
            _setting(agent.device(), candidates[name], preset, [each.opened[name] for each in own[name]], after),
            _log_ratios(quick[reference], quick[name]),
        )
        for name in candidates
    }


def _hopeful(names: Iterable[str], reference: str, rounds: Sequence[_Round]) -> list[str]:
    """Who may still win, but for the reference, which stays whatever it takes."""
    times = {name: _undisturbed(name, rounds) for name in names}
    best = [min(each) for each in zip(*times.values(), strict=True)]
    near = {
        name: any(ns <= HOPELESS * least for ns, least in zip(own, best, strict=True)) for name, own in times.items()
    }
    return [name for name in near if near[name] and name != reference]


def _undisturbed(name: str, rounds: Sequence[_Round]) -> list[float]:
    """What stands for each round, in ns."""
    runs = [ns for each in rounds for ns in each.runs_ns[name]]
    depths = [depth for each in rounds for depth in each.depths[name]]
    everywhere = depths_seen(runs, depths, UNDISTURBED) if depths else None
    return [undisturbed_ns(each.runs_ns[name], each.depths[name], UNDISTURBED, everywhere) for each in rounds]


def _log_ratios(reference: Sequence[float], other: Sequence[float]) -> list[float]:
    """Of the rounds that both took part in: the first ones."""
    return [math.log(one / two) for one, two in zip(reference, other)]


def _round(
    agent: Agent,
    candidates: Mapping[str, Candidate],
    preset: Preset,
    *,
    rng: np.random.Generator,
    number: int,
    fresh: bool,
    meter: Metered | NoMeter | None,
) -> _Round:
    order = _shuffled(candidates, rng)
    opened: dict[str, Opened] = {}
    try:
        for name in order:
            opened[name] = agent.open(candidates[name].bundle, **candidates[name].options, turn=number, fresh=fresh)
            agent.warm(opened[name], rules=LATER_WARM_UP if number else None)
        runs, depths = _turns(agent, opened, preset, rng, number=number, meter=meter)
        memory = {name: agent.memory(opened[name]) for name in order} if fresh else {}
    finally:
        for worker in opened.values():
            agent.close(worker)
    return _Round(opened, runs, depths, memory)


def _turns(
    agent: Agent,
    opened: Mapping[str, Opened],
    preset: Preset,
    rng: np.random.Generator,
    *,
    number: int,
    meter: Metered | NoMeter | None,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Runs and depths, by turns, until each candidate has its share of the preset's seconds and runs.

    There are two turns at least, and an even number.
    """
    pace = _pace(meter, preset, TURN_NS, SETTLE_NS)
    seconds, least = pace.seconds / preset.rounds, math.ceil(preset.runs / preset.rounds)
    runs: dict[str, list[int]] = {name: [] for name in opened}
    depths: dict[str, list[int]] = {name: [] for name in opened}
    while min(map(sum, runs.values())) < seconds * 1e9 or min(map(len, runs.values())) < least:
        forward = _shuffled(opened, rng)
        for order in (forward, forward[::-1]):
            for name in order:
                timed = _turn(agent, opened[name], pace)
                if isinstance(meter, Metered):
                    meter.mark(name, timed, number)
                runs[name] += timed.ns
                depths[name] += timed.depths
    return {n: tuple(each) for n, each in runs.items()}, {n: tuple(each) for n, each in depths.items()}


def _shuffled(names: Iterable[str], rng: np.random.Generator) -> list[str]:
    listed = list(names)
    return [listed[int(i)] for i in rng.permutation(len(listed))]


def _turn(agent: Agent, opened: Opened, pace: _Pace) -> Timed:
    return agent.time(opened, least_runs=TURN_RUNS, least_ns=pace.turn_ns, settle_ns=pace.settle_ns)


def _summed_up(name: str, rounds: Sequence[_Round], setting: Setting, log_ratios: Sequence[float]) -> Measured:
    opened = [r.opened[name] for r in rounds]
    started = [r.opened[name] for r in rounds if r.memory]
    runs = [ns for r in rounds for ns in r.runs_ns[name]]
    depths = [depth for r in rounds for depth in r.depths[name]]
    return Measured(
        latency=latency_of(setting, [r.runs_ns[name] for r in rounds], [r.depths[name] for r in rounds]),
        load=median_of(setting, "load", [o.load_ms for o in started]),
        first=median_of(setting, "first inference", [o.first_ms for o in started]),
        memory=peak_of(setting, [r.memory[name] for r in rounds if r.memory]),
        ratio=ratio_of(setting.noting(of="mean" if depths else "p50"), log_ratios),
        runs_ns=tuple(r.runs_ns[name] for r in rounds),
        deepest=deepest_of(setting, runs, depths, len(opened[0].placements) - 1),
        depths=tuple(r.depths[name] for r in rounds),
    )


def _setting(
    device: Device, candidate: Candidate, preset: Preset, opened: Sequence[Opened], after: Mapping[str, Any]
) -> Setting:
    """What a figure holds for: `before` is when the first process had loaded, `after` when all had run."""
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
        "after": dict(after),
    }
    return Setting("simulated" if device.emulated else "measured", conditions)
