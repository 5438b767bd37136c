"""Where rows left: a bar per exit, what each exit costs and is worth, and the examples that left first and last."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from edgewright.types import Exit, Exits
from edgewright_exporters.cells import EXIT_HEADER, exit_caption, exit_row
from edgewright_exporters.report_html.axes import WIDTH, drawing, line, words
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, items, join, section

NAME, FIGURES, BAR = 104, 120, 30
"""What stands left of the bars, what is kept free right of them, and the height of one."""


def exits(found: Exits | None, pictures: Mapping[int, bytes], place: Place) -> Html | None:
    """Chart, table and examples; None for a model without gates."""
    if found is None or not found.exits:
        return None
    examples = (
        _examples("Left first", found.early, pictures),
        _examples("Left last", found.late, pictures),
    )
    return section(
        place, "exits", "Where rows leave", _chart(found, place), _table(found), *examples, items(found.notes)
    )


def _chart(found: Exits, place: Place) -> Html:
    longest = max(each.share for each in found.exits) or 1.0
    bars = [_bar(each, i * BAR, (WIDTH - NAME - FIGURES) * each.share / longest) for i, each in enumerate(found.exits)]
    height = BAR * len(bars) + 4
    told = ", ".join(f"{each.stage} {each.share:.1%}" for each in found.exits)
    axis = line((NAME, 0), (NAME, height), "axis")
    title = f"Share of rows that left at each exit ({found.split} split)"
    return drawing(place, "exits-chart", height, *bars, axis, title=title, describe=told)


def _bar(each: Exit, top: float, length: float) -> Html:
    name = each.stage if len(each.stage) <= 12 else each.stage[:11] + "…"
    cost = "" if each.cost_ms is None else f", {each.cost_ms:.3g} ms"
    bar = element("rect", x=NAME, y=top + 6, width=round(length, 1), height=BAR - 10, class_="bar")
    middle = top + BAR / 2 + 5
    share = words(NAME + round(length, 1) + 6, middle, f"{each.share:.1%}{cost}", "tick")
    return join((words(NAME - 8, middle, name, "tick", "end"), bar, share))


def _table(found: Exits) -> Html:
    return datatable(exit_caption(found), EXIT_HEADER, [exit_row(each) for each in found.exits])


def _examples(title: str, ids: Sequence[int], pictures: Mapping[int, bytes]) -> Html | None:
    """The pictures that there are; without any, the ids of the examples."""
    if not ids:
        return None
    shown = [_figure(id_, pictures[id_]) for id_ in ids if id_ in pictures]
    if not shown:
        return element("p", f"{title}: examples {', '.join(map(str, ids))}")
    return element("div", element("p", title), element("div", *shown, class_="pictures"))


def _figure(id_: int, png: bytes) -> Html:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    image = element("img", src=source, alt=f"example {id_}", width=72, height=72)
    return element("figure", image, element("figcaption", str(id_)))
