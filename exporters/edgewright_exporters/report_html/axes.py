"""What every chart needs: a linear axis with round ticks, and an SVG that says in words what it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgewright_exporters.report_html.markup import Child, Html, Place, element

WIDTH = 440
"""Of every chart, in its own units: letters of 13 units stay readable where this is scaled to a phone."""


@dataclass(frozen=True)
class Axis:
    """Maps values from `ticks[0]` to `ticks[-1]` onto the drawing, from `start` to `end`."""

    ticks: tuple[float, ...]
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where `value` lies in the drawing, to a tenth."""
        low, high = self.ticks[0], self.ticks[-1]
        return round(self.start + (self.end - self.start) * (value - low) / (high - low), 1)

    def label(self, tick: float) -> str:
        """The tick with as many decimals as tell it from the next."""
        decimals = max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))
        return f"{tick:.{decimals}f}"


def axis_for(values: Sequence[float], start: float, end: float, *, about: int = 5) -> Axis:
    """An axis that covers all values (one at least, finite), with about so many intervals of 1, 2 or 5 times 10^k."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if high else (0.0, 1.0)
    step = _round_step((high - low) / about)
    first, last = math.floor(low / step), math.ceil(high / step)
    return Axis(tuple(i * step for i in range(first, last + 1)), start, end)


def drawing(place: Place, name: str, height: float, *shapes: Child, title: str, describe: str) -> Html:
    """An SVG whose title and description stand for it where it cannot be seen."""
    title_id, text_id = place.id(f"{name}-title"), place.id(f"{name}-desc")
    told = (element("title", title, id=title_id), element("desc", describe, id=text_id))
    labelled = f"{title_id} {text_id}"
    return element("svg", *told, *shapes, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_labelledby=labelled)


def words(x: float, y: float, text: str, class_: str | None = None, anchor: str | None = None) -> Html:
    """Text in a drawing; `anchor` is start (without), middle or end."""
    return element("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def line(start: tuple[float, float], end: tuple[float, float], class_: str) -> Html:
    """A straight line between two points (x, y)."""
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
