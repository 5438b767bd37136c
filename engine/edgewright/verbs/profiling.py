"""Measures one bundle: latency by the protocol, memory, load and first inference, time per operator, a long run.

With a task, on real inputs: where they leave a model with gates, and what runs to each exit take.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.agents.agent import LOCAL, Agent
from edgewright.asking.recipe import meters_of
from edgewright.asking.request import Request
from edgewright.asking.targets import unlike
from edgewright.bundle import Bundle
from edgewright.deploying.opening import open_agent
from edgewright.environment import Environment
from edgewright.measuring import measure
from edgewright.measuring.measure import Candidate
from edgewright.measuring.metering import metered, with_energy
from edgewright.measuring.presets import Preset, find_preset
from edgewright.measuring.steadiness import warnings
from edgewright.measuring.timings import Measured
from edgewright.realinputs import RealInputs, draw_inputs, open_task, rows_of_run, with_inputs
from edgewright.types import Device, Measurement
from edgewright.verbs.details import Asked, Details, look_closer
from edgewright.verbs.leaving import Way, exit_names, ways_of
from edgewright.verbs.subject import Subject, open_subject, target_at
from edgewright.verbs.sustaining import NOT_SUSTAINED, Sustained, parse_minutes, sustain

MOST_BYTES = 512 << 20
"""Of real inputs: the process that is timed holds them all."""


@dataclass(frozen=True)
class Profile:
    """What was measured, with what a long run told where one was asked for.

    `ways` says where `real` inputs left and what runs to there took; it is empty where all take the same way.
    """

    subject: Subject
    device: Device
    measured: Measured
    details: Details
    real: RealInputs | None = None
    ways: tuple[Way, ...] = ()
    sustained: Sustained = NOT_SUSTAINED
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[Measurement, ...]:
        """Every number, in reading order."""
        found = self.measured
        to_end = (found.deepest, self.details.whole)
        return (*found.latency.values(), *filter(None, to_end), found.load, found.first, found.memory, *self.energies)

    @property
    def energies(self) -> tuple[Measurement, ...]:
        """Energy per inference: all of it, and idle and net where a meter was read."""
        energy = self.measured.energy
        if energy is None:
            return ()
        return (energy.total, energy.idle, energy.net) if energy.recording else (energy.total,)


def profile(source: str, request: Request, asked: Asked, env: Environment) -> Profile:
    """Measure a bundle, or a model under the target's default plan; on real inputs if the request names a task.

    Raises: BundleError, ModelError, TaskError, RecipeError, DeviceError, InputError for a deadline that cannot be kept.
    """
    preset = find_preset(request.preset or "default")
    minutes = 0 if asked.sustained is None else parse_minutes(asked.sustained)
    with ExitStack() as stack:
        agent = open_agent(request.on or LOCAL, env, stack)
        target = target_at(agent, request, env)
        subject = open_subject(source, request, target, agent, env)
        real = _real(subject.bundle, request, asked.examples, stack)
        bundle = real.bundle if real else subject.bundle
        candidate = Candidate(bundle.path, _options(subject, request, agent))
        stack.enter_context(measure.device_lock(env.store.folder("locks"), agent.address, env.progress))
        details = look_closer(agent, candidate, bundle, real, asked, preset)
        with metered(agent, meters_of(request, target, env.registry), env.registry) as meter:
            found = measure.measure_one(agent, candidate, preset, env.progress, meter=meter)
        found = with_energy({measure.ALONE: found}, meter)[measure.ALONE]
        if details.exits is not None:
            found = _without_inputs(agent, replace(candidate, bundle=subject.bundle.path), found)
        sustained = sustain(agent, candidate, minutes, env.progress)
        device = agent.device()
    ways = () if details.exits is None else ways_of(bundle, details.exits, found)
    differs = unlike(target, device, env.registry) if request.target else ""
    said = (differs, *warnings(found.latency["p50"].conditions), sustained.onset, *_notes(bundle, real, found))
    return Profile(subject, device, found, details, real, ways, sustained, tuple(filter(None, said)))


def _real(bundle: Bundle, request: Request, count: int, stack: ExitStack) -> RealInputs | None:
    """Examples of the test split, which nothing was chosen by; of selection where there is none.

    They are no more than one run takes where all runs take the same way.
    """
    if request.task is None:
        return None
    task = open_task(bundle, request.task, request.seed)
    split = "test" if task.size("test") else "selection"
    count = count if bundle.variants[0].gated else rows_of_run(bundle.signature)
    inputs = draw_inputs(task, split, count, MOST_BYTES)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-inputs-")))
    return RealInputs(task.name, split, inputs, with_inputs(bundle, inputs, folder))


def _options(subject: Subject, request: Request, agent: Agent) -> dict[str, object]:
    options: dict[str, object] = {"runtimes": subject.runtimes}
    if request.threads is not None:
        agent.check_threads(request.threads)
        options["threads"] = request.threads
    return options


def _without_inputs(agent: Agent, candidate: Candidate, found: Measured) -> Measured:
    """The same, with load and memory of a process that does not hold all those inputs."""
    lean = measure.measure_one(agent, candidate, Preset(name="once", seconds=0, runs=1, rounds=1))
    return replace(found, load=lean.load, first=lean.first, memory=lean.memory)


def _notes(bundle: Bundle, real: RealInputs | None, found: Measured) -> tuple[str, ...]:
    """What the figures do not say of themselves."""
    gated = bundle.variants[0].gated
    if real and not gated:
        return ("every run takes the same way through the model, so one real input is run again and again",)
    if real or not gated:
        return ()
    depths = sorted({depth for each in found.depths for depth in each})
    names = exit_names(bundle, depths[-1])
    ways = f" of {len(names)}" if len(bundle.variants[0].stages) > 1 else ""
    where = " and ".join(f"{names[depth]} (exit {depth + 1}{ways})" for depth in depths)
    which = "the example input alone, which leaves"
    if bundle.example_stream is not None:
        which = "the inputs that it carries, which leave"
    return (
        f"these figures are for {which} at {where}; other inputs may cost more or less: give real ones with --task",
    )
