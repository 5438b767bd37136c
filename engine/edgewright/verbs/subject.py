"""What a measuring command is about: a bundle as it stands, or a model made into one with the usual plan."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgewright.agents.agent import Agent
from edgewright.arrays import read_npz
from edgewright.asking.recipe import resolve
from edgewright.asking.request import Request
from edgewright.asking.targets import THIS_HOST, check_device, find_target, target_of
from edgewright.bench import Bench
from edgewright.bundle import Bundle, is_bundle, open_bundle
from edgewright.deploying.job import Job
from edgewright.deploying.loading import load
from edgewright.deploying.opening import open_agent, open_bench
from edgewright.environment import Environment
from edgewright.errors import BundleError
from edgewright.registry import RUNTIMES, Registry
from edgewright.task import noise_task
from edgewright.types import Arrays, Model, Target


@dataclass(frozen=True, eq=False)
class Subject:
    """A bundle to measure, where its runtimes come from, and one input for it."""

    name: str
    bundle: Bundle
    runtimes: Mapping[str, str]
    inputs: Arrays


def open_subject(source: str, request: Request, target: Target, agent: Agent, env: Environment) -> Subject:
    """A bundle, opened and verified; or a model, loaded and given the target's default plan for the agent's device.

    Raises: BundleError, ModelError, RefusedError.
    """
    if is_bundle(Path(source)):
        bundle = open_bundle(Path(source))
        return Subject(bundle.name, bundle, runtime_entries(bundle, env.registry), example_of(bundle))
    with ExitStack() as stack:
        bench = open_bench(job_for(source, request, target, env), env, stack, agent)
        model = bench.reference
        plan = bench.plan(model)
        bundle = open_bundle(bench.trial(model, plan))
        return Subject(model.name, bundle, bench.entries(plan), bench.sample())


def target_for(request: Request, env: Environment) -> tuple[Target, str]:
    """The target that was named, else what the device at `request.on` is; and a sentence where it is not as written.

    Raises: TargetError, DeviceError.
    """
    if request.target or not request.on:
        return find_target(request.target, env.registry)
    with ExitStack() as stack:
        target = target_at(open_agent(request.on, env, stack), request, env)
    return target, f"no target was named; taking what {request.on} is: {target.name} ({target.title})"


def target_at(agent: Agent, request: Request, env: Environment) -> Target:
    """The target that was named, else the one that the agent's device is.

    Raises: TargetError when the device cannot be what was named.
    """
    if request.target is None:
        return find_target(THIS_HOST, env.registry)[0] if agent.here else target_of(agent.device(), env.registry)
    target, _ = find_target(request.target, env.registry)
    check_device(target, agent.device(), agent.address)
    return target


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
