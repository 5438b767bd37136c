"""Opens what a job works with: connections, agents on the host and the target, and the bench around them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from edgewright.agents.agent import LOCAL, Agent, check_threads, start_agent
from edgewright.asking.targets import THIS_HOST, check_device, offered
from edgewright.bench import Bench
from edgewright.deploying.job import Job
from edgewright.deploying.steps import lowered
from edgewright.environment import Environment
from edgewright.protocols import Link
from edgewright.registry import CONNECTIONS, blame


def open_bench(job: Job, env: Environment, stack: ExitStack, device: Agent | None = None) -> Bench:
    """The agents and everything the steps share; `device` is the one on the target where it runs already.

    Raises: DeviceError when the device does not answer.
    """
    host = device if device and device.here else open_agent(LOCAL, env, stack)
    if device is None:
        device = _device(job, host, env, stack)
    else:
        device.check_threads(job.recipe.threads)
    target = offered(job.target, device.device()) if device else job.target
    bench = Bench(env, target, job.recipe, job.task, job.model, job.model, host, device)
    return replace(bench, reference=lowered(job.model, bench))


def _device(job: Job, host: Agent, env: Environment, stack: ExitStack) -> Agent | None:
    """The agent on the target; None when nothing was said and the target is not this host."""
    if job.request.on is None:
        if job.target.name == THIS_HOST:
            host.check_threads(job.recipe.threads)
            return host
        check_threads(job.recipe.threads, int(job.target.cores.value), job.target.name)
        return None
    agent = host if job.request.on == LOCAL else open_agent(job.request.on, env, stack)
    check_device(job.target, agent.device(), job.request.on)
    agent.check_threads(job.recipe.threads)
    return agent


def open_agent(address: str, env: Environment, stack: ExitStack) -> Agent:
    """An agent on the device at `address`, closed with the stack. Raises: DeviceError, RecipeError."""
    return stack.enter_context(start_agent(open_link(address, env, stack), env.store.folder("agents")))


def open_link(address: str, env: Environment, stack: ExitStack) -> Link:
    """A connection to the device at `address`, closed with the stack. Raises: DeviceError, RecipeError."""
    scheme, _, rest = address.partition("://")
    offer = env.registry.get(CONNECTIONS, scheme)
    with blame(offer, f"connecting to {address}"):
        link = offer.value.open(rest)
    stack.callback(link.close)
    return link
