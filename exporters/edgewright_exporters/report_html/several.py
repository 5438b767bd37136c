"""The top of a page with several reports: a table to filter, a choice to compare, and all of them in one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from edgewright.types import Report, Row
from edgewright_exporters.cells import compared as compared_cells
from edgewright_exporters.cells import pair
from edgewright_exporters.figures import ratio
from edgewright_exporters.report_html.chart import as_script, chart
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, join
from edgewright_exporters.report_html.prediction import compared as predictions
from edgewright_exporters.report_html.verdict import badge, tone

HEADER = ("report", "compare", "verdict", "latency", "speed-up", "metric", "change", "size", "energy")


def overview(reports: Sequence[Report], places: Sequence[Place]) -> Html:
    """Filter, table, comparison and pictures of all reports."""
    rows = [_line(report, place) for report, place in zip(reports, places)]
    table = datatable("All reports; a name leads to its report", HEADER, rows)
    return join(
        (
            element("h1", f"{len(reports)} reports"),
            _filter(reports),
            element("div", table, id="overview"),
            element("p", f"{len(reports)} of {len(reports)} reports are shown.", id="shown", role="status"),
            element("section", element("h2", "Side by side", id="chosen-title"), element("div", id="chosen"),
                    aria_labelledby="chosen-title", id="comparison", hidden=""),
            _gains(reports, places),
            _predicted(reports, places),
            element("script", Html(as_script(list(_facts(reports, places)))), type="application/json", id="reports"),
        )
    )  # fmt: skip


def _filter(reports: Sequence[Report]) -> Html:
    """Controls that work with the script alone, so that is what shows them."""
    targets = sorted({report.target for report in reports})
    statuses = sorted({report.verdict.status for report in reports})
    return element(
        "form",
        element("label", "Name has ", element("input", type="search", name="text", autocomplete="off")),
        element("label", "Target ", _choice("target", targets)),
        element("label", "Verdict ", _choice("status", statuses)),
        role="search", aria_label="Filter reports", id="filter", hidden="",
    )  # fmt: skip


def _choice(name: str, values: Sequence[str]) -> Html:
    options = (element("option", value, value=value) for value in values)
    return element("select", element("option", "any", value=""), *options, name=name)


def _line(report: Report, place: Place) -> tuple[Html | str, ...]:
    name = f"{report.model} on {report.target}"
    link = element("a", name, href=f"#{place.id('top')}")
    box = element("input", type="checkbox", value=place.prefix, aria_label=f"compare {name}", disabled="")
    status = element("span", badge(report), report.verdict.status, class_=tone(report))
    latency, metric = _gained(report, "latency"), _metric(report)
    size, energy = (next((r for r in report.rows if r.quantity == name), None) for name in ("size", "energy"))
    return (link, box, status, *_figures(latency), *_figures(metric), _figures(size)[0], _figures(energy)[0])


def _gained(report: Report, quantity: str) -> Row | None:
    return next((row for row in report.rows if row.ratio and row.quantity.startswith(quantity)), None)


def _metric(report: Report) -> Row | None:
    return next((row for row in report.rows if row.ratio and row.ratio.quantity == "change"), None)


def _figures(row: Row | None) -> tuple[str, str]:
    """The candidate's value, and its ratio to the original's; the report itself has the interval."""
    if row is None:
        return "-", "-"
    return pair(row)[1], ratio(row.ratio and replace(row.ratio, interval=None))


def _facts(reports: Sequence[Report], places: Sequence[Place]) -> Iterator[dict[str, Any]]:
    """What the script filters and compares by: per report its name, target, verdict, and a line per quantity."""
    for report, place in zip(reports, places):
        rows = {cells[0].split(" (n=")[0]: [*map(_bare, cells[2:])] for cells in compared_cells(report.rows, {})}
        yield {
            "id": place.prefix, "model": report.model, "target": report.target, "status": report.verdict.status,
            "ships": report.verdict.shipped, "device": report.device, "rows": rows,
        }  # fmt: skip


def _bare(cell: str) -> str:
    """Without the number of a footnote that stands elsewhere."""
    return "-" if cell.startswith("- [") else cell


def _gains(reports: Sequence[Report], places: Sequence[Place]) -> Html | None:
    """Speed-up against the change of the metric, a point per report."""
    points: list[dict[str, Any]] = [
        {"id": place.prefix, "name": f"{report.model} on {report.target}", "target": report.target,
         "speedup": latency.ratio.value, "change": metric.ratio.value, "unit": metric.ratio.unit}
        for report, place in zip(reports, places)
        for latency, metric in [(_gained(report, "latency"), _metric(report))]
        if latency and latency.ratio and latency.ratio.value and metric and metric.ratio
        and metric.ratio.value is not None
    ]  # fmt: skip
    if len(points) < 2:
        return None
    rows = [(each["name"], f"{each['speedup']:.2f}x", f"{each['change']:+.2f} {each['unit']}") for each in points]
    table = datatable("Gains", ("report", "speed-up", "change of the metric"), rows)
    best = max(points, key=lambda each: each["speedup"])
    told = f"The largest speed-up is {best['speedup']:.2f}x, of {best['name']}."
    title = "Change of the metric against speed-up, a point per report"
    return chart(Place("all"), "gains", title, {"points": points}, describe=told, table=table)


def _predicted(reports: Sequence[Report], places: Sequence[Place]) -> Html | None:
    """Predicted against measured latency of every report's models, per device."""
    points: list[dict[str, Any]] = [
        {**each, "id": place.prefix, "target": report.target, "name": f"{report.model} on {report.target}"}
        for report, place in zip(reports, places)
        for each in predictions(report)
        if each["quantity"] == "latency"
    ]
    if len(points) < 2:
        return None
    rows = [
        (f"{p['name']}, {p['model']}", f"{p['predicted']:.3g} ms", f"{p['measured']:.3g} ms",
         f"{p['predicted'] / p['measured'] - 1:+.0%}")
        for p in points
    ]  # fmt: skip
    table = datatable("Latency", ("model", "predicted", "measured", "off by"), rows)
    off = sorted(abs(p["predicted"] / p["measured"] - 1) for p in points)
    told = f"Half of {len(points)} predictions are off by {off[len(off) // 2]:.0%} or less."
    return chart(Place("all"), "predictions", "Predicted against measured latency, per target", {"points": points},
                 describe=told, table=table)  # fmt: skip
