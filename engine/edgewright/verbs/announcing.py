"""A comparison as machines that build and test software show it: a JUnit file, and Markdown for a step's summary."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as xml

from edgewright.errors import OutputError, RecipeError
from edgewright.reporting.tables import amount, describe_device
from edgewright.types import Measurement, Row
from edgewright.verbs.comparing import Comparison, name_of
from edgewright.verbs.judging import FAILED, HELD, UNDECIDED, Condition, change_text

GITHUB = "github"
GITHUB_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Where GitHub Actions says which file a step adds its summary to."""

HEADER = ("", "OLD", "NEW", "NEW against OLD")

MARKS = {FAILED: "❌", HELD: "✅", UNDECIDED: "⚠️"}

Announce = Callable[["tuple[str, str]", Comparison], None]


def announcer(junit: str | None, summary: str | None, conditions: Sequence[Condition]) -> Announce:
    """Writes the files that were asked for; what cannot work is refused before anything is measured.

    Raises: RecipeError.
    """
    if junit and not conditions:
        raise RecipeError("--junit writes a test case for each --fail-if, and there is none; give one")
    added_to = os.environ.get(GITHUB_SUMMARY) if summary == GITHUB else None
    if summary == GITHUB and not added_to:
        raise RecipeError(f"--summary github adds to ${GITHUB_SUMMARY}, which is not set here; give a file instead")

    def announce(sources: tuple[str, str], found: Comparison) -> None:
        if junit:
            _write(Path(junit), junit_text(sources, found), "w")
        if added_to:
            _write(Path(added_to), summary_text(sources, found), "a")
        elif summary:
            _write(Path(summary), summary_text(sources, found), "w")

    return announce


def verdict(found: Comparison, *, strict: bool) -> bool:
    """Whether the comparison fails; `strict` counts what is undecided as well."""
    return bool(found.failed) or (strict and bool(found.having(UNDECIDED)))


def cells(row: Row, found: Comparison) -> tuple[str, str, str, str]:
    """The cells under HEADER."""
    change = found.changes.get(name_of(row))
    return row.quantity, _value(row.original), _value(row.candidate), change_text(change) if change else ""


def junit_text(sources: tuple[str, str], found: Comparison) -> str:
    """One suite with a case per condition: failed, skipped where it is undecided, or passed."""
    counts = {"failures": len(found.failed), "skipped": len(found.having(UNDECIDED)), "errors": 0}
    told = {"name": f"engine compare {' '.join(sources)}", "tests": len(found.judged), **counts}
    suites = xml.Element("testsuites")
    suite = xml.SubElement(suites, "testsuite", {key: str(value) for key, value in told.items()})
    properties = xml.SubElement(suite, "properties")
    xml.SubElement(properties, "property", name="device", value=describe_device(found.device))
    for each in found.judged:
        case = xml.SubElement(suite, "testcase", classname="engine.compare", name=each.condition)
        if each.outcome == FAILED:
            xml.SubElement(case, "failure", message=each.sentence, type="regression")
        elif each.outcome == UNDECIDED:
            xml.SubElement(case, "skipped", message=f"undecided: {each.sentence}")
        xml.SubElement(case, "system-out").text = each.sentence
    xml.indent(suites)
    return xml.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def summary_text(sources: tuple[str, str], found: Comparison) -> str:
    """A heading, what came of each condition, the table, and where it was measured."""
    return "\n".join(_summary(sources, found)) + "\n"


def _summary(sources: tuple[str, str], found: Comparison) -> Iterator[str]:
    yield f"### `{sources[1]}` against `{sources[0]}`"
    yield ""
    yield from (
        f"- {MARKS[each.outcome]} {each.outcome}: `{each.condition}` ({each.sentence})" for each in found.judged
    )
    yield from ("",) if found.judged else ()
    yield _line(HEADER)
    yield _line(("---", "--:", "--:", "--:"))
    yield from (_line(cells(row, found)) for row in found.rows)
    yield ""
    yield f"Measured on {describe_device(found.device)}, in turns; 95 % intervals."
    yield from (f"- {note}" for note in found.notes)


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


def _value(measurement: Measurement) -> str:
    return "-" if measurement.value is None else amount(measurement.value, measurement.unit)


def _write(path: Path, text: str, mode: str) -> None:
    """Raises: OutputError."""
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; name another file") from error
