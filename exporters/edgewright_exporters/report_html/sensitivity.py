"""What layers lose when each alone is made coarse, as the methods found it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgewright.types import Report, Step
from edgewright_exporters.report_html.chart import chart
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, join, section

MOST = 30


@dataclass(frozen=True)
class Ranking:
    """Layers with a value each, the most sensitive first; `what` says what the value is, and which end is worse."""

    step: str
    what: str
    layers: tuple[tuple[str, float], ...]


def sensitivity(report: Report, place: Place) -> Html | None:
    """A chart per ranking; a sentence where layers were quantised and no method had to rank them."""
    found = [ranking for step in report.steps for ranking in rankings(step)]
    if not found:
        return None
    drawn = [_drawn(each, Place(f"{place.id('sense')}{i}", place.level)) for i, each in enumerate(found)]
    return section(place, "sensitivity-part", "Sensitivity of layers", join(drawn))


def rankings(step: Step) -> Iterator[Ranking]:
    """What a step's details tell: of `quantize` decibels or divergences, of `mixed-bits` what bits add to the loss."""
    details = step.details
    if details.get("sensitivity"):
        yield Ranking(
            step.name, "signal to noise when it alone is int8, dB: less is worse", _pairs(details["sensitivity"])
        )
    if details.get("weights_alone"):
        for bits in sorted({entry[1] for entry in details["weights_alone"]}):
            own = [(entry[0], entry[2]) for entry in details["weights_alone"] if entry[1] == bits]
            yield Ranking(
                step.name, f"divergence of the outputs when it alone has {bits} bits: more is worse", _pairs(own)
            )
    if step.name == "mixed-bits" and details.get("layers"):
        yield from _mixed(step.name, details["layers"])


def _mixed(step: str, layers: Sequence[Mapping[str, Any]]) -> Iterator[Ranking]:
    """By the fewest bits that were tried."""
    losses = [(str(each["layer"]), dict(each["loss"])) for each in layers]
    fewest = min((int(bits) for _, loss in losses for bits in loss), default=None)
    if fewest is not None:
        pairs = [(name, loss[str(fewest)]) for name, loss in losses if str(fewest) in loss]
        yield Ranking(step, f"what {fewest} bits add to the divergence: more is worse", _pairs(pairs))


def _pairs(entries: Sequence[Sequence[Any]]) -> tuple[tuple[str, float], ...]:
    return tuple((str(entry[0]), float(entry[1])) for entry in entries)


def _drawn(ranking: Ranking, place: Place) -> Html:
    few = ranking.layers[:MOST]
    title = f"{ranking.step}: {ranking.what}"
    data = {"bars": [{"layer": name, "value": value} for name, value in few], "what": ranking.what}
    table = datatable(title, ("layer", "value"), [(name, f"{value:.4g}") for name, value in ranking.layers])
    told = f"Most sensitive: {few[0][0]}."
    drawn = chart(place, "sensitivity", title, data, describe=told, table=table)
    more = len(ranking.layers) - len(few)
    return join(
        (drawn, element("p", f"{more} less sensitive layers are in the table.", class_="footnote") if more else None)
    )
