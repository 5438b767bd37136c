"""Original and candidate side by side, with the reason wherever a value is missing."""

from __future__ import annotations

from edgewright.types import Report
from edgewright_exporters import cells
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, section


def compared(report: Report, place: Place) -> Html | None:
    """The table, and its footnotes."""
    reasons: dict[str, int] = {}
    rows = cells.compared(report.rows, reasons)
    if not rows:
        return None
    header = ("quantity", "original", f"candidate: {report.verdict.shipped}", "ratio")
    notes = [element("p", f"[{number}] {reason}", class_="footnote") for reason, number in reasons.items()]
    return section(place, "compared", "Before and after", datatable("95 % intervals in brackets", header, rows), *notes)
