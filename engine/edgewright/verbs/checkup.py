"""What a host and a device have, what they lack, and how to get it: for `engine doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edgewright.agents.agent import start_agent
from edgewright.agents.runnerfile import ISAS, Machine, find_compiler
from edgewright.deploying.opening import open_link
from edgewright.environment import Environment
from edgewright.errors import EdgewrightError, RefusedError
from edgewright.onboarding import preflight
from edgewright.onboarding.findings import Finding, findings
from edgewright.protocols import Requirement
from edgewright.registry import EXPORTERS, RUNTIMES, Registry, blame
from edgewright.reporting.tables import amount
from edgewright.store import Store
from edgewright.types import Device

OPTIONAL = {
    "torch": "PyTorch models and trained methods: pip install 'edgewright[torch]'",
    "apache-tvm": "TVM kernels: pip install 'edgewright[tvm]'",
    "openvino": "the runtime openvino: pip install 'edgewright[openvino]'",
}


@dataclass(frozen=True)
class Checkup:
    """What was found; `status` is the exit code of what kept the device from being looked at, else 0."""

    findings: tuple[Finding, ...]
    status: int = 0


def examine(address: str, env: Environment) -> Checkup:
    """Everything, whatever is broken: a device that does not answer is a finding too."""
    found = [*_host(env.store), *_runners(), *_plugins(env.registry), *_exporters(env)]
    try:
        return Checkup((*found, *_device(address, env)))
    except EdgewrightError as error:
        return Checkup((*found, Finding("missing", address, str(error))), error.exit_code)


def fix(env: Environment) -> tuple[Finding, ...]:
    """Get whatever is missing and can be got without asking, and say what came of it."""
    found: list[Finding] = []
    for name, requirement in _requirements(env):
        if requirement.found or requirement.fix is None:
            continue
        try:
            requirement.fix()
        except RefusedError as reason:
            found.append(Finding("missing", f"{name}: {requirement.name}", str(reason)))
        else:
            found.append(Finding("ok", f"{name}: {requirement.name}", "fetched"))
    return tuple(found)


def _host(store: Store) -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.platform()}")
    for name in ("numpy", "onnx", "onnxscript", "onnxruntime", "pluggy"):
        yield Finding("ok", name, importlib.metadata.version(name))
    for name, purpose in OPTIONAL.items():
        try:
            yield Finding("ok", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("missing", name, f"not installed; {purpose}")
    try:
        free = shutil.disk_usage(store.folder(".")).free
        writable = os.access(store.root, os.W_OK)
        yield Finding("ok" if writable else "missing", "cache", f"{store.root}, {amount(free, 'B')} free")
    except EdgewrightError as error:
        yield Finding("missing", "cache", str(error))


def _runners() -> Iterator[Finding]:
    """Compilers of the native runner, for devices without Python."""
    for isa in ISAS:
        try:
            yield Finding("ok", f"native runner for {isa}", find_compiler(Machine(isa)))
        except RefusedError as refusal:
            yield Finding("missing", f"native runner for {isa}", str(refusal))


def _plugins(registry: Registry) -> Iterator[Finding]:
    yield Finding("ok", "plugins", f"{len(registry.plugins)} loaded")
    for absent in registry.broken:
        yield Finding("missing", f"plugin {absent.name}", f"{absent.distribution} {absent.version}: {absent.reason}")


def _exporters(env: Environment) -> Iterator[Finding]:
    for name, each in _requirements(env):
        yield Finding("ok" if each.found else "missing", f"{name}: {each.name}", each.found or each.reason)


def _requirements(env: Environment) -> Iterator[tuple[str, Requirement]]:
    for offer in env.registry.all(EXPORTERS):
        asked = getattr(offer.value, "requirements", None)
        with blame(offer, "asking what it needs"):
            needed: Sequence[Requirement] = asked() if asked else ()
        yield from ((env.registry.name(EXPORTERS, offer), requirement) for requirement in needed)


def _device(address: str, env: Environment) -> tuple[Finding, ...]:
    """Raises: DeviceError when it does not answer, RecipeError for an address that is none."""
    with ExitStack() as stack:
        link = open_link(address, env, stack)
        device = preflight.examine(link)
        told = findings(device, address, time.time())
        if not _ready(device):
            return tuple(told)
        agent = stack.enter_context(start_agent(link, env.store.folder("agents")))
        return (*told, *_runtimes(agent.device(), env.registry))


def _ready(device: preflight.Preflight) -> bool:
    """Whether an agent starts there: it needs numpy or else a library, and nobody else's lock."""
    works = device.python.found["numpy"].works if device.python else bool(device.runner and device.runner.library.works)
    return works and not device.busy


def _runtimes(device: Device, registry: Registry) -> Iterator[Finding]:
    for offer in registry.all(RUNTIMES):
        name, refusal = registry.name(RUNTIMES, offer), offer.value.probe(device)
        found = refusal.reason if refusal else device.versions.get(name) or ", ".join(device.providers)
        yield Finding("missing" if refusal else "ok", f"runtime {name}", found)
