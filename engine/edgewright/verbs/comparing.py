"""Measures two bundles or models against each other, interleaved, and holds conditions against the outcome."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edgewright import measure
from edgewright.agent import LOCAL
from edgewright.environment import Environment
from edgewright.errors import RecipeError, suggest
from edgewright.pipeline import open_agent
from edgewright.recipe import Request
from edgewright.targets import unlike
from edgewright.timings import Measured
from edgewright.types import Device, Measurement, Row
from edgewright.verbs.subject import open_subject, target_at

QUANTITIES = ("latency", "size", "memory")


@dataclass(frozen=True)
class Condition:
    """`latency>+3%`: fails when the second is more than 3 % above the first, at every point of the interval."""

    text: str
    quantity: str
    above: bool
    change: float

    def fails(self, change: tuple[float, float]) -> bool:
        """Whether the whole interval of the relative change lies on the wrong side."""
        low, high = change
        return low > self.change if self.above else high < self.change


@dataclass(frozen=True)
class Comparison:
    """Two subjects side by side, the relative change of each quantity (second / first - 1), and what failed.

    `notes` say how the `device` differs from the target that was named.
    """

    device: Device
    rows: tuple[Row, ...]
    changes: Mapping[str, tuple[float, float]]
    failed: tuple[str, ...]
    notes: tuple[str, ...] = ()


def parse_condition(text: str) -> Condition:
    """Raises: RecipeError with an example that works."""
    match = re.fullmatch(r"\s*(\w+)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)%\s*", text)
    if not match:
        raise RecipeError(f'--fail-if {text!r} is no condition; write "latency>+3%"')
    if match[1] not in QUANTITIES:
        raise RecipeError(f"--fail-if {text!r}: no quantity {match[1]!r}; {suggest(match[1], QUANTITIES)}")
    return Condition(text, match[1], match[2] == ">", float(match[3]) / 100)


def compare(
    sources: tuple[str, str],
    conditions: Sequence[Condition],
    request: Request,
    env: Environment,
) -> Comparison:
    """Raises: BundleError, ModelError, DeviceError."""
    names = ("first", "second")
    with ExitStack() as stack:
        agent = open_agent(request.on or LOCAL, env, stack)
        target = target_at(agent, request, env)
        subjects = [open_subject(source, request, target, agent, env) for source in sources]
        candidates = {
            name: measure.Candidate(subject.bundle.path, {"runtimes": subject.runtimes})
            for name, subject in zip(names, subjects, strict=True)
        }
        stack.enter_context(measure.device_lock(env.store.folder("locks"), agent.address, env.progress))
        preset = measure.find_preset(request.preset or "default")
        seed = request.seed or 0
        found = measure.compare(agent, candidates, preset, reference="first", seed=seed, progress=env.progress)
    sizes = [Measurement("size", s.bundle.size, "B", 1, instrument="file size") for s in subjects]
    rows = _rows(found["first"], found["second"], sizes)
    changes = _changes(found["second"].ratio, rows)
    failed = tuple(c.text for c in conditions if c.quantity in changes and c.fails(changes[c.quantity]))
    differs = unlike(target, agent.device(), env.registry) if request.target else ""
    return Comparison(agent.device(), rows, changes, failed, tuple(filter(None, [differs])))


def _rows(first: Measured, second: Measured, sizes: Sequence[Measurement]) -> tuple[Row, ...]:
    compared = second.ratio.conditions.get("of", "p50") if second.ratio else "p50"
    latency = [
        Row(f"latency {name}", first.latency[name], second.latency[name], second.ratio if name == compared else None)
        for name in first.latency
        if name in second.latency
    ]
    return (*latency, Row("size", sizes[0], sizes[1]), Row("memory", first.memory, second.memory))


def _changes(ratio: Measurement | None, rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Second / first - 1 with its interval; a file's size and a peak have none."""
    changes: dict[str, tuple[float, float]] = {}
    for row in rows:
        if row.quantity in ("size", "memory") and row.original.value and row.candidate.value:
            change = row.candidate.value / row.original.value - 1
            changes[row.quantity] = (change, change)
    if ratio and ratio.value:
        low, high = ratio.interval or (ratio.value, ratio.value)
        changes["latency"] = (1 / high - 1, 1 / low - 1)
    return changes
