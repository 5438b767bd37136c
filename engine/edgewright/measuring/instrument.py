"""A power meter that is no part of the device: its log becomes a trace on the device's clock, by two bursts of load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgewright.agents.agent import Agent
from edgewright.measuring.alignment import Burst, align, ascending
from edgewright.protocols import PowerLog, Recorder
from edgewright.types import Mark, Recording, Trace

RAIL = "input"

BURST_S, BURST_PERIODS = 2.0, 20
"""A burst, and the rest on each side of it, lasts so long, and for so many new values of the instrument."""


@dataclass
class Instrument:
    """One that notes while the device works. The device marks the beginning and the end with a burst each."""

    agent: Agent
    meter: str
    scope: str
    recorder: Recorder
    bursts: list[Burst] = field(default_factory=list[Burst])

    @property
    def period_ns(self) -> int:
        """How often it has a new value."""
        return self.recorder.period_ns

    def begin(self) -> None:
        """The first burst."""
        seconds = max(BURST_S, BURST_PERIODS * self.period_ns / 1e9)
        self.agent.rest(seconds)
        self.bursts.append(Burst(*self.agent.rest(seconds, busy=True)))
        self.agent.rest(seconds)

    def drop(self) -> None:
        """Note no more."""
        self.recorder.stop()

    def finish(self, marks: Sequence[Mark]) -> Recording:
        """The last burst, and what was noted. Raises: RefusedError when the bursts cannot be told in it."""
        self.begin()
        log = self.recorder.stop()
        first, last = self.bursts
        return recording_of(log, first, last, marks, meter=self.meter, scope=self.scope)


def recording_of(
    log: PowerLog, first: Burst, last: Burst, marks: Sequence[Mark], *, meter: str, scope: str
) -> Recording:
    """A log on the device's clock, with what the clocks are to each other. Raises: RefusedError as `align` does."""
    times, watts = ascending(log.samples)
    clock = align(times, watts, first, last)
    period_ns = round(float(np.median(np.diff(times))) * clock.rate * 1e9)
    samples = tuple(zip(clock.device_ns(times).tolist(), watts.tolist(), strict=True))
    reason = "rows without a number" if log.missed else ""
    trace = Trace(RAIL, scope, "power", "W", 1.0, period_ns, samples, whole=True, missed=log.missed, reason=reason)
    conditions = {"clock_drift": clock.drift, "burst_watts": clock.contrast}
    return Recording(meter, (trace,), tuple(marks), conditions=conditions)
