"""Operations per second over operations per byte, under what the target's profile says is possible.

Williams, Waterman and Patterson, Roofline: an insightful visual performance model (CACM 52, 2009).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgewright.types import Closeup, KernelCost, Report
from edgewright_exporters.report_html.chart import chart
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, join, section

MOST = 16
"""Kernels with the most operations, of each model."""


@dataclass(frozen=True)
class Point:
    """A kernel of a model: operations per byte, and what it reached, in Gop/s."""

    model: str
    kernel: str
    dtype: str
    intensity: float
    gops: float
    roof: float
    how: str


def roofline(report: Report, place: Place) -> Html | None:
    """Chart and table; nothing where no predictor counted operations, or the profile knows no peak."""
    found = [point for model in report.closeups for point in points(model)]
    roofs = sorted({roof for model in report.closeups for roof in _roofs(model)})
    if not found or not roofs:
        return None
    data = {
        "models": list(dict.fromkeys(point.model for point in found)),
        "points": [{key: value for key, value in vars(p).items() if key not in ("dtype", "roof")} for p in found],
        "roofs": [{"dtype": dtype, "gops": gops, "gbs": gbs} for dtype, gops, gbs in roofs],
    }
    told = [f"{dtype}: {gops:.4g} Gop/s at most, {gbs:.4g} GB/s" for dtype, gops, gbs in roofs]
    header = ("kernel", "model", "type", "op per byte", "Gop/s", "of the roof", "time is")
    rows = [
        (p.kernel, p.model, p.dtype, f"{p.intensity:.3g}", f"{p.gops:.3g}", f"{p.gops / p.roof:.0%}", p.how)
        for p in found
    ]
    table = datatable("Kernels with the most operations", header, rows)
    title = f"Kernels under the roofs of the profile {report.target}"
    drawn = chart(place, "roofline", title, data, describe="; ".join(told) + ".", table=table)
    note = (
        "A multiply-add is two operations; bytes are what moves when no cache holds anything. A kernel above a roof "
        "found its data in a cache, or the profile's figures are too low for this device."
    )
    return section(place, "roofline-part", "Roofline", join((drawn, element("p", note, class_="footnote"))))


def points(model: Closeup) -> list[Point]:
    """The kernels that compute, each at the time that was measured for it, else at the predicted one."""
    measured = {node.kernel: node.median_us / 1e3 for node in model.operators if node.kernel}
    known = [k for k in model.kernels if k.ops and k.bytes and k.peak_gops and k.bandwidth_gbs]
    ranked = sorted(known, key=lambda kernel: -kernel.ops)[:MOST]
    return [point for kernel in ranked for point in _point(model.name, kernel, measured.get(kernel.name))]


def _point(model: str, kernel: KernelCost, measured_ms: float | None) -> Iterator[Point]:
    ms = measured_ms or kernel.latency_ms
    if ms > 0:
        intensity = kernel.ops / kernel.bytes
        roof = min(kernel.peak_gops, intensity * kernel.bandwidth_gbs)
        how = "measured" if measured_ms else "predicted"
        yield Point(model, kernel.name, kernel.dtype, intensity, kernel.ops / ms / 1e6, roof, how)


def _roofs(model: Closeup) -> Sequence[tuple[str, float, float]]:
    return [(k.dtype, k.peak_gops, k.bandwidth_gbs) for k in model.kernels if k.ops and k.peak_gops and k.bandwidth_gbs]
