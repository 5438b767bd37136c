"""Reads a meter on the device while candidates are measured there: chooses it, keeps the marks, makes the recording."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from edgewright.agents.agent import Agent, Timed
from edgewright.errors import EdgewrightError, RefusedError
from edgewright.measuring.energy import IDLE, LEAST_SAMPLES, QUANTITIES, energy_of
from edgewright.measuring.instrument import Instrument
from edgewright.measuring.timings import Energy, Measured, Setting
from edgewright.protocols import HostMeter, Meter
from edgewright.registry import METERS, Registry, blame
from edgewright.types import Mark, Offer, Recording, Source, Trace, unknown

ROOT = "EDGEWRIGHT_SENSOR_ROOT"
"""Names a folder of the device to look for sensors in, in the place of `/`; what is read there is `simulated`."""

MARGIN = 1.2
"""How many more samples are waited for than are needed: some are lost at the ends of turns."""

TURN_PERIODS = 10
"""A turn of a candidate lasts for so many new values of the sensor, and begins after one."""

IDLE_S = 1.0


class Reading(Protocol):
    """A meter at work: one that the agent reads on the device, or an instrument of this host's."""

    @property
    def period_ns(self) -> int:
        """That of the slowest rail."""
        ...

    def begin(self) -> None:
        """Before anything is marked."""
        ...

    def finish(self, marks: Sequence[Mark]) -> Recording:
        """Raises: RefusedError when nothing can be made of it."""
        ...

    def drop(self) -> None:
        """End it without a recording."""
        ...


@dataclass
class Metered:
    """A meter that is being read. When the block that reads it has ended, `recording` is there, or the `reason`."""

    agent: Agent
    reading: Reading
    marks: list[Mark] = field(default_factory=list[Mark])
    recording: Recording | None = None
    reason: str = ""

    @property
    def period_ns(self) -> int:
        """That of the slowest rail."""
        return self.reading.period_ns

    @property
    def turn_ns(self) -> int:
        """How long a candidate's turn has to be for the sensor to tell it from the next one's."""
        return TURN_PERIODS * self.period_ns

    @property
    def seconds(self) -> float:
        """How long a candidate has to run for a figure."""
        return MARGIN * LEAST_SAMPLES * self.period_ns / 1e9

    def rest(self) -> None:
        """Let the device do nothing for long enough to know what that takes."""
        begin, end = self.agent.rest(max(IDLE_S, self.seconds))
        self.marks.append(Mark(IDLE, begin, end))

    def mark(self, what: str, timed: Timed, turn: int = 0) -> None:
        """Note when a candidate ran."""
        self.marks.append(Mark(what, timed.begin_ns, timed.end_ns, len(timed.ns), turn))


@dataclass(frozen=True)
class NoMeter:
    """Why energy is not measured."""

    reason: str


@contextmanager
def metered(agent: Agent, names: Sequence[str], registry: Registry) -> Generator[Metered | NoMeter]:
    """The first of the named meters that finds its sensor on the device, read until the block ends.

    Raises: RecipeError for a name that no meter has.
    """
    found = _first(agent, names, registry)
    if isinstance(found, NoMeter):
        yield NoMeter(f"no energy meter was found on {agent.address} ({found.reason})")
        return
    try:
        found.reading.begin()
        found.rest()
        yield found
    except BaseException:
        with suppress(EdgewrightError):
            found.reading.drop()
        raise
    try:
        found.recording = found.reading.finish(found.marks)
    except RefusedError as refusal:
        found.reason = str(refusal)


def with_energy(found: Mapping[str, Measured], meter: Metered | NoMeter, reference: str = "") -> dict[str, Measured]:
    """What was measured, with the energy that was read meanwhile; with the reason where there was no meter."""
    return {name: replace(each, energy=_energy(name, each, meter, reference)) for name, each in found.items()}


def _energy(name: str, found: Measured, meter: Metered | NoMeter, reference: str) -> Energy:
    if isinstance(meter, NoMeter) or meter.recording is None:
        total, idle, net = (unknown(each, "mJ", meter.reason) for each in QUANTITIES)
        return Energy(total, idle, net)
    shared = found.latency["mean"]
    setting = Setting(shared.kind, {k: v for k, v in shared.conditions.items() if k not in ("cov", "stability")})
    return energy_of(meter.recording, name, setting, reference)


def _first(agent: Agent, names: Sequence[str], registry: Registry) -> Metered | NoMeter:
    reasons: list[str] = []
    for offer in [registry.get(METERS, name) for name in names]:
        name = registry.name(METERS, offer)
        try:
            return Metered(agent, _started(agent, offer, name))
        except RefusedError as refusal:
            reasons.append(f"{name}: {refusal}")
    return NoMeter("; ".join(reasons) or "the target names no meter; name one with --meter")


def _started(agent: Agent, offer: Offer[Meter], name: str) -> Reading:
    """Raises: RefusedError when it finds no sensor."""
    meter = offer.value
    if isinstance(meter, HostMeter):
        with blame(offer, "starting it"):
            return Instrument(agent, name, meter.scope, meter.start())
    with blame(offer, f"saying what it reads on {agent.address}"):
        sources = meter.sources(agent.device())
    if not sources:
        raise RefusedError(f"it reads nothing on {agent.device().cpu}")
    entry = offer.entry if meter.needs_python else ""
    rails, absent = agent.meter(sources, entry=entry, root=os.environ.get(ROOT, ""))
    if not rails:
        raise RefusedError("; ".join(absent) or "no sensor")
    return OnDevice(agent, name, rails, bool(os.environ.get(ROOT)))


@dataclass(frozen=True)
class OnDevice:
    """A meter whose rails the agent reads."""

    agent: Agent
    meter: str
    rails: Sequence[Mapping[str, Any]]
    simulated: bool

    @property
    def period_ns(self) -> int:
        """That of the slowest rail."""
        return max(int(rail["source"]["period_ns"]) for rail in self.rails)

    def begin(self) -> None:
        """It reads already."""

    def drop(self) -> None:
        """Read no more."""
        self.agent.unmeter()

    def finish(self, marks: Sequence[Mark]) -> Recording:
        """What the agent has read."""
        found = self.agent.unmeter()
        told = zip(self.rails, found["samples"], found["missed"], strict=True)
        traces = tuple(trace_of(rail, rows, missed) for rail, rows, missed in told)
        return Recording(self.meter, traces, tuple(marks), self.simulated, found["cpu"])


def trace_of(rail: Mapping[str, Any], rows: Iterable[Sequence[float]], missed: Mapping[str, int]) -> Trace:
    """What one rail told, from the agent's raw rows: ns, then the values whose product is a reading."""
    source = Source(**rail["source"])
    samples = [(int(ns), math.prod(values)) for ns, *values in rows]
    firsts = sorted(abs(values[0]) for _, *values in rows)
    coarse = bool(firsts) and firsts[len(firsts) // 2] < source.coarse_below
    if source.kind == "power":
        samples = [(ns, abs(value)) for ns, value in samples]  # batteries are of two minds about the sign
    return Trace(
        rail=rail["rail"],
        scope=source.scope,
        kind=source.kind,
        unit=source.unit,
        scale=source.scale * (1000 if coarse else 1),
        period_ns=source.period_ns,
        samples=tuple(samples),
        wrap=rail["wrap"],
        whole=rail["whole"],
        missed=sum(missed.values()),
        reason=max(missed, key=lambda each: missed[each], default=""),
    )
