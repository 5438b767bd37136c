"""What the target's predictor says, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgewright.types import Measurement, Report
from edgewright_exporters.figures import figure, fitting_scale
from edgewright_exporters.report_html.chart import chart
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, section

STATISTIC = {"latency": "latency p50", "energy": "energy"}
"""The row of the report that a prediction speaks of."""


def prediction(report: Report, place: Place) -> Html | None:
    """Chart and table of latency, a line about energy; nothing without a prediction and a measurement of it."""
    pairs = [pair for pair in compared(report) if pair["quantity"] == "latency"]
    reasons = {each.reason for model in report.closeups for each in model.predicted if each.reason}
    notes = [element("p", f"Not predicted: {reason}", class_="footnote") for reason in sorted(reasons)]
    if not pairs:
        return None
    told = [
        f"{pair['model']}: {pair['predicted']:.3g} ms predicted, {pair['measured']:.3g} ms measured" for pair in pairs
    ]
    title = f"Latency as the profile {report.target} predicts it, with its 95 % interval, and as measured"
    drawn = chart(place, "prediction", title, {"pairs": pairs}, describe="; ".join(told) + ".", table=_table(report))
    return section(place, "prediction-part", "Predicted and measured", drawn, *notes)


def compared(report: Report) -> Iterator[Mapping[str, Any]]:
    """Every prediction of a quantity that was measured too."""
    for model in report.closeups:
        for told in model.predicted:
            seen = measured(report, model.name, told.quantity)
            if told.value is not None and seen is not None and seen.value is not None:
                low, high = told.interval or (told.value, told.value)
                yield {
                    "model": model.name, "quantity": told.quantity, "predicted": told.value, "low": low, "high": high,
                    "measured": seen.value, "unit": told.unit, "kind": seen.kind,
                }  # fmt: skip


def measured(report: Report, model: str, quantity: str) -> Measurement | None:
    """What was measured of the original, or of what ships; None where that was predicted too."""
    row = next((row for row in report.rows if row.quantity == STATISTIC.get(quantity)), None)
    if row is None:
        return None
    found = row.candidate if model == report.verdict.shipped else row.original
    return None if found.kind == "predicted" else found


def _table(report: Report) -> Html:
    rows = [
        (f"{pair['model']}, {pair['quantity']}", *_cells(pair), f"{pair['predicted'] / pair['measured'] - 1:+.0%}")
        for pair in compared(report)
    ]
    return datatable("Every prediction of what was measured too", ("model", "predicted", "measured", "off by"), rows)


def _cells(pair: Mapping[str, Any]) -> tuple[str, str]:
    scale = fitting_scale(pair["unit"], pair["measured"])
    told, seen = (Measurement(pair["quantity"], pair[how], pair["unit"]) for how in ("predicted", "measured"))
    low, high = (f"{end / scale.size:.3g}" for end in (pair["low"], pair["high"]))
    return f"{figure(told, scale)} [{low}, {high}]", figure(seen, scale)
