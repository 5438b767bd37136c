"""The document around the reports: one file with style and scripts inside, that loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from edgewright.types import Report
from edgewright_exporters.report_html.compared import compared
from edgewright_exporters.report_html.energy import energy
from edgewright_exporters.report_html.exits import exits
from edgewright_exporters.report_html.front import front
from edgewright_exporters.report_html.markup import Html, Place, element, join
from edgewright_exporters.report_html.operators import operators
from edgewright_exporters.report_html.prediction import prediction
from edgewright_exporters.report_html.roofline import roofline
from edgewright_exporters.report_html.sensitivity import sensitivity
from edgewright_exporters.report_html.several import overview
from edgewright_exporters.report_html.spread import spread
from edgewright_exporters.report_html.story import story
from edgewright_exporters.report_html.tradeoffs import tradeoffs
from edgewright_exporters.report_html.verdict import badge, tone, verdict

LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js")
OWN = ("charts.js", "overview.js")


def page(reports: Sequence[Report], pictures: Sequence[Mapping[int, bytes]]) -> str:
    """One report, or several under a table of all; `pictures` holds the PNG of examples by id, for each report."""
    if len(reports) == 1:
        title = f"{reports[0].model} on {reports[0].target}"
        return _document(title, article(reports[0], pictures[0], Place()))
    places = [Place(f"r{i + 1}", level=2) for i in range(len(reports))]
    articles = [_closed(*each) for each in zip(reports, pictures, places)]
    return _document(f"{len(reports)} reports", join((overview(reports, places), *articles)))


def article(report: Report, pictures: Mapping[int, bytes], place: Place) -> Html:
    """One report: verdict, figures, how it came about."""
    return element("article", verdict(report, place), _body(report, pictures, place), aria_labelledby=place.id("top"))


def _closed(report: Report, pictures: Mapping[int, bytes], place: Place) -> Html:
    """One of several reports: its title, opened by those who want it."""
    name = f"{report.model} on {report.target}"
    summary = element("summary", badge(report), name, class_=tone(report))
    inside = element("details", summary, article(report, pictures, place), class_="report")
    return element("div", inside, data_report=place.prefix)


def _body(report: Report, pictures: Mapping[int, bytes], place: Place) -> Html:
    parts = (
        compared(report, place),
        front(report, place),
        tradeoffs(report, place),
        exits(report.exits, pictures, place),
        spread(report, place),
        operators(report, place),
        roofline(report, place),
        energy(report, place),
        sensitivity(report, place),
        prediction(report, place),
        story(report, place),
    )
    return join(parts)


def _document(title: str, body: Html) -> str:
    scripts = [_script(names) for names in (LIBRARIES, OWN)]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(_text("style.css"))),
    )
    told = element(
        "noscript", element("p", "Charts need a browser that runs scripts; their numbers are in the tables.")
    )
    inside = (element("main", told, body), *(element("script", Html(script)) for script in scripts))
    return f"<!doctype html>\n{element('html', head, element('body', *inside), lang='en').text}\n"


def _policy(scripts: Sequence[str]) -> str:
    """A browser that opens the file fetches nothing and runs these scripts alone, whatever a name may contain."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"


@cache
def _script(names: Sequence[str]) -> str:
    """Files one after the other; the libraries behind their licences."""
    texts = [_text(name) for name in names]
    return "\n".join((f"/*\n{_text('vendor/LICENSES.txt')}*/", *texts) if names == LIBRARIES else texts)


@cache
def _text(name: str) -> str:
    return files("edgewright_exporters.report_html").joinpath(name).read_text(encoding="utf-8")
