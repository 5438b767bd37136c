"""The verdict in one sentence, and the bounds it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgewright.types import Report, Row
from edgewright_exporters.cells import judgement
from edgewright_exporters.figures import ratio
from edgewright_exporters.report_html.markup import Html, Place, element, items, section

MARKS = {"good": "✓", "bad": "✗", "guess": "≈"}
"""What stands before the sentence, so that colour is not the only sign."""

_BETTER = {"latency": ("faster", "slower"), "size": ("smaller", "larger")}


def tone(report: Report) -> str:
    """`good`, `bad`, or `guess` where the numbers are predictions."""
    if report.verdict.status.startswith("predicted"):
        return "guess"
    return "good" if report.verdict.status == "met" else "bad"


def sentence(report: Report) -> str:
    """`Met: quantize ships: 2.44x faster, top-1 accuracy -0.31 %, 3.55x smaller.`"""
    gains = ", ".join(_gains(report.rows))
    return f"{report.verdict.status.capitalize()}: {report.verdict.shipped} ships{': ' if gains else ''}{gains}."


def verdict(report: Report, place: Place) -> Html:
    """Title, verdict, where it was measured, and what each bound says."""
    bound = items(map(judgement, report.verdict.judgements))
    reads = f"The test split was read for {report.verdict.test_reads} models, once each."
    return element(
        "header",
        element(f"h{place.level}", f"{report.model} on {report.target}", id=place.id("top")),
        element("p", badge(report), sentence(report), class_=f"verdict {tone(report)}"),
        element("p", f"Device: {report.device}. {reads}"),
        element("p", f"Bundle: {report.bundle}") if report.bundle else None,
        section(place, "contract", "Contract", bound),
    )


def badge(report: Report) -> Html:
    """The mark of the verdict; the words beside it say the same."""
    return element("span", MARKS[tone(report)], class_="badge", aria_hidden="true")


def _gains(rows: tuple[Row, ...]) -> Iterator[str]:
    for row in rows:
        change = row.ratio
        if change is None or not change.value:
            continue
        words = _BETTER.get(row.quantity.split()[0])
        if change.quantity == "change":
            yield f"{row.quantity} {ratio(replace(change, interval=None))}"
        elif words:
            factor = max(change.value, 1 / change.value)
            guess = "" if change.kind == "measured" else f" ({change.kind})"
            yield f"{factor:.2f}x {words[change.value < 1]}{guess}"
