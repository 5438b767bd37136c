"""The candidates: speed-up against metric, and which of them no other one beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.types import Report
from edgewright_exporters.report_html.chart import chart
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, section


@dataclass(frozen=True)
class Choice:
    """A candidate; `low` and `high` are the ends of the speed-up's interval."""

    name: str
    speedup: float
    low: float
    high: float
    metric: float
    ships: bool
    front: bool = False


def front(report: Report, place: Place) -> Html | None:
    """Chart and table; nothing where fewer than two candidates were read on the test split."""
    found = choices(report)
    if len(found) < 2:
        return None
    metric = next(c["metric"] for c in report.candidates if c.get("metric"))
    name = f"{metric['quantity']}, {metric['unit']}".rstrip(", ")
    best = [each for each in found if each.front]
    told = f"Not beaten in both: {', '.join(each.name for each in best)}. Ships: {report.verdict.shipped}."
    header = ("candidate", "speed-up", name, "on the front")
    rows = [
        (c.name + " (ships)" * c.ships, f"{c.speedup:.2f}x", f"{c.metric:.2f}", "yes" if c.front else "no")
        for c in found
    ]
    marked = next((i for i, each in enumerate(found) if each.ships), None)
    table = datatable("Candidates read on the test split", header, rows, marked=marked)
    title = f"{metric['quantity']} against speed-up over the original"
    drawn = chart(place, "front", title, {"choices": found, "metric": name}, describe=told, table=table)
    return section(place, "front-part", "Pareto front", drawn)


def choices(report: Report) -> list[Choice]:
    """The candidates of which speed-up and metric are known, the quickest last."""
    found: list[Choice] = []
    for each in report.candidates:
        speed, metric = each.get("speedup"), each.get("metric")
        if speed and metric and speed["value"] and metric["value"] is not None:
            low, high = speed["interval"] or (speed["value"], speed["value"])
            ships = each["name"] == report.verdict.shipped
            found.append(Choice(each["name"], speed["value"], low, high, metric["value"], ships))
    lower_is_better = _lower_is_better(report)
    return sorted((_placed(each, found, lower_is_better) for each in found), key=lambda each: each.speedup)


def _placed(one: Choice, all_: Sequence[Choice], lower_is_better: bool) -> Choice:
    sign = -1 if lower_is_better else 1

    def beats(other: Choice) -> bool:
        gains = (other.speedup - one.speedup, sign * (other.metric - one.metric))
        return min(gains) >= 0 and max(gains) > 0

    return Choice(one.name, one.speedup, one.low, one.high, one.metric, one.ships, not any(map(beats, all_)))


def _lower_is_better(report: Report) -> bool:
    """Whether the metric's change and its difference differ in sign: a change is negative when something is lost."""
    for row in report.rows:
        change, old, new = row.ratio, row.original.value, row.candidate.value
        if change and change.quantity == "change" and change.value and old is not None and new is not None:
            return (new - old) * change.value < 0
    return False
