"""The no-regression contract: what the candidate must keep or gain, judged against the original."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from edgewright.errors import RecipeError
from edgewright.types import Evidence, Judgement, Measurement, Metric, Verdict

FREEZE = 5
"""At most this many candidates are read on the test split."""

_SIZES = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_TIMES = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_ENERGIES = {"uj": 1e-3, "µj": 1e-3, "mj": 1.0, "j": 1e3}


@dataclass(frozen=True)
class Drop:
    """How much of the metric may be lost: a share of its full scale, or of the original's value."""

    share: float
    relative: bool = False

    def allowed(self, metric: Metric, original: float) -> float:
        """In the metric's own unit."""
        return self.share * (abs(original) if self.relative else metric.full_scale)

    def __str__(self) -> str:
        return f"{100 * self.share:g}%{'rel' if self.relative else ''}"


@dataclass(frozen=True)
class Bounds:
    """The bounds of one contract; `written` names those the user wrote. Units: ms, mJ, bytes."""

    max_drop: Drop | None = field(default_factory=lambda: Drop(0.01))
    min_speedup: float | None = 1.0
    max_latency: float | None = None
    latency_statistic: str = "p50"
    max_energy: float | None = None
    max_size: float | None = None
    minimise: str = "latency"
    written: frozenset[str] = frozenset()


# ------------------------------------------------------------------ reading bounds


def parse_bounds(given: Mapping[str, Any]) -> Bounds:
    """Bounds from text (`1%`, `1%rel`, `10ms:p99`, `5mJ`, `4MB`, `off`).

    Raises: RecipeError with the bound, the text, and an example that works.
    """
    values: dict[str, Any] = {}
    for name, text in given.items():
        values |= _READERS[name](str(text).strip()) if str(text) != "off" else {name: None}
    return Bounds(**values, written=frozenset(n for n in given if str(given[n]) != "off"))


def parse_time(flag: str, text: str) -> float:
    """Milliseconds from `12ms` or `0.5s`. Raises: RecipeError with the flag and an example that works."""
    return _read_quantity(flag, text, _TIMES, "12ms")


def _read_drop(text: str) -> dict[str, Any]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%(rel)?", text)
    if not match or float(match[1]) > 100:
        raise RecipeError(f"--max-drop {text!r} is not a share; write 1% (of full scale), 1%rel (of the value) or off")
    return {"max_drop": Drop(float(match[1]) / 100, relative=bool(match[2]))}


def _read_speedup(text: str) -> dict[str, Any]:
    try:
        value = float(text.removesuffix("x"))
    except ValueError:
        value = math.nan
    if not 0 < value < 1e6:
        raise RecipeError(f"--min-speedup {text!r} is not a factor; write 1.2 or off")
    return {"min_speedup": value}


def _read_latency(text: str) -> dict[str, Any]:
    amount, _, statistic = text.partition(":")
    if statistic not in ("", "mean", "p50", "p90", "p99", "p99.9"):
        raise RecipeError(f"--max-latency {text!r}: {statistic!r} is none of mean, p50, p90, p99, p99.9")
    return {
        "max_latency": _read_quantity("--max-latency", amount, _TIMES, "10ms or 10ms:p99"),
        "latency_statistic": statistic or "p50",
    }


def _read_energy(text: str) -> dict[str, Any]:
    return {"max_energy": _read_quantity("--max-energy", text, _ENERGIES, "5mJ")}


def _read_size(text: str) -> dict[str, Any]:
    return {"max_size": _read_quantity("--max-size", text, _SIZES, "4MB")}


def _read_minimise(text: str) -> dict[str, Any]:
    if text not in ("latency", "energy", "size"):
        raise RecipeError(f"--minimise {text!r} is not possible; allowed: latency, energy, size")
    return {"minimise": text}


def _read_quantity(flag: str, text: str, units: Mapping[str, float], example: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-zµ]+)", text.strip())
    if not match or match[2].lower() not in units or float(match[1]) <= 0:
        raise RecipeError(f"{flag} {text!r} has no value with a unit; write {example}")
    return float(match[1]) * units[match[2].lower()]


_READERS = {
    "max_drop": _read_drop,
    "min_speedup": _read_speedup,
    "max_latency": _read_latency,
    "max_energy": _read_energy,
    "max_size": _read_size,
    "minimise": _read_minimise,
}

BOUND_NAMES = tuple(f.name for f in fields(Bounds) if f.name in _READERS)


# ------------------------------------------------------------------ judging


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
