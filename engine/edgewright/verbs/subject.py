"""What a measuring command is about: a bundle as it stands, or a model made into one with the usual plan."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgewright.arrays import read_npz
from edgewright.bench import Bench
from edgewright.bundle import Bundle, is_bundle, open_bundle
from edgewright.environment import Environment
from edgewright.errors import BundleError
from edgewright.job import Job
from edgewright.pipeline import THIS_HOST, load, open_bench
from edgewright.recipe import Request, resolve
from edgewright.registry import RUNTIMES, Registry
from edgewright.targets import find_target
from edgewright.task import noise_task
from edgewright.types import Arrays, Model, Target


@dataclass(frozen=True, eq=False)
class Subject:
    """A bundle to measure, where its runtimes come from, and one input for it."""

    name: str
    bundle: Bundle
    runtimes: Mapping[str, str]
    inputs: Arrays


def open_subject(source: str, request: Request, env: Environment) -> Subject:
    """A bundle, opened and verified; or a model, loaded and given the target's default plan.

    Raises: BundleError, ModelError, RefusedError.
    """
    if is_bundle(Path(source)):
        bundle = open_bundle(Path(source))
        return Subject(bundle.name, bundle, runtime_entries(bundle, env.registry), example_of(bundle))
    with ExitStack() as stack:
        bench = bench_for(source, request, env, stack)
        model = bench.reference
        plan = bench.plan(model)
        bundle = open_bundle(bench.trial(model, plan))
        return Subject(model.name, bundle, bench.entries(plan), bench.sample())


def bench_for(source: str, request: Request, env: Environment, stack: ExitStack) -> Bench:
    """A bench around one model, with no methods to apply."""
    target, _ = find_target(request.target or THIS_HOST, env.registry)
    return open_bench(job_for(source, request, target, env), env, stack)


def job_for(source: str, request: Request, target: Target, env: Environment) -> Job:
    """A job that only loads."""
    asked = Request(
        model=source, task=request.task, shapes=request.shapes, batch=request.batch, threads=request.threads,
        seed=request.seed, runtime=request.runtime, apply=(), on=request.on,
    )  # fmt: skip
    recipe = resolve(asked, target, env.registry)
    model, task = load(asked, recipe, env)
    return Job(asked, target, recipe, model, task, (), Path())


def lowered_model(source: str, request: Request, env: Environment) -> Model:
    """The model as ONNX, whatever it came as."""
    with ExitStack() as stack:
        return bench_for(source, request, env, stack).reference


def runtime_entries(bundle: Bundle, registry: Registry) -> Mapping[str, str]:
    """Where an agent finds the runtimes of a bundle's plan."""
    return {p.runtime: registry.get(RUNTIMES, p.runtime).entry for p in bundle.plan.placements}


def example_of(bundle: Bundle) -> Arrays:
    """The synthetic input that a bundle carries, else noise of its signature."""
    if not bundle.example_inputs.is_file():
        return next(iter(noise_task(bundle.signature, 0).batches("calibration", 1))).inputs
    return read_npz(bundle.example_inputs, BundleError)
