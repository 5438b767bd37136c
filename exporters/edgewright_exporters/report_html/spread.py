"""How long runs took: the share of runs that were over after so many milliseconds."""

from __future__ import annotations

from edgewright.types import Closeup, Report
from edgewright_exporters.report_html.chart import chart
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, section

SHOWN = (0, 5, 25, 50, 75, 90, 95, 99, 100)
"""Hundredths in the table. The last one is the slowest run."""


def spread(report: Report, place: Place) -> Html | None:
    """Chart and table; nothing where no run was timed."""
    found = [each for each in report.closeups if each.spread]
    if not found:
        return None
    series = [{"name": each.name, "ms": each.spread.ms} for each in found if each.spread]
    told = [f"{each.name}: half of the runs took {each.spread.ms[50]:.3g} ms or less" for each in found if each.spread]
    title = "Share of runs that took so long or less"
    drawn = chart(place, "spread", title, {"series": series}, describe="; ".join(told) + ".", table=_table(found))
    return section(place, "runs", "How runs differ", drawn)


def _table(found: list[Closeup]) -> Html:
    header = ("share of runs", *(f"{each.name} (n={each.spread.n})" for each in found if each.spread))
    rows = [(_name(at), *(f"{each.spread.ms[at]:.4g} ms" for each in found if each.spread)) for at in SHOWN]
    return datatable("What so many runs took or less", header, rows)


def _name(hundredth: int) -> str:
    return {0: "the quickest", 100: "all"}.get(hundredth, f"{hundredth} %")
