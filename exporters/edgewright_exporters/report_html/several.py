"""The table at the top of a page with several reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgewright.types import Report, Row
from edgewright_exporters.cells import pair
from edgewright_exporters.figures import ratio
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, join
from edgewright_exporters.report_html.verdict import badge, tone


def overview(reports: Sequence[Report], places: Sequence[Place]) -> Html:
    """One line per report, each leading to it."""
    header = ("report", "verdict", "latency", "speed-up", "metric", "change", "size")
    rows = [_line(report, place) for report, place in zip(reports, places)]
    return join((element("h1", f"{len(reports)} reports"), datatable("All reports", header, rows)))


def _line(report: Report, place: Place) -> tuple[Html | str, ...]:
    link = element("a", f"{report.model} on {report.target}", href=f"#{place.id('top')}")
    status = element("span", badge(report), report.verdict.status, class_=tone(report))
    compared = [row for row in report.rows if row.ratio]
    latency = next((row for row in compared if row.quantity.startswith("latency")), None)
    metric = next((row for row in compared if row.ratio and row.ratio.quantity == "change"), None)
    size = next((row for row in report.rows if row.quantity == "size"), None)
    return (
        link,
        status,
        *_figures(latency),
        *_figures(metric),
        _figures(size)[0],
    )


def _figures(row: Row | None) -> tuple[str, str]:
    """The candidate's value, and its ratio to the original's; the report itself has the interval."""
    if row is None:
        return "-", "-"
    return pair(row)[1], ratio(row.ratio and replace(row.ratio, interval=None))
