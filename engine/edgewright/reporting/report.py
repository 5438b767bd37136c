"""Puts what was found side by side: original, candidate, ratio; and everything that was skipped, with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from edgewright.asking.targets import THIS_HOST, unlike
from edgewright.bench import Bench
from edgewright.bundle import plain
from edgewright.deploying.job import Candidate, Job
from edgewright.deploying.race import Raced
from edgewright.measuring.steadiness import warnings
from edgewright.measuring.timings import WORST
from edgewright.protocols import Modelling
from edgewright.registry import PREDICTORS, Registry, blame
from edgewright.reporting.tables import describe_device
from edgewright.types import Evidence, Measurement, Model, Report, Row, Target, Verdict, unknown


def build_report(
    job: Job,
    bench: Bench,
    *,
    candidates: Sequence[Candidate],
    raced: Mapping[str, Raced],
    evidence: Mapping[str, Evidence],
    verdict: Verdict,
    skipped: Sequence[str],
) -> Report:
    """The report of a deploy; the bundle's place is added when it is written."""
    original, shipped = evidence[candidates[0].name], evidence[verdict.shipped]
    chosen = next(c for c in candidates if c.name == verdict.shipped)
    steps = chosen.model.history or job.model.history
    return Report(
        model=job.model.name,
        target=job.target.name,
        device=_device(bench),
        rows=(*rows(original, shipped), *modelled_rows(candidates[0].model, chosen.model, job.target, bench.registry)),
        verdict=verdict,
        steps=tuple(steps),
        candidates=tuple(_candidate(c, raced[c.name], evidence.get(c.name)) for c in candidates),
        skipped=tuple(skipped),
        settings=settings(job),
        notes=(*job.task.notes, *_unlike(job, bench), *warnings(next(iter(shipped.latency.values())).conditions)),
        race=tuple(entrant for c in candidates for entrant in raced[c.name].entrants),
        recording=original.recording,
    )


def rows(original: Evidence, shipped: Evidence) -> tuple[Row, ...]:
    """One row per quantity that both have."""
    compared = shipped.speedup.conditions.get("of", "p50")
    found = [
        Row(
            f"latency {name}",
            original.latency[name],
            shipped.latency[name],
            shipped.speedup if name == compared else None,
        )
        for name in original.latency
        if name in shipped.latency
    ]
    found.append(Row(original.metric.quantity, original.metric, shipped.metric, signed_drop(shipped.drop)))
    found.append(Row("size", original.size, shipped.size, _times_smaller(original.size, shipped.size)))
    found.append(Row("energy", original.energy, shipped.energy, shipped.saving))
    by_name = {m.quantity: m for m in original.others}
    for other in shipped.others:
        nothing = unknown(other.quantity, other.unit, "the original has no gates")
        if other.quantity in by_name or other.quantity == WORST:
            found.append(Row(other.quantity, by_name.get(other.quantity, nothing), other))
    return tuple(found)


def modelled_rows(original: Model, shipped: Model, target: Target, registry: Registry) -> tuple[Row, ...]:
    """What the target's predictor models of both; nothing where it models nothing, or the original ships."""
    offer = registry.get(PREDICTORS, target.predictor)
    if original.digest == shipped.digest or not isinstance(offer.value, Modelling):
        return ()
    with blame(offer, f"modelling energy for {target.name}"):
        return tuple(offer.value.modelled(original, shipped, target))


def _device(bench: Bench) -> str:
    """Where the numbers come from, in words."""
    if bench.device is None:
        return f"no {bench.target.name} at hand: costs are predicted, accuracy is computed on this host"
    return describe_device(bench.device.device())


def _unlike(job: Job, bench: Bench) -> tuple[str, ...]:
    """What a reader has to know where the device is not quite what was asked for."""
    if bench.device is None or (bench.device is bench.host and job.target.name == THIS_HOST):
        return ()
    found = unlike(job.target, bench.device.device(), bench.registry)
    return (found,) if found else ()


def settings(job: Job) -> Mapping[str, Any]:
    """The resolved settings, as they are echoed before the work and kept after it."""
    return {
        "model": job.model.source,
        "target": job.target.name,
        "methods": " ".join(call_text(m.name, m.params) for m in job.methods) or "none",
        "task": job.request.task or "none (seeded noise: no accuracy)",
        "metric": job.task.metric.name,
        "exporters": ", ".join(job.recipe.exporters),
        **({"kernels": ", ".join(job.recipe.kernels)} if job.request.kernel else {}),
        "runtimes": ", ".join(job.recipe.runtimes),
        "meters": ", ".join(job.recipe.meters) or "none",
        "threads": job.recipe.threads,
        "batch": job.recipe.batch,
        "preset": job.recipe.preset,
        "seed": job.recipe.seed,
        "contract": _bounds(job),
        "out": str(job.out),
    }


def _bounds(job: Job) -> str:
    bounds = job.recipe.bounds
    words = [
        f"max-drop {bounds.max_drop}" if bounds.max_drop else "max-drop off",
        f"min-speedup {bounds.min_speedup:g}" if bounds.min_speedup else "min-speedup off",
    ]
    if bounds.max_latency:
        words.append(f"max-latency {bounds.max_latency:g} ms ({bounds.latency_statistic})")
    if bounds.max_energy:
        words.append(f"max-energy {bounds.max_energy:g} mJ")
    if bounds.max_size:
        words.append(f"max-size {bounds.max_size:g} B")
    return ", ".join(words)


def call_text(name: str, params: Any) -> str:
    """A method as a user would write it: its name, and the parameters that are not at their defaults."""
    said = {f.name: getattr(params, f.name) for f in fields(params) if getattr(params, f.name) != f.default}
    return name + (":" + ",".join(f"{k}={_text(v)}" for k, v in said.items()) if said else "")


def _text(value: Any) -> str:
    return "+".join(map(str, cast("tuple[Any, ...]", value))) if isinstance(value, tuple) else str(value)


def _candidate(candidate: Candidate, raced: Raced, evidence: Evidence | None) -> Mapping[str, Any]:
    """One line of the list of candidates; test values only for those that were read on test."""
    return {
        "name": candidate.name,
        "size": candidate.size,
        "speedup": plain(evidence.speedup if evidence else raced.cost.ratio),
        "metric": plain(evidence.metric) if evidence else None,
        "numerics": {a.name: plain(a.numerics) for a in candidate.artifacts},
        "placements": plain(raced.plan.placements),
    }


def signed_drop(drop: Measurement) -> Measurement | None:
    """The change of the metric as people read it: negative when it was lost."""
    if drop.value is None:
        return None
    interval = None if drop.interval is None else (0.0 - drop.interval[1], 0.0 - drop.interval[0])
    # Not `-value`: a loss of nothing would be printed as -0.00.
    return Measurement("change", 0.0 - drop.value, drop.unit, drop.n, interval, "paired")


def _times_smaller(original: Measurement, shipped: Measurement) -> Measurement | None:
    if not original.value or not shipped.value:
        return None
    return Measurement("ratio", original.value / shipped.value, "x", 1)
