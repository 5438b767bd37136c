"""Measures one bundle: latency by the protocol, memory, load and first inference, time per operator, a long run."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from edgewright import measure
from edgewright.agent import Agent
from edgewright.bench import holding
from edgewright.environment import Environment
from edgewright.errors import RecipeError
from edgewright.measure import Candidate
from edgewright.pipeline import open_agent
from edgewright.protocols import OperatorTime
from edgewright.recipe import Request
from edgewright.timings import Measured
from edgewright.types import Device, Measurement
from edgewright.verbs.subject import Subject, open_subject


@dataclass(frozen=True)
class Profile:
    """What was measured. `minutes` are the medians of a sustained run, one a minute."""

    subject: Subject
    device: Device
    measured: Measured
    operators: Sequence[OperatorTime] = ()
    minutes: Sequence[Measurement] = ()

    @property
    def rows(self) -> tuple[Measurement, ...]:
        """Every number, in reading order."""
        found = self.measured
        return (*found.latency.values(), found.load, found.first, found.memory)


def profile(
    source: str, request: Request, env: Environment, *, per_op: bool = False, sustained: str | None = None
) -> Profile:
    """Measure a bundle, or a model under the target's default plan.

    Raises: BundleError, ModelError, RecipeError, DeviceError.
    """
    preset = measure.find_preset(request.preset or "default")
    minutes = 0 if sustained is None else _minutes(sustained)
    subject = open_subject(source, request, env)
    candidate = Candidate(subject.bundle.path, _options(subject, request))
    with ExitStack() as stack:
        agent = open_agent(request.on or "local", env, stack)
        stack.enter_context(measure.device_lock(env.store.folder("locks"), agent.address, env.progress))
        found = measure.measure_one(agent, candidate, preset, env.progress)
        operators: Sequence[OperatorTime] = ()
        if per_op:
            with holding(agent, candidate.bundle, subject.runtimes) as opened:
                operators = agent.profile(opened, runs=50)
        medians = tuple(_sustain(agent, candidate, minutes, env))
        return Profile(subject, agent.device(), found, operators, medians)


def _options(subject: Subject, request: Request) -> dict[str, object]:
    options: dict[str, object] = {"runtimes": subject.runtimes}
    if request.threads is not None:
        options["threads"] = request.threads
    return options


def _sustain(agent: Agent, candidate: Candidate, minutes: int, env: Environment) -> Iterator[Measurement]:
    """The median of each minute of one long run: what heat does to a device shows after minutes, not seconds."""
    if not minutes:
        return
    opened = agent.open(candidate.bundle, **candidate.options)
    try:
        agent.warm(opened)
        for minute in range(1, minutes + 1):
            end, taken = time.monotonic() + 60, list[int]()
            while time.monotonic() < end:
                taken += agent.time(opened, least_runs=1, least_ns=measure.BLOCK_NS).ns
            env.progress("sustained run, minute", minute, minutes)
            p50 = float(np.median(taken)) / 1e6
            found = Measurement(f"latency in minute {minute}", p50, "ms", len(taken), statistic="p50")
            yield replace(found, kind="simulated" if agent.device().emulated else "measured")
    finally:
        agent.close(opened)


def _minutes(text: str) -> int:
    match = re.fullmatch(r"(\d+)(m|h)", text)
    if not match or int(match[1]) == 0:
        raise RecipeError(f"--sustained {text!r} is no time; write 30m or 1h")
    return int(match[1]) * (60 if match[2] == "h" else 1)
