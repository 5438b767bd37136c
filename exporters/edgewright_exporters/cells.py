"""The cells of a report's tables, and words that every renderer says alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgewright.types import Entrant, Exit, Exits, Judgement, Measurement, Row, Step
from edgewright_exporters.figures import figure, fitting_scale, ratio

CANDIDATE_HEADER = ("", "size", "speed-up", "metric", "largest error")

RACE_HEADER = ("", "form", "runs on", "speed-up", "")

EXIT_HEADER = ("exit", "threshold", "share", "n", "those that left", "if all left", "mean time", "999 of 1000 below")

_HOLDS = {True: "holds", False: "fails", None: "not judged"}


def quantity(row: Row) -> str:
    """What the row is about, and how often it was measured: `latency p50 (n=300/310)`."""
    counts = dict.fromkeys(m.n for m in (row.original, row.candidate) if m.n > 1)
    return row.quantity + (f" (n={'/'.join(map(str, counts))})" if counts else "")


def pair(row: Row) -> tuple[str, str]:
    """Original and candidate in one unit, so that the eye can compare them."""
    values = [m.value for m in (row.original, row.candidate) if m.value]
    scale = fitting_scale(row.original.unit, values[0] if values else None)
    return figure(row.original, scale), figure(row.candidate, scale)


def footnote(measurement: Measurement | None, reasons: dict[str, int]) -> str:
    """` [1]`, the number under which the reason for a missing value stands; empty when there is none.

    `reasons` maps a reason to its number, and takes new ones.
    """
    if measurement is None or measurement.value is not None or not measurement.reason:
        return ""
    return f" [{reasons.setdefault(measurement.reason, len(reasons) + 1)}]"


def compared(rows: Sequence[Row], reasons: dict[str, int]) -> list[tuple[str, ...]]:
    """Quantity, original, candidate and ratio of each row; why a value is missing goes to `reasons`."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        texts = zip((*pair(row), ratio(row.ratio)), (row.original, row.candidate, row.ratio))
        lines.append((quantity(row), *(text + footnote(each, reasons) for text, each in texts)))
    return lines


def judgement(each: Judgement) -> str:
    """`max-drop holds: top-1 dropped by 0.31 %, allowed 1.00`."""
    return f"{each.bound}{'' if each.written else ' (default)'} {_HOLDS[each.holds]}: {each.sentence}"


def call(step: Step) -> str:
    """The step with what it was told, a list written as the command line takes it: `quantize keep=3+6`."""
    said = (f"{key}={_setting(value)}" for key, value in step.params.items() if value not in (None, [], ()))
    return " ".join((step.name, *said))


def candidate(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Its name, size, speed beside the original, metric, and how far its outputs moved."""
    size = Measurement("size", entry.get("size"), "B")
    errors = [each["max_rel"] for each in entry.get("numerics", {}).values() if "max_rel" in each]
    metric = _measurement(entry.get("metric"))
    return (
        str(entry["name"]),
        figure(size, fitting_scale("B", size.value)),
        ratio(_measurement(entry.get("speedup"))),
        "-" if metric is None else figure(metric, fitting_scale(metric.unit, metric.value)),
        f"{100 * max(errors):.2g} %" if errors else "-",
    )


def entrant(each: Entrant) -> tuple[str, ...]:
    """A way to run a candidate, its speed beside the original's usual way, and what came of it."""
    outcome = "won" if each.won else f"did not race: {each.reason}" if each.speedup is None else ""
    return (each.candidate, each.form, each.runs or "-", ratio(each.speedup), outcome)


def exit_caption(found: Exits) -> str:
    """What the table of exits counts, and what its two columns of the metric are."""
    return f"{found.split} split; {found.metric} of the rows that left, and of all if each left there"


def exit_row(each: Exit) -> tuple[str, ...]:
    """The cells under `EXIT_HEADER`."""
    return (
        each.stage,
        _number(each.threshold, ".4g"),
        f"{each.share:.1%}",
        str(each.n),
        _number(each.metric, ".2f"),
        _number(each.everyone, ".2f"),
        _number(each.cost_ms, ".3g", " ms"),
        _number(each.high_ms, ".3g", " ms"),
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _setting(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _measurement(entry: Mapping[str, Any] | None) -> Measurement | None:
    return None if entry is None else Measurement(**entry)
