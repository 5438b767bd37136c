"""Measures two bundles or models against each other, interleaved, and holds conditions against the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edgewright.agents.agent import LOCAL
from edgewright.asking.recipe import meters_of
from edgewright.asking.request import Request
from edgewright.asking.targets import unlike
from edgewright.deploying.opening import open_agent
from edgewright.environment import Environment
from edgewright.errors import RecipeError
from edgewright.measuring import measure
from edgewright.measuring.metering import metered, with_energy
from edgewright.measuring.presets import find_preset
from edgewright.measuring.timings import Measured
from edgewright.types import Device, Measurement, Row
from edgewright.verbs.judging import FAILED, Condition, Interval, Judged, judge
from edgewright.verbs.scoring import ACCURACY, score
from edgewright.verbs.subject import Subject, open_subject, target_at

FIRST, SECOND = "first", "second"


@dataclass(frozen=True)
class Comparison:
    """Two subjects side by side, the relative change of each quantity (second / first - 1), and what was judged.

    `notes` say how the `device` differs from the target that was named.
    """

    device: Device
    rows: tuple[Row, ...]
    changes: Mapping[str, Interval]
    judged: tuple[Judged, ...]
    notes: tuple[str, ...] = ()

    def having(self, outcome: str) -> tuple[str, ...]:
        """The conditions with this outcome, as they were written."""
        return tuple(each.condition for each in self.judged if each.outcome == outcome)

    @property
    def failed(self) -> tuple[str, ...]:
        """The conditions that failed."""
        return self.having(FAILED)


def compare(
    sources: tuple[str, str],
    conditions: Sequence[Condition],
    request: Request,
    env: Environment,
) -> Comparison:
    """Raises: BundleError, ModelError, TaskError, DeviceError; RecipeError for accuracy without a task."""
    for each in conditions:
        if each.quantity == ACCURACY and not request.task:
            raise RecipeError(f"--fail-if {each.text!r} needs examples; give them with --task")
    preset = find_preset(request.preset or "default")
    with ExitStack() as stack:
        agent = open_agent(request.on or LOCAL, env, stack)
        target = target_at(agent, request, env)
        subjects = [open_subject(source, request, target, agent, env) for source in sources]
        accuracy = score(agent, subjects, request, env)
        candidates = {
            name: measure.Candidate(subject.bundle.path, {"runtimes": subject.runtimes})
            for name, subject in zip((FIRST, SECOND), subjects, strict=True)
        }
        stack.enter_context(measure.device_lock(env.store.folder("locks"), agent.address, env.progress))
        with metered(agent, meters_of(request, target, env.registry), env.registry) as meter:
            found = measure.compare(
                agent, candidates, preset, reference=FIRST, seed=request.seed or 0, progress=env.progress, meter=meter
            )
        found = with_energy(found, meter, FIRST)
        device = agent.device()
    rows = (*_rows(found[FIRST], found[SECOND]), _sizes(subjects), *accuracy)
    changes = {name_of(row): change for row in rows for change in [_change(row)] if change}
    reasons = {name_of(row): row.candidate.reason or row.original.reason for row in rows}
    differs = unlike(target, device, env.registry) if request.target else ""
    return Comparison(device, rows, changes, judge(conditions, changes, reasons), tuple(filter(None, [differs])))


def _rows(first: Measured, second: Measured) -> tuple[Row, ...]:
    compared = second.ratio.conditions.get("of", "p50") if second.ratio else "p50"
    latency = [
        Row(f"latency {name}", first.latency[name], second.latency[name], second.ratio if name == compared else None)
        for name in first.latency
        if name in second.latency
    ]
    assert first.energy is not None
    assert second.energy is not None
    return (
        *latency,
        Row("energy", first.energy.total, second.energy.total, second.energy.ratio),
        Row("memory", first.memory, second.memory),
    )


def _sizes(subjects: Sequence[Subject]) -> Row:
    sizes = [Measurement("size", subject.bundle.size, "B", 1, instrument="file size") for subject in subjects]
    return Row("size", *sizes)


def name_of(row: Row) -> str:
    """What conditions call it; the one statistic of latency with a ratio counts."""
    name = row.quantity.split()[0]
    return row.quantity if name == "latency" and row.ratio is None else name


def _change(row: Row) -> Interval | None:
    """Second / first - 1 with its interval, which a file's size and a peak have none of; of accuracy full scales."""
    ratio, first, second = row.ratio, row.original.value, row.candidate.value
    if ratio and ratio.quantity == "change" and ratio.value is not None:
        scale = row.original.conditions["full_scale"]
        low, high = ratio.interval or (ratio.value, ratio.value)
        return low / scale, high / scale
    if ratio and ratio.value:
        low, high = ratio.interval or (ratio.value, ratio.value)
        return 1 / high - 1, 1 / low - 1
    if name_of(row) in ("size", "memory") and first and second:
        return second / first - 1, second / first - 1
    return None
