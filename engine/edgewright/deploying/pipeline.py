"""The main job, one way: load, transform, export, race, judge, package, report; every step journalled."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from edgewright.asking.recipe import Method, Recipe, ordered, resolve
from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.bundle import check_destination
from edgewright.deploying.contract import decide, rank
from edgewright.deploying.evidence import read_energies, read_selection, read_test
from edgewright.deploying.exporting import exported
from edgewright.deploying.job import Candidate, Job, Outcome
from edgewright.deploying.loading import load
from edgewright.deploying.opening import open_bench
from edgewright.deploying.packing import pack
from edgewright.deploying.race import Raced, race
from edgewright.deploying.steps import lowered, run_step
from edgewright.environment import Environment
from edgewright.errors import EdgewrightError, InputError, PluginError, RefusedError
from edgewright.exits.describe import describe_exits
from edgewright.exits.settle import settle, unsettled
from edgewright.hookspecs import StepEvent
from edgewright.reporting.closeup import closeup
from edgewright.reporting.report import build_report
from edgewright.stagewise.apply import refused
from edgewright.store import key_of
from edgewright.task import Task
from edgewright.types import Closeup, Evidence, Model, Plan, Step, Target, Verdict

T = TypeVar("T")

FITTING = "fitted gates"
"""What the fitting of gates is called in a model's history."""


def prepare(request: Request, target: Target, env: Environment) -> Job:
    """Read and check everything, before any work is done.

    Raises: InputError or RefusedError for whatever would stop the run later.
    """
    recipe = resolve(request, target, env.registry)
    model, task = load(request, recipe, env)
    methods = ordered(recipe.methods, model.format, env.registry)
    _refuse_early(methods, recipe, model, target, task)
    out = Path(request.out or f"{model.name}-{target.name}")
    check_destination(out)
    return Job(request, target, recipe, model, task, methods, out)


def deploy(job: Job, env: Environment) -> Outcome:
    """Do it. A second run after a kill takes every finished step from the cache."""
    run = key_of(job.model.digest, job.request)[:16]
    with ExitStack() as stack:
        bench = open_bench(job, env, stack)
        journal = _Journal(run, job, env)
        made = _transform(job, bench, journal)
        runnable, broken = _that_run(made.candidates, bench, journal)
        raced = journal.timed("race", lambda: race({c.name: c.model for c in runnable}, bench))
        fitted = tuple(refitted(candidate, raced[candidate.name], bench, journal) for candidate in runnable)
        candidates = tuple(_export(candidate, raced[candidate.name].plan, bench, journal) for candidate in fitted)
        verdict, evidence = journal.timed("judge", lambda: _judge(job, candidates, raced, bench))
        shipped = next(c for c in candidates if c.name == verdict.shipped)
        skipped = (*made.skipped, *broken)
        report = build_report(
            job, bench, candidates=candidates, raced=raced, evidence=evidence, verdict=verdict, skipped=skipped
        )
        report = replace(report, exits=describe_exits(shipped, raced[shipped.name].plan, bench))
        shown = dict.fromkeys((candidates[0], shipped))
        closeups = journal.timed("close-ups", lambda: tuple(_closeup(c, raced, evidence, bench) for c in shown))
        report = replace(report, closeups=closeups)
        bundle = journal.timed("package", lambda: pack(job, shipped, raced[shipped.name].plan, report, bench))
    code = exit_code(job.recipe, verdict, {*shipped.methods, *made.idle})
    return Outcome(replace(report, bundle=str(bundle.path)), bundle, code)


def _closeup(
    candidate: Candidate, raced: Mapping[str, Raced], evidence: Mapping[str, Evidence], bench: Bench
) -> Closeup:
    return closeup(candidate.model, raced[candidate.name].plan, evidence[candidate.name], bench)


def exit_code(recipe: Recipe, verdict: Verdict, done: Collection[str]) -> int:
    """3 when a written bound does not hold, or a method that the user named is not in what ships."""
    broken = any(j.written and j.holds is not True for j in verdict.judgements)
    left_out = recipe.written and any(m.name not in done for m in recipe.methods)
    return 3 if broken or left_out else 0


def _refuse_early(methods: Sequence[Method], recipe: Recipe, model: Model, target: Target, task: Task) -> None:
    """What can be known before anything is done: a method that takes this model now, or data that is not there."""
    for position, method in enumerate(methods):
        if method.offer.value.needs == "training" and task.size("training") == 0:
            raise RefusedError(
                f"{method.name} trains, but the task has no training split; give x_train, y_train, x_test, y_test"
            )
        if position == 0:
            refusal = refused(method.offer.value, model, target)
            if refusal is not None and recipe.written:
                raise RefusedError(f"{method.name} cannot work on {model.name}: {refusal.reason}")


@dataclass(frozen=True)
class _Made:
    """The original and every prefix of the recipe; methods passed over, with reasons; methods with nothing to do."""

    candidates: tuple[Candidate, ...]
    skipped: tuple[str, ...]
    idle: tuple[str, ...]


def _transform(job: Job, bench: Bench, journal: _Journal) -> _Made:
    candidates = [Candidate("original", (), bench.reference)]
    skipped: list[str] = []
    idle: list[str] = []
    model, done = job.model, list[str]()
    for method in job.methods:
        try:
            after = _applied(method, model, job, bench, journal)
        except RefusedError as refusal:
            if job.recipe.written:
                raise
            skipped.append(str(refusal))
            continue
        if after.digest == model.digest:
            step = after.history[-1]
            how = "left the model as it was" if step.declined else "changed nothing"
            skipped.append(f"{method.name} {how}: {step.notes[-1] if step.notes else 'it had nothing to do'}")
            idle += [] if step.declined else [method.name]
            continue
        model = after
        done.append(method.name)
        as_onnx = lowered(model, bench)
        if as_onnx.digest != candidates[-1].model.digest:
            candidates.append(Candidate("+".join(done), tuple(done), as_onnx))
    return _Made(tuple(candidates), tuple(skipped), tuple(idle))


def _applied(method: Method, model: Model, job: Job, bench: Bench, journal: _Journal) -> Model:
    if method.offer.value.needs == "calibration" and job.task.synthetic and not job.recipe.written:
        raise RefusedError(
            f"{method.name}: left out of the default recipe, because it needs calibration data; give --task"
        )
    return journal.timed(method.name, lambda: run_step(method, model, bench))


def _that_run(
    candidates: Sequence[Candidate], bench: Bench, journal: _Journal
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """The candidates that a runtime opens and runs, their gates fitted, and why others do not; the original has to."""
    running: list[Candidate] = []
    broken: list[str] = []
    for candidate in candidates:
        try:
            fitted = _fitted(candidate, None, bench, journal) if unsettled(candidate.model) else candidate
            bench.outputs(fitted.model, "selection")
        except (InputError, PluginError) as error:
            if candidate is candidates[0]:
                raise
            broken.append(f"{candidate.name} does not run: {error}")
        else:
            running.append(fitted)
    return tuple(running), tuple(broken)


def _fitted(candidate: Candidate, plan: Plan | None, bench: Bench, journal: _Journal) -> Candidate:
    """The candidate with gates fitted to what its stages cost under a plan (the default one when None)."""
    found = journal.timed(f"gates of {candidate.name}", lambda: settle(candidate.model, bench, plan))
    history = [step for step in candidate.model.history if step.name != FITTING]
    model = replace(found.model, history=tuple(history)).after(Step(FITTING, "edgewright", notes=found.notes))
    return replace(candidate, model=model, costs=found.costs, tradeoffs=found.tradeoffs)


def refitted(candidate: Candidate, raced: Raced, bench: Bench, journal: _Journal) -> Candidate:
    """Once more where gates are left and the race chose another plan than the one that costs were measured under."""
    if not (candidate.costs and candidate.model.variants[0].gated) or raced.plan == bench.plan(candidate.model):
        return candidate
    again = _fitted(candidate, raced.plan, bench, journal)
    return again if len(again.model.stages) == len(candidate.model.stages) else candidate


def _export(candidate: Candidate, plan: Plan, bench: Bench, journal: _Journal) -> Candidate:
    """The candidate with the artifacts that won the race, else those of the first exporter."""
    name = bench.recipe.exporters[0]
    artifacts = plan.artifacts or journal.timed(
        f"export {candidate.name}", lambda: exported(candidate.model, name, bench)
    )
    return replace(candidate, artifacts=artifacts)


def _judge(
    job: Job, candidates: Sequence[Candidate], raced: Mapping[str, Raced], bench: Bench
) -> tuple[Verdict, Mapping[str, Evidence]]:
    """Rank on selection, freeze, read test once, decide."""
    bounds, metric = job.recipe.bounds, job.task.metric
    original, *others = candidates
    energies = read_energies(candidates, raced, bench) if bounds.minimise == "energy" else {}
    selection = [read_selection(c, raced[c.name], bench, energies.get(c.name)) for c in others]
    frozen = {e.name for e in rank(selection, bounds, metric)}
    kept = [c for c in others if c.name in frozen]
    evidence = read_test([original, *kept], raced, bench)
    ranked = [evidence[e.name] for e in rank(selection, bounds, metric)]
    return decide(evidence[original.name], ranked, bounds, metric), evidence


class _Journal:
    """Writes what each step did, and tells the observers."""

    def __init__(self, run: str, job: Job, env: Environment) -> None:
        self._run, self._job, self._env = run, job, env

    def timed(self, step: str, work: Callable[[], T]) -> T:
        """The result of `work`, with a line in the journal before and after it."""
        started = time.monotonic()
        self._env.store.append(self._run, {"step": step, "event": "started"})
        try:
            result = work()
        except (EdgewrightError, KeyboardInterrupt) as error:
            self._env.store.append(self._run, {"step": step, "event": "stopped", "reason": str(error)})
            raise
        seconds = time.monotonic() - started
        self._env.store.append(self._run, {"step": step, "event": "finished", "seconds": round(seconds, 3)})
        self._env.registry.notify(StepEvent(step, self._job.model.name, self._job.target.name, seconds, False))
        return result
