"""The metric against latency over choices of thresholds, with the one that ships and the original beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.types import Exits, Report, Tradeoff
from edgewright_exporters.report_html.axes import WIDTH, Axis, axis_for, drawing, line, words
from edgewright_exporters.report_html.datatable import datatable, folded
from edgewright_exporters.report_html.markup import Html, Place, element, join, section

HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 290, 58, 18, 28, 48
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
    chart = _chart(report.exits, choices, original_of(report), place)
    note = element("p", about, class_="footnote")
    return section(
        place,
        "tradeoffs",
        "Accuracy against latency",
        chart,
        note,
        folded("The numbers", _table(report.exits, choices)),
    )


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
    points = [Point(each.cost_ms, each.metric) for each in choices]
    known = [*points, *([original] if original else [])]
    x = axis_for([point.cost for point in known], LEFT, WIDTH - RIGHT)
    y = axis_for([point.metric for point in known], HEIGHT - BOTTOM, TOP)
    chosen = [point for point, each in zip(points, choices) if each.chosen]
    shapes = (
        _frame(x, y, exits.metric),
        _course(points, x, y),
        *(element("circle", cx=x.at(p.cost), cy=y.at(p.metric), r=3, class_="point") for p in points),
        *(_named(point, x, y, "original", "reference") for point in [original] if point),
        *(_named(point, x, y, "chosen", "chosen") for point in chosen),
    )
    title = f"{exits.metric} against mean latency"
    return drawing(place, "tradeoffs-chart", HEIGHT, *shapes, title=title, describe=_describe(exits, chosen, original))


def _describe(exits: Exits, chosen: Sequence[Point], original: Point | None) -> str:
    told = [f"{len(exits.tradeoffs)} choices of thresholds."]
    told += [f"Chosen: {point.cost:.3g} ms at {point.metric:.2f} {exits.metric}." for point in chosen]
    told += [f"The original: {original.cost:.3g} ms at {original.metric:.2f}."] if original else []
    return " ".join(told)


def _frame(x: Axis, y: Axis, metric: str) -> Html:
    """Grid, tick labels and what the axes are."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    across = [line((LEFT, y.at(tick)), (right, y.at(tick)), "grid") for tick in y.ticks]
    beside = [words(LEFT - 6, y.at(tick) + 4, y.label(tick), "tick", "end") for tick in y.ticks]
    below = [words(x.at(tick), bottom + 18, x.label(tick), "tick", "middle") for tick in x.ticks]
    base = line((LEFT, bottom), (right, bottom), "axis")
    named = (
        words(4, 14, metric, "axis-name"),
        words((LEFT + right) / 2, HEIGHT - 8, "mean latency, ms", "axis-name", "middle"),
    )
    return join((*across, *beside, *below, base, *named))


def _course(points: Sequence[Point], x: Axis, y: Axis) -> Html | None:
    """A line through the points where none of them is a detour: the metric only rises, or only falls, with the cost."""
    metrics = [point.metric for point in points]
    if metrics not in (sorted(metrics), sorted(metrics, reverse=True)):
        return None
    path = " ".join(f"{x.at(point.cost)},{y.at(point.metric)}" for point in points)
    return element("polyline", points=path, class_="course")


def _named(point: Point, x: Axis, y: Axis, name: str, class_: str) -> Html:
    """A marker of its own shape with its name: a diamond above whose name stands, or a square above its own."""
    left, top = x.at(point.cost), y.at(point.metric)
    shape = "M0-8L8 0L0 8L-8 0Z" if class_ == "chosen" else "M-6-6H6V6H-6Z"
    anchor = "end" if left > WIDTH * 0.7 else "start" if left < WIDTH * 0.25 else "middle"
    text = words(left, top - 13 if class_ == "chosen" else top + 21, name, "name", anchor)
    return join((element("path", d=shape, transform=f"translate({left} {top})", class_=class_), text))


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
