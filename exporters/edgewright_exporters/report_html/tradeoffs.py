"""The metric against latency over choices of thresholds, with the one that ships and the original beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.types import Exits, Report, Tradeoff
from edgewright_exporters.report_html.chart import chart
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, section

MOST = 120
"""More choices than this are thinned out, evenly over cost: a page is read by people."""


@dataclass(frozen=True)
class Point:
    """A cost in ms and the metric there."""

    cost: float
    metric: float


def tradeoffs(report: Report, place: Place) -> Html | None:
    """Chart and table; None for a model without gates."""
    if report.exits is None or not report.exits.tradeoffs:
        return None
    choices = thinned(report.exits.tradeoffs)
    about = "Thresholds were fitted where these points were counted; the original is the row of the table above."
    drawn = _chart(report.exits, choices, original_of(report), place)
    note = element("p", about, class_="footnote")
    return section(place, "tradeoffs-part", "Accuracy against latency", drawn, note)


def thinned(choices: Sequence[Tradeoff]) -> list[Tradeoff]:
    """By cost, at most `MOST` and the chosen one."""
    ranked = sorted(choices, key=lambda each: each.cost_ms)
    step = max(1, -(-len(ranked) // MOST))
    return [each for i, each in enumerate(ranked) if i % step == 0 or each.chosen]


def original_of(report: Report) -> Point | None:
    """The original's mean latency (else its median) and its metric; None where either is not known."""
    by_name = {row.quantity: row.original for row in report.rows}
    latency = by_name.get("latency mean", by_name.get("latency p50"))
    metric = next((row.original for row in report.rows if row.ratio and row.ratio.quantity == "change"), None)
    if latency is None or metric is None or latency.value is None or metric.value is None:
        return None
    return Point(latency.value, metric.value)


def _chart(exits: Exits, choices: Sequence[Tradeoff], original: Point | None, place: Place) -> Html:
    points = [{"ms": each.cost_ms, "metric": each.metric, "chosen": each.chosen} for each in choices]
    chosen = [Point(each.cost_ms, each.metric) for each in choices if each.chosen]
    return chart(
        place,
        "tradeoffs",
        f"{exits.metric} against mean latency",
        {"points": points, "original": original, "metric": exits.metric},
        describe=_describe(exits, chosen, original),
        table=_table(exits, choices),
    )


def _describe(exits: Exits, chosen: Sequence[Point], original: Point | None) -> str:
    told = [f"{len(exits.tradeoffs)} choices of thresholds."]
    told += [f"Chosen: {point.cost:.3g} ms at {point.metric:.2f} {exits.metric}." for point in chosen]
    told += [f"The original: {original.cost:.3g} ms at {original.metric:.2f}."] if original else []
    return " ".join(told)


def _table(exits: Exits, choices: Sequence[Tradeoff]) -> Html:
    chosen = next((i for i, each in enumerate(choices) if each.chosen), None)
    rows = [
        (
            ", ".join("-" if value is None else f"{value:.4g}" for value in each.thresholds)
            + " (chosen)" * each.chosen,
            f"{each.cost_ms:.3g} ms",
            f"{each.metric:.2f}",
        )
        for each in choices
    ]
    shown = f"{len(rows)} of {len(exits.tradeoffs)} choices of thresholds"
    return datatable(shown, ("thresholds", "mean latency", exits.metric), rows, marked=chosen)
