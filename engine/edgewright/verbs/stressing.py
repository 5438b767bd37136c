"""Looks for inputs that slow a bundle with exits, and measures what they cost with and without a deadline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgewright.agents.agent import Agent, Opened
from edgewright.bench import holding
from edgewright.bundle import Bundle, open_bundle
from edgewright.deploying.opening import open_agent
from edgewright.environment import Environment, Progress
from edgewright.measuring import measure
from edgewright.realinputs import draw_inputs, open_task
from edgewright.task import noise_task
from edgewright.types import Array, Arrays, Device, Measurement, unknown
from edgewright.verbs.crafting import craft, probe_of
from edgewright.verbs.leaving import WHOLE, whole_chain
from edgewright.verbs.subject import runtime_entries

ROUNDS = 5
"""How often all inputs are run: one round of every case, then the next, so that a slow minute is everyone's."""

MOST_BYTES = 2 << 30
"""Of inputs that one attack may try: they lie on disk until it ends."""

REAL = "real inputs"
NOISE = "seeded noise"


@dataclass(frozen=True)
class Asked:
    """What to stress with. `deadline_ms` is the one to try; `queries` how often an attack may ask the model."""

    task: str | None = None
    on: str = "local"
    deadline_ms: float | None = None
    examples: int = 64
    queries: int = 300
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """One set of inputs: where they left, and what they cost.

    `depth` is the mean number of the exit, from 1; `through` the share that got to the last exit seen. `latency` and
    `capped`, with the deadline, are mean, p99 and worst in ms; `misses` of `runs` took longer than the deadline, and
    `idle_misses` of as many loops that only look at the clock for as long as the median of those runs.
    """

    name: str
    about: str
    n: int
    depth: float
    through: float
    runs: int
    latency: tuple[Measurement, ...]
    capped: tuple[Measurement, ...] = ()
    misses: int | None = None
    idle_misses: int | None = None


@dataclass(frozen=True)
class Stress:
    """What was found: the first case is real inputs. `refused` says which attacks could not be tried, and why.

    `device` is where; None where nothing had to be run.
    `whole` is what no input can exceed: the time to the end of the chain.
    """

    bundle: Bundle
    cases: tuple[Case, ...]
    refused: Mapping[str, str]
    whole: Measurement
    energy: Measurement
    advice: str
    notes: tuple[str, ...] = ()
    device: Device | None = None


def stress(source: Path, asked: Asked, env: Environment) -> Stress:
    """Try every attack that is installed on a bundle.

    Raises: BundleError, TaskError, DeviceError, InputError for a deadline that the model cannot keep.
    """
    bundle = open_bundle(source)
    if not bundle.variants[0].gated:
        advice = "inputs cannot slow it: every run takes the same way through the model"
        nothing = (unknown(WHOLE, "ms", "nothing was run"), unknown("energy", "mJ", "nothing was run"))
        return Stress(bundle, (), {}, *nothing, advice)
    name, inputs, notes = real_inputs(bundle, asked)
    with ExitStack() as stack:
        agent = open_agent(asked.on, env, stack)
        stack.enter_context(measure.device_lock(env.store.folder("locks"), agent.address, env.progress))
        opened = stack.enter_context(holding(agent, bundle.path, runtime_entries(bundle, env.registry)))
        agent.warm(opened)
        if asked.deadline_ms is not None:  # a model that cannot keep one says so before any work is done
            first = {key: array[:1] for key, array in inputs.items()}
            agent.infer_all(opened, first, deadline_ms=asked.deadline_ms)
        probe = probe_of(agent, opened, bundle.variants[0], inputs, asked.queries)
        crafted = craft(probe, inputs, asked.seed, env)
        timed = _timed(agent, opened, {name: inputs, **crafted.inputs}, asked.deadline_ms, env.progress)
        whole = whole_chain(agent, opened, bundle)
        device = agent.device()
    energy = unknown("energy", "mJ", "no meter was read: `engine profile` does so")
    cases = _cases(timed, {name: "as they come", **crafted.about}, asked.deadline_ms, emulated=device.emulated)
    advice = advise(cases, asked.deadline_ms, bundle)
    return Stress(bundle, cases, crafted.refused, whole, energy, advice, notes, device)


def real_inputs(bundle: Bundle, asked: Asked) -> tuple[str, Arrays, tuple[str, ...]]:
    """What to call them, examples of the selection split (noise without a task), and what is to be said of them."""
    task = noise_task(bundle.signature, asked.seed, count=max(40, 4 * asked.examples))
    if asked.task is not None:
        task = open_task(bundle, asked.task)
    split = "selection" if task.size("selection") else next(iter(task.splits))
    inputs = draw_inputs(task, split, asked.examples, MOST_BYTES // asked.queries)
    count = len(next(iter(inputs.values())))
    notes = () if count == asked.examples else (f"{count} of the {asked.examples} examples asked for",)
    if asked.task is None:
        notes = (*notes, "without --task the inputs are noise, so only how they compare with one another means much")
    return REAL if asked.task else NOISE, inputs, notes


@dataclass(frozen=True, eq=False)
class _Timed:
    """One set of inputs over all rounds: exits of its rows, and milliseconds of its runs."""

    exits: Array
    free_ms: list[float]
    capped_ms: list[float]
    spun_ms: list[float]


def _timed(
    agent: Agent, opened: Opened, sets: Mapping[str, Arrays], deadline_ms: float | None, progress: Progress
) -> Mapping[str, _Timed]:
    """Every set of inputs, run in turns, with and without the deadline."""
    found: dict[str, _Timed] = {}
    for turn in range(ROUNDS):
        progress("timing inputs", turn, ROUNDS)
        for name, inputs in sets.items():
            answers = agent.infer_all(opened, inputs)
            timed = found.setdefault(name, _Timed(answers.exits, [], [], []))
            timed.free_ms.extend(answers.spent_ms)
            if deadline_ms is not None:
                taken = agent.infer_all(opened, inputs, deadline_ms=deadline_ms).spent_ms
                timed.capped_ms.extend(taken)
                timed.spun_ms.extend(agent.spin(opened, ms=float(np.median(taken)), runs=len(taken)))
    return found


def _cases(
    timed: Mapping[str, _Timed], about: Mapping[str, str], deadline_ms: float | None, *, emulated: bool
) -> tuple[Case, ...]:
    last = max(int(each.exits.max()) for each in timed.values())
    kind = "simulated" if emulated else "measured"
    return tuple(
        Case(
            name,
            about[name],
            n=len(each.exits),
            depth=float(each.exits.mean()) + 1,
            through=float((each.exits == last).mean()),
            runs=len(each.free_ms),
            latency=_latency(each.free_ms, kind),
            capped=_latency(each.capped_ms, kind),
            misses=_late(each.capped_ms, deadline_ms),
            idle_misses=_late(each.spun_ms, deadline_ms),
        )
        for name, each in timed.items()
    )


def _late(taken_ms: Sequence[float], deadline_ms: float | None) -> int | None:
    return None if deadline_ms is None else sum(ms > deadline_ms for ms in taken_ms)


def _latency(taken_ms: Sequence[float], kind: str) -> tuple[Measurement, ...]:
    """Mean, p99 and worst; nothing when nothing was run."""
    if not taken_ms:
        return ()
    values = {"mean": np.mean(taken_ms), "p99": np.percentile(taken_ms, 99), "worst": np.max(taken_ms)}
    made = partial(Measurement, "latency", unit="ms", n=len(taken_ms), instrument="clock of the runtime", kind=kind)
    return tuple(made(value=float(value), statistic=name) for name, value in values.items())


def advise(cases: Sequence[Case], deadline_ms: float | None, bundle: Bundle) -> str:
    """What the worst case is, and what keeps it in bounds."""
    real, worst = cases[0], max(cases, key=lambda case: (case.depth, case.latency[0].value))
    usual, slowest = (float(case.latency[0].value or 0.0) for case in (real, worst))
    told = f"worst: {worst.name}, {slowest:.3g} ms in the mean, {slowest / usual:.2f}x {real.name}"
    if worst is real:
        told = f"nothing that was tried goes deeper than {real.name}, {usual:.3g} ms in the mean"
    if bundle.variants[0].stages[0].exits:
        return f"{told}; its one graph cannot be stopped: deploy it in stages to be able to cap a run"
    if deadline_ms is None:
        limit = f"{real.latency[1].value:.3g}"
        return f"{told}; cap every run with `engine run --deadline {limit}ms` or `load(path, deadline_ms={limit})`"
    late = sum(case.misses or 0 for case in cases)
    idle = sum(case.idle_misses or 0 for case in cases)
    runs = sum(case.runs for case in cases)
    kept = f"with a deadline of {deadline_ms:g} ms {late} of {runs} runs were late, and {idle} loops that did nothing"
    return f"{told}; {kept}: `load(path, deadline_ms={deadline_ms:g})`"
