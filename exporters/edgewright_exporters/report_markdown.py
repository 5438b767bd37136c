"""The renderer `markdown`: the report as people read it, in a terminal as well as in a browser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgewright.protocols import Renderer
from edgewright.types import Judgement, Measurement, Report, Row, Step
from edgewright_exporters.figures import figure, fitting_scale, ratio
from edgewright_exporters.table import table

HOLDS = {True: "holds", False: "fails", None: "not judged"}


class Markdown:
    """Verdict first, then the table, then how it came about."""

    name = "markdown"
    suffix = ".md"

    def render(self, report: Report) -> str:
        """The text, ending in a newline."""
        sections = (
            [f"# {report.model} on {report.target}", "", *_verdict(report)],
            compare_rows(report.rows, report.verdict.shipped),
            _section("Contract", (_judgement(each) for each in report.verdict.judgements)),
            _section("Steps", (line for step in report.steps for line in _step(step))),
            _section("Candidates", _candidates(report.candidates)),
            _section("Left out", (f"- {each}" for each in (*report.verdict.left_out, *report.skipped))),
            _section("Settings", (f"- {key}: {value}" for key, value in report.settings.items())),
            _section("Notes", (f"- {note}" for note in report.notes)),
        )
        return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def compare_rows(rows: Sequence[Row], shipped: str) -> list[str]:
    """The table original | candidate | ratio, and below it why a value is missing."""
    reasons: dict[str, int] = {}
    lines = [
        (
            _quantity(row),
            *_pair(row, reasons),
            ratio(row.ratio) + _footnote(row.ratio, reasons),
        )
        for row in rows
    ]
    notes = [f"[{number}] {reason}" for reason, number in reasons.items()]
    return [*table(("", "original", f"candidate: {shipped}", "ratio"), lines), *([""] if notes else []), *notes]


def _verdict(report: Report) -> Iterator[str]:
    verdict = report.verdict
    yield f"{verdict.status.capitalize()}: `{verdict.shipped}` ships ({report.device})."
    yield f"The test split was read for {verdict.test_reads} models, once each."
    if report.bundle:
        yield f"Bundle: {report.bundle}"


def _quantity(row: Row) -> str:
    counts = dict.fromkeys(m.n for m in (row.original, row.candidate) if m.n > 1)
    return row.quantity + (f" (n={'/'.join(map(str, counts))})" if counts else "")


def _pair(row: Row, reasons: dict[str, int]) -> Iterator[str]:
    """Original and candidate in one unit, so that the eye can compare them."""
    values = [m.value for m in (row.original, row.candidate) if m.value]
    scale = fitting_scale(row.original.unit, values[0] if values else None)
    for measurement in (row.original, row.candidate):
        yield figure(measurement, scale) + _footnote(measurement, reasons)


def _footnote(measurement: Measurement | None, reasons: dict[str, int]) -> str:
    """` [1]`, the number under which the reason for a missing value stands; empty when there is none."""
    if measurement is None or measurement.value is not None or not measurement.reason:
        return ""
    return f" [{reasons.setdefault(measurement.reason, len(reasons) + 1)}]"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    """A heading and its lines; nothing when there are none."""
    found = list(lines)
    return [f"## {title}", "", *found] if found else []


def _judgement(judgement: Judgement) -> str:
    default = "" if judgement.written else " (default)"
    return f"- {judgement.bound}{default} {HOLDS[judgement.holds]}: {judgement.sentence}"


def _step(step: Step) -> Iterator[str]:
    said = " ".join(f"{key}={_setting(value)}" for key, value in step.params.items() if value not in (None, [], ()))
    yield f"- {step.name}{f' {said}' if said else ''} ({step.plugin})"
    yield from (f"  - {note}" for note in step.notes)


def _setting(value: Any) -> str:
    """As the command line takes it: a list is `3+6+9`."""
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _candidates(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    if not candidates:
        return []
    header = ("", "size", "speed-up", "metric", "largest error")
    return table(header, [_candidate(each) for each in candidates])


def _candidate(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """One line: its size, its speed beside the original, its metric, and how far its outputs moved."""
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


def _measurement(entry: Mapping[str, Any] | None) -> Measurement | None:
    return None if entry is None else Measurement(**entry)


MARKDOWN = Markdown()


def edgewright_renderers() -> Iterable[Renderer]:
    """What this module offers."""
    return (MARKDOWN,)
