"""How the result came about: steps, candidates, what was left out and why, and the command that does it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from edgewright.types import Report, Step
from edgewright_exporters.cells import CANDIDATE_HEADER, RACE_HEADER, call, candidate, entrant
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, items, join, section

_OPTIONS = (
    ("target", "--target"),
    ("exporters", "--exporter"),
    ("runtimes", "--runtime"),
    ("threads", "--threads"),
    ("batch", "--batch"),
    ("preset", "--preset"),
    ("seed", "--seed"),
)


def story(report: Report, place: Place) -> Html:
    """The sections that follow the figures."""
    left_out = (*report.verdict.left_out, *report.skipped)
    return join(
        (
            section(place, "left-out", "Left out, and why", items(left_out)),
            section(place, "steps", "Steps", items(map(_step, report.steps))),
            section(place, "candidates", "Candidates", _candidates(report)),
            section(place, "race", "Race", _race(report)),
            section(place, "notes", "Notes", items(report.notes)),
            section(place, "again", "How to reproduce", *_again(report)),
        )
    )


def _race(report: Report) -> Html:
    """Every way to run each candidate; nothing where costs were predicted."""
    if not report.race:
        return join(())
    header = ("candidate", *RACE_HEADER[1:-1], "outcome")
    return datatable("against the original as it usually runs", header, [entrant(each) for each in report.race])


def command(settings: Mapping[str, Any]) -> str:
    """The command line that these settings stand for; empty when they name no model and target."""
    if not {"model", "target"} <= set(settings):
        return ""
    words = ["engine", "deploy", str(settings["model"])]
    if not str(settings.get("task", "none")).startswith("none"):
        words += ["--task", str(settings["task"])]
    for method in str(settings.get("methods", "none")).split():
        words += [] if method == "none" else ["--apply", method]
    for key, option in _OPTIONS:
        words += [option, str(settings[key]).replace(" ", "")] if key in settings else []
    return shlex.join([*words, *_bounds(str(settings.get("contract", "")))])


def _bounds(contract: str) -> Iterator[str]:
    """`max-drop 1%, max-latency 10 ms (p99)` as options."""
    for bound in filter(None, contract.split(", ")):
        found = re.fullmatch(r"((?:max|min)-\w+) (\S+)(?: (\w+))?(?: \((\w+)\))?", bound)
        if found:
            name, value, unit, statistic = found.groups(default="")
            yield from (f"--{name}", f"{value}{unit}" + (f":{statistic}" if statistic else ""))


def _step(step: Step) -> Html:
    declined = " declined: it found the model better off as it was" if step.declined else ""
    return join((element("strong", call(step)), f" ({step.plugin}){declined}", items(step.notes)))


def _candidates(report: Report) -> Html | None:
    if not report.candidates:
        return None
    rows = [candidate(each) for each in report.candidates]
    names = [row[0] for row in rows]
    shipped = names.index(report.verdict.shipped) if report.verdict.shipped in names else None
    rows = [(f"{row[0]} (ships)" if i == shipped else row[0], *row[1:]) for i, row in enumerate(rows)]
    return datatable("Beside the original", ("candidate", *CANDIDATE_HEADER[1:]), rows, marked=shipped)


def _again(report: Report) -> Iterator[Html | None]:
    lines = [command(report.settings)]
    lines += [f"engine verify {shlex.quote(report.bundle)}"] if report.bundle else []
    text = "\n".join(filter(None, lines))
    if text:
        yield element("pre", element("code", text))
    if report.settings:
        terms = ((element("dt", key), element("dd", str(value))) for key, value in report.settings.items())
        yield element("dl", *(each for pair in terms for each in pair))
