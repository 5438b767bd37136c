"""The document around the reports: one file, with its style inside, that loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

from edgewright.types import Report
from edgewright_exporters.report_html.compared import compared
from edgewright_exporters.report_html.exits import exits
from edgewright_exporters.report_html.markup import Html, Place, element, join
from edgewright_exporters.report_html.several import overview
from edgewright_exporters.report_html.story import story
from edgewright_exporters.report_html.tradeoffs import tradeoffs
from edgewright_exporters.report_html.verdict import verdict

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A browser that opens the file fetches nothing, whatever a name in a report may contain."""


def page(reports: Sequence[Report], pictures: Sequence[Mapping[int, bytes]]) -> str:
    """One report, or several under a table of all; `pictures` holds the PNG of examples by id, for each report."""
    if len(reports) == 1:
        title = f"{reports[0].model} on {reports[0].target}"
        return _document(title, article(reports[0], pictures[0], Place()))
    places = [Place(f"r{i + 1}", level=2) for i in range(len(reports))]
    articles = [article(*each) for each in zip(reports, pictures, places)]
    return _document(f"{len(reports)} reports", join((overview(reports, places), *articles)))


def article(report: Report, pictures: Mapping[int, bytes], place: Place) -> Html:
    """One report: verdict, figures, how it came about."""
    return element(
        "article",
        verdict(report, place),
        compared(report, place),
        tradeoffs(report, place),
        exits(report.exits, pictures, place),
        story(report, place),
        aria_labelledby=place.id("top"),
    )


def _document(title: str, body: Html) -> str:
    style = files("edgewright_exporters.report_html").joinpath("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(style)),
    )
    return f"<!doctype html>\n{element('html', head, element('body', element('main', body)), lang='en').text}\n"
