"""The no-regression contract: candidates judged against the original and ranked, and which one ships."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgewright.asking.bounds import Bounds
from edgewright.types import Evidence, Judgement, Measurement, Metric, Verdict

FREEZE = 5
"""At most this many candidates are read on the test split."""


def rank(evidence: Sequence[Evidence], bounds: Bounds, metric: Metric) -> tuple[Evidence, ...]:
    """The candidates worth reading on test, best first, at most five of them.

    Judged on the selection split: those within the allowed drop come first, then by what is minimised.
    """
    order = sorted(evidence, key=lambda e: (_exceeds_drop(e, bounds, metric), _objective(e, bounds)))
    return tuple(order[:FREEZE])


def decide(original: Evidence, ranked: Sequence[Evidence], bounds: Bounds, metric: Metric) -> Verdict:
    """Ship the first candidate that breaks no bound; the original when none does.

    `ranked` is best first; `original` and they carry their values on the test split.
    """
    judged = {e.name: judge(e, bounds, metric) for e in (*ranked, original)}
    order = sorted(ranked, key=lambda e: _objective(e, bounds))
    shipped = next((e for e in order if _legal(judged[e.name])), original)
    judgements = judged[shipped.name]
    failed = [j for j in judgements if j.written and j.holds is not True]
    status = "not met" if failed else "met"
    if shipped.latency["p50"].kind == "predicted" or shipped.speedup.kind == "predicted":
        status = f"predicted {status}"
    refused = tuple(
        f"{e.name}: {'; '.join(j.sentence for j in judged[e.name] if _breaks(j))}"
        for e in order
        if e is not shipped and not _legal(judged[e.name])
    )
    return Verdict(status, shipped.name, judgements, len(ranked) + 1, refused)


def judge(evidence: Evidence, bounds: Bounds, metric: Metric) -> tuple[Judgement, ...]:
    """Every bound that is set, held against one candidate."""
    found = [
        _judge_drop(evidence, bounds, metric),
        _judge_speedup(evidence, bounds),
        _judge_most(
            evidence.latency.get(bounds.latency_statistic), bounds.max_latency, "max_latency", bounds,
            label=f"latency {bounds.latency_statistic}",
        ),
        _judge_most(evidence.energy, bounds.max_energy, "max_energy", bounds, label="energy"),
        _judge_most(evidence.size, bounds.max_size, "max_size", bounds, label="size"),
    ]  # fmt: skip
    return tuple(j for j in found if j is not None)


def _legal(judgements: Sequence[Judgement]) -> bool:
    return not any(_breaks(j) for j in judgements)


def _breaks(judgement: Judgement) -> bool:
    """A written bound must be seen to hold; a default one must not be seen to fail."""
    return judgement.holds is not True if judgement.written else judgement.holds is False


def _judge_drop(evidence: Evidence, bounds: Bounds, metric: Metric) -> Judgement | None:
    if bounds.max_drop is None:
        return None
    written, drop = "max_drop" in bounds.written, evidence.drop
    allowed = _allowed_drop(evidence, bounds, metric)
    if allowed is None or drop.value is None:
        return Judgement("max-drop", written, None, f"{evidence.metric.quantity} cannot be judged: {drop.reason}")
    holds = not _exceeds_drop(evidence, bounds, metric)
    interval = "" if drop.interval is None else f" [{drop.interval[0]:.2f}, {drop.interval[1]:.2f}]"
    return Judgement(
        "max-drop",
        written,
        holds,
        f"{metric.name} dropped by {drop.value:.2f}{interval} {metric.unit or 'of ' + format(metric.full_scale, 'g')}, "
        f"allowed {allowed:.2f}",
    )


def _judge_speedup(evidence: Evidence, bounds: Bounds) -> Judgement | None:
    """A written factor must hold at the low end; the unwritten guard fails only when the whole interval is below."""
    if bounds.min_speedup is None:
        return None
    written, ratio = "min_speedup" in bounds.written, evidence.speedup
    if ratio.value is None:
        return Judgement("min-speedup", written, None, f"speed-up cannot be judged: {ratio.reason}")
    low, high = ratio.interval or (ratio.value, ratio.value)
    holds = (low if written else high) >= bounds.min_speedup
    return Judgement(
        "min-speedup",
        written,
        holds,
        f"speed-up {ratio.value:.2f}x [{low:.2f}, {high:.2f}], asked {bounds.min_speedup:g}x",
    )


def _judge_most(
    value: Measurement | None, bound: float | None, name: str, bounds: Bounds, *, label: str
) -> Judgement | None:
    if bound is None:
        return None
    written, flag = name in bounds.written, name.replace("_", "-")
    if value is None or value.value is None:
        reason = value.reason if value is not None else "too few runs support this percentile; use --preset thorough"
        return Judgement(flag, written, None, f"{label} cannot be judged: {reason}")
    high = value.interval[1] if value.interval else value.value
    return Judgement(
        flag,
        written,
        high <= bound,
        f"{label} {value.value:.4g} (at most {high:.4g}) {value.unit}, asked {bound:.4g}",
    )


def _exceeds_drop(evidence: Evidence, bounds: Bounds, metric: Metric) -> bool:
    allowed = _allowed_drop(evidence, bounds, metric)
    return allowed is not None and evidence.drop.value is not None and evidence.drop.value > allowed + 1e-9


def _allowed_drop(evidence: Evidence, bounds: Bounds, metric: Metric) -> float | None:
    """In the metric's unit; None when accuracy binds nothing or is not known."""
    if bounds.max_drop is None or evidence.drop.value is None or evidence.metric.value is None:
        return None
    better = 1 if metric.direction == "higher" else -1
    return bounds.max_drop.allowed(metric, evidence.metric.value + better * evidence.drop.value)


def _objective(evidence: Evidence, bounds: Bounds) -> float:
    """Smaller is better; a value that could not be had stands last."""
    chosen = {
        "latency": evidence.latency.get("p50"),
        "energy": evidence.energy,
        "size": evidence.size,
    }[bounds.minimise]
    if bounds.minimise == "latency" and evidence.speedup.value:
        return 1.0 / evidence.speedup.value
    return math.inf if chosen is None or chosen.value is None else chosen.value
