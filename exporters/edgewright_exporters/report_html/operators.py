"""What single nodes take, the original's beside those of what ships."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgewright.types import Closeup, Operator, Report
from edgewright_exporters.report_html.chart import chart
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, join, section

MOST = 24
"""The dearest nodes are shown one by one, the others together."""


@dataclass(frozen=True)
class Bar:
    """A node of the graph, the operator that does its work, and what it takes in each model, in microseconds."""

    name: str
    operator: str
    us: Mapping[str, float]


def operators(report: Report, place: Place) -> Html | None:
    """Chart and table of both models, and why a model has none; nothing where no model was looked at."""
    if not report.closeups:
        return None
    reasons = [
        element("p", f"{each.name}: {each.reason}", class_="footnote") for each in report.closeups if each.reason
    ]
    timed = [each for each in report.closeups if each.operators]
    return section(place, "operators-part", "Where the time goes", _drawn(timed, place) if timed else None, *reasons)


def bars(models: Sequence[Closeup]) -> list[Bar]:
    """A bar per node of the graph, the dearest first; nodes that a runtime added stand by their operator."""
    found: dict[str, Bar] = {}
    for model in models:
        for each in model.operators:
            name = each.kernel or f"{each.operator} (added)"
            bar = found.get(name, Bar(name, each.operator, {}))
            us = {**bar.us, model.name: bar.us.get(model.name, 0.0) + each.median_us}
            found[name] = Bar(name, _operator(bar, each), us)
    return sorted(found.values(), key=lambda bar: -max(bar.us.values()))


def _operator(bar: Bar, node: Operator) -> str:
    return bar.operator if node.operator in bar.operator.split(", ") else f"{bar.operator}, {node.operator}"


def shown(found: Sequence[Bar]) -> list[Bar]:
    """The dearest, and one bar for all others."""
    rest = found[MOST:]
    if not rest:
        return list(found)
    names = dict.fromkeys(name for bar in rest for name in bar.us)
    return [*found[:MOST], Bar(f"{len(rest)} others", "", {name: _sum(rest, name) for name in names})]


def _sum(found: Iterable[Bar], model: str) -> float:
    return sum(bar.us.get(model, 0.0) for bar in found)


def _drawn(models: Sequence[Closeup], place: Place) -> Html:
    names, every = [model.name for model in models], bars(models)
    few = shown(every)
    data = {
        "models": names,
        "bars": [{"node": bar.name, "model": name, "us": us} for bar in few for name, us in bar.us.items()],
    }
    dearest = [f"{name}: {_dearest(every, name)} takes most" for name in names]
    table = datatable(
        "Median of each node",
        ("node", "operator", *names),
        [(bar.name, bar.operator, *(_us(bar.us.get(name)) for name in names)) for bar in few]
        + [("all nodes", "", *(_us(_sum(every, name)) for name in names))],
    )
    title = "Time of each node, in µs"
    note = "Nodes are timed by the runtime's own profiler, which slows runs down: shares tell more than sums."
    drawn = chart(place, "operators", title, data, describe="; ".join(dearest) + ".", table=table)
    return join((drawn, element("p", note, class_="footnote")))


def _dearest(found: Sequence[Bar], model: str) -> str:
    return max(found, key=lambda bar: bar.us.get(model, 0.0)).name


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g} µs"
