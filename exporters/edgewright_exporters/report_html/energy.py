"""Power over time as the meter told it, and which model ran meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgewright.types import Mark, Recording, Report, Trace
from edgewright_exporters.report_html.chart import chart
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, section

MOST_SAMPLES = 200
"""Of a rail; where it told more, neighbours are averaged."""

MOST_SPANS = 300
"""Where more turns were marked the picture shows none of them."""


@dataclass(frozen=True)
class Sample:
    """Watts at a time, in seconds from the first sample of all rails."""

    s: float
    watts: float


def energy(report: Report, place: Place) -> Html | None:
    """Chart and table of what the meter told; nothing where none was read."""
    recording = report.recording
    rails = {} if recording is None else {trace.rail: watts_of(trace) for trace in recording.traces}
    rails = {rail: samples for rail, samples in rails.items() if samples}
    if recording is None or not rails:
        return None
    start = min(samples[0][0] for samples in rails.values())
    drawn = {rail: _columns(thinned([Sample((ns - start) / 1e9, w) for ns, w in each])) for rail, each in rails.items()}
    spans = list(spans_of(recording.marks, start))
    data = {"rails": drawn, "spans": spans if len(spans) <= MOST_SPANS else []}
    table = _table(recording, rails)
    title = f"Power that {recording.meter} told, in W{' (simulated)' if recording.simulated else ''}"
    told = ", ".join(f"{rail} up to {max(watts for _, watts in each):.3g} W" for rail, each in rails.items())
    note = element("p", f"Reading it took {recording.cost:.1%} of one core.", class_="footnote")
    return section(
        place,
        "energy-part",
        "Power over time",
        chart(place, "energy", title, data, describe=told + ".", table=table),
        note,
    )


def _columns(samples: Sequence[Sample]) -> dict[str, list[float]]:
    return {"s": [each.s for each in samples], "watts": [each.watts for each in samples]}


def watts_of(trace: Trace) -> list[tuple[int, float]]:
    """(ns, W): readings of power, or what a counter rose by since the reading before."""
    if trace.kind != "counter":
        return [(ns, raw * trace.scale) for ns, raw in trace.samples]
    pairs = zip(trace.samples, trace.samples[1:])
    return [
        (end, _rise(trace, low, high) * trace.scale * 1e9 / (end - begin))
        for (begin, low), (end, high) in pairs
        if end > begin
    ]


def _rise(trace: Trace, low: float, high: float) -> float:
    return high - low + (trace.wrap or 0.0 if high < low else 0.0)


def thinned(samples: Sequence[Sample]) -> list[Sample]:
    """At most so many, each the mean of its neighbours."""
    step = max(1, math.ceil(len(samples) / MOST_SAMPLES))
    groups = [samples[i : i + step] for i in range(0, len(samples), step)]
    return [Sample(round(_mean(x.s for x in g), 4), float(f"{_mean(x.watts for x in g):.4g}")) for g in groups]


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def spans_of(marks: Sequence[Mark], start: int) -> Iterator[dict[str, float | str]]:
    """When which model ran, in seconds; turns of one model that follow each other are one."""
    ordered = sorted(marks, key=lambda mark: mark.begin_ns)
    begin = 0
    for i, mark in enumerate(ordered):
        if i + 1 == len(ordered) or ordered[i + 1].what != mark.what:
            first = ordered[begin]
            yield {
                "what": mark.what,
                "begin": round((first.begin_ns - start) / 1e9, 4),
                "end": round((mark.end_ns - start) / 1e9, 4),
            }
            begin = i + 1


def _table(recording: Recording, rails: dict[str, list[tuple[int, float]]]) -> Html:
    whats = list(dict.fromkeys(mark.what for mark in recording.marks))
    scopes = {trace.rail: trace.scope for trace in recording.traces}
    rows = [
        (rail, scopes[rail], str(len(each)), *(_during(each, recording.marks, what) for what in whats))
        for rail, each in rails.items()
    ]
    return datatable("Mean power of each rail", ("rail", "behind it", "samples", *whats), rows)


def _during(samples: Sequence[tuple[int, float]], marks: Sequence[Mark], what: str) -> str:
    own = [mark for mark in marks if mark.what == what]
    inside = [watts for ns, watts in samples if any(mark.begin_ns <= ns <= mark.end_ns for mark in own)]
    return f"{_mean(iter(inside)):.3g} W" if inside else "-"
