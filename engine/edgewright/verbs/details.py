"""What `engine profile` finds out beside the protocol: where inputs leave, what is late, time per operator."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from edgewright.agents.agent import Agent, Opened
from edgewright.bundle import Bundle
from edgewright.measuring import measure
from edgewright.measuring.measure import Candidate
from edgewright.measuring.presets import Preset
from edgewright.measuring.timings import Setting, latency_of
from edgewright.protocols import OperatorTime
from edgewright.realinputs import RealInputs, rows_from, rows_of_run
from edgewright.types import Array, Arrays, Measurement
from edgewright.verbs.leaving import rows_by_exit, whole_chain

OPERATOR_RUNS = 50


@dataclass(frozen=True)
class Asked:
    """What to find out besides: time per operator, minutes of a long run, runs with a deadline, real inputs to draw."""

    per_op: bool = False
    sustained: str | None = None
    deadline_ms: float | None = None
    examples: int = 1000


@dataclass(frozen=True)
class Capped:
    """Runs with a deadline: how many of them took longer (`misses`), and how many ended at each exit.

    `idle_misses` is how many of as many loops took longer that only look at the clock for the median of those runs.
    """

    deadline_ms: float
    runs: int
    misses: int
    idle_misses: int
    latency: Mapping[str, Measurement]
    ended: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Details:
    """What is found out beside the protocol: `exits` of the real inputs, int64 [examples]; operators by stage."""

    exits: Array | None = None
    whole: Measurement | None = None
    capped: Capped | None = None
    operators: Mapping[str, Sequence[OperatorTime]] = field(default_factory=dict[str, "Sequence[OperatorTime]"])


@contextmanager
def held(agent: Agent, candidate: Candidate) -> Generator[Opened]:
    """The candidate, loaded and warm until the block ends."""
    opened = agent.open(candidate.bundle, **candidate.options)
    try:
        agent.warm(opened)
        yield opened
    finally:
        agent.close(opened)


def look_closer(  # noqa: PLR0917 - what to ask, of whom, about what
    agent: Agent, candidate: Candidate, bundle: Bundle, real: RealInputs | None, asked: Asked, preset: Preset
) -> Details:
    """All that one more process is opened for, before the long measurement: so what is refused is refused at once."""
    gated = real is not None and bundle.variants[0].gated
    if not gated and not asked.per_op and asked.deadline_ms is None:
        return Details()
    with held(agent, candidate) as opened:
        whole = whole_chain(agent, opened, bundle) if gated else None
        capped = None if asked.deadline_ms is None else _cap(agent, opened, bundle, asked.deadline_ms, preset)
        exits = agent.infer_all(opened, real.inputs).exits if real and gated else None
        deepest = None
        if real and exits is not None:
            deepest = rows_from(real.inputs, int(exits.argmax()), rows_of_run(bundle.signature))
        operators = _operators(agent, opened, bundle, deepest) if asked.per_op else {}
    return Details(exits, whole, capped, operators)


def _cap(agent: Agent, opened: Opened, bundle: Bundle, deadline_ms: float, preset: Preset) -> Capped:
    taken, depths = measure.run_for(agent, opened, preset, deadline_ms=deadline_ms)
    idle_ms = agent.spin(opened, ms=float(np.median(taken)) / 1e6, runs=len(taken))
    setting = Setting(kind_of(agent), {"deadline_ms": deadline_ms, "preset": preset.name})
    return Capped(
        deadline_ms,
        runs=len(taken),
        misses=sum(ns > deadline_ms * 1e6 for ns in taken),
        idle_misses=sum(ms > deadline_ms for ms in idle_ms),
        latency=latency_of(setting, [taken], [depths]),
        ended=rows_by_exit(bundle, depths),
    )


def _operators(
    agent: Agent, opened: Opened, bundle: Bundle, inputs: Arrays | None
) -> Mapping[str, Sequence[OperatorTime]]:
    """Time per node of every stage; on the bundle's example, or on `inputs`."""
    stages = enumerate(bundle.variants[0].stages)
    return {
        stage.name: agent.profile(opened, runs=OPERATOR_RUNS, inputs=inputs, stage=number) for number, stage in stages
    }


def kind_of(agent: Agent) -> str:
    """The kind of what is measured there."""
    return "simulated" if agent.device().emulated else "measured"
