"""The renderer `markdown`: the report as people read it, in a terminal as well as in a browser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgewright.protocols import Renderer
from edgewright.types import Exits, Report, Row, Step
from edgewright_exporters.cells import (
    CANDIDATE_HEADER,
    EXIT_HEADER,
    RACE_HEADER,
    call,
    candidate,
    compared,
    entrant,
    exit_caption,
    exit_row,
    judgement,
)
from edgewright_exporters.table import table


class Markdown:
    """Verdict first, then the table, then how it came about."""

    name = "markdown"
    suffix = ".md"

    def render(self, report: Report) -> str:
        """The text, ending in a newline."""
        sections = (
            [f"# {report.model} on {report.target}", "", *_verdict(report)],
            compare_rows(report.rows, report.verdict.shipped),
            _section("Exits", _exits(report.exits)),
            _section("Contract", (f"- {judgement(each)}" for each in report.verdict.judgements)),
            _section("Steps", (line for step in report.steps for line in _step(step))),
            _section("Candidates", _candidates(report.candidates)),
            _section("Race", table(RACE_HEADER, [entrant(each) for each in report.race]) if report.race else []),
            _section("Left out", (f"- {each}" for each in (*report.verdict.left_out, *report.skipped))),
            _section("Settings", (f"- {key}: {value}" for key, value in report.settings.items())),
            _section("Notes", (f"- {note}" for note in report.notes)),
        )
        return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def compare_rows(rows: Sequence[Row], shipped: str) -> list[str]:
    """The table original | candidate | ratio, and below it why a value is missing."""
    reasons: dict[str, int] = {}
    lines = table(("", "original", f"candidate: {shipped}", "ratio"), compared(rows, reasons))
    notes = [f"[{number}] {reason}" for reason, number in reasons.items()]
    return [*lines, *([""] if notes else []), *notes]


def _verdict(report: Report) -> Iterator[str]:
    verdict = report.verdict
    yield f"{verdict.status.capitalize()}: `{verdict.shipped}` ships ({report.device})."
    yield f"The test split was read for {verdict.test_reads} models, once each."
    if report.bundle:
        yield f"Bundle: {report.bundle}"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    """A heading and its lines; nothing when there are none."""
    found = list(lines)
    return [f"## {title}", "", *found] if found else []


def _step(step: Step) -> Iterator[str]:
    yield f"- {call(step)} ({step.plugin})"
    yield from (f"  - {note}" for note in step.notes)


def _exits(found: Exits | None) -> list[str]:
    if found is None:
        return []
    rows = table(EXIT_HEADER, [exit_row(each) for each in found.exits])
    return [*rows, "", exit_caption(found), *(f"- {note}" for note in found.notes)]


def _candidates(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    return table(CANDIDATE_HEADER, [candidate(each) for each in candidates]) if candidates else []


MARKDOWN = Markdown()


def edgewright_renderers() -> Iterable[Renderer]:
    """What this module offers."""
    return (MARKDOWN,)
