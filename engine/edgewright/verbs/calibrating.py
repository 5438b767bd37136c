"""Fits a target's predictor to a device: to micro-networks measured there, or to networks that somebody measured."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgewright.agents.agent import LOCAL, Agent
from edgewright.asking.recipe import meters_of
from edgewright.asking.request import Request
from edgewright.asking.targets import THIS_HOST, find_target
from edgewright.deploying.opening import open_agent, open_bench
from edgewright.environment import Environment
from edgewright.errors import InputError, TargetError
from edgewright.measuring import measure
from edgewright.measuring.measure import Candidate
from edgewright.measuring.metering import NoMeter, metered, with_energy
from edgewright.measuring.presets import Preset
from edgewright.measuring.timings import Measured
from edgewright.protocols import Calibrated, Measurable
from edgewright.registry import PREDICTORS, blame
from edgewright.types import Model, Target
from edgewright.verbs.subject import job_for, lowered_model, target_at

PROBE = Preset(name="probe", seconds=0.1, runs=15, rounds=1)
PASSES = 3
COLUMNS = ("model", "latency_ms", "energy_mj")
FEWEST = 5


def calibrate(request: Request, measured: Path | None, out: Path, env: Environment) -> tuple[Target, int]:
    """Write the calibrated profile to `out`; the target it describes and how many networks it rests on.

    Raises: TargetError, InputError, ModelError, DeviceError.
    """
    with ExitStack() as stack:
        if measured:
            base, _ = find_target(request.target or THIS_HOST, env.registry)
            cases = list(read_measured(measured, request, env))
            predictor = _predictor(base, env)
        else:
            agent = open_agent(request.on or LOCAL, env, stack)
            base = target_at(agent, request, env)
            predictor = _predictor(base, env)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-probes-")))
            cases = list(measure_all(predictor.probes(folder), request, base, agent, env))
        with blame(env.registry.get(PREDICTORS, base.predictor), f"calibrating {base.name}"):
            found = predictor.fit(cases, replace(base, name=out.stem))
            out.write_text(predictor.profile(found), encoding="utf-8")
    return found, len(cases)


def _predictor(base: Target, env: Environment) -> Calibrated:
    predictor = env.registry.get(PREDICTORS, base.predictor).value
    if not isinstance(predictor, Calibrated):
        raise TargetError(f"the predictor {base.predictor} of {base.name} cannot be calibrated; use kernels")
    if not base.compute:
        raise TargetError(f"no profile describes {base.title}; name the nearest one with --target, it will be fitted")
    return predictor


def read_measured(path: Path, request: Request, env: Environment) -> Iterator[Measurable]:
    """The networks of a CSV file with the columns model, latency_ms and, where known, energy_mj.

    Raises: InputError with the line that is wrong; ModelError.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"{path} cannot be read as CSV: {cause}") from cause
    if len(rows) < FEWEST:
        raise InputError(f"{path} has {len(rows)} rows; {FEWEST} measured networks are the fewest, 10 to 20 do well")
    for line, row in enumerate(rows, 2):
        where = f"{path}, line {line}"
        latency, energy = (_number(row, key, where) for key in COLUMNS[1:])
        if not row.get("model") or latency is None:
            raise InputError(f"{where}: model or latency_ms is missing; the columns are {', '.join(COLUMNS)}")
        yield Measurable(lowered_model(str(path.parent / row["model"]), request, env), latency, energy)


def _number(row: dict[str, Any], key: str, where: str) -> float | None:
    text = (row.get(key) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"{where}: {key} is {text!r}; write a number above 0")
    return value


@dataclass(frozen=True, eq=False)
class _Network:
    """A network as the predictor sees it, and as the device runs it."""

    model: Model
    candidate: Candidate


def measure_all(
    paths: Sequence[Path], request: Request, base: Target, agent: Agent, env: Environment
) -> Iterator[Measurable]:
    """Each network measured alone on the device, with energy where a meter finds its sensor.

    All are measured PASSES times over, and the lowest latency counts: what disturbs a device seldom does so twice.
    """
    networks = [_open(path, request, base, agent, env) for path in paths]
    found: list[list[Measurable]] = [[] for _ in networks]
    names: Sequence[str] = meters_of(request, base, env.registry)
    with measure.device_lock(env.store.folder("locks"), agent.address, env.progress):
        for turn, (at, network) in enumerate([*enumerate(networks)] * PASSES):
            env.progress("micro-networks", turn + 1, PASSES * len(networks))
            with metered(agent, names, env.registry) as meter:
                measured = measure.measure_one(agent, network.candidate, PROBE, meter=meter)
            names = () if isinstance(meter, NoMeter) else names
            found[at] += _measurable(network.model, with_energy({measure.ALONE: measured}, meter)[measure.ALONE])
    yield from (min(each, key=lambda case: case.latency_ms) for each in found if each)


def _open(path: Path, request: Request, base: Target, agent: Agent, env: Environment) -> _Network:
    with ExitStack() as stack:
        bench = open_bench(job_for(str(path), request, base, env), env, stack, agent)
        plan = bench.plan(bench.reference)
        options: dict[str, object] = {"runtimes": bench.entries(plan)}
        if request.threads is not None:
            options["threads"] = request.threads
        return _Network(bench.reference, Candidate(bench.trial(bench.reference, plan), options))


def _measurable(model: Model, found: Measured) -> Iterator[Measurable]:
    """What a network took; nothing where it was not measured."""
    latency, energy = found.latency["p50"].value, found.energy and found.energy.total.value
    if latency:
        yield Measurable(model, latency, energy or None, found.latency["p50"].kind)
