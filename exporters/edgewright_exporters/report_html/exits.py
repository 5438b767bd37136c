"""Where rows left: a bar per exit, what each exit costs and is worth, and the examples that left first and last."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from edgewright.types import Exits
from edgewright_exporters.cells import EXIT_HEADER, exit_caption, exit_row
from edgewright_exporters.report_html.chart import chart
from edgewright_exporters.report_html.datatable import datatable
from edgewright_exporters.report_html.markup import Html, Place, element, items, section


def exits(found: Exits | None, pictures: Mapping[int, bytes], place: Place) -> Html | None:
    """Chart, table and examples; None for a model without gates."""
    if found is None or not found.exits:
        return None
    examples = (
        _examples("Left first", found.early, pictures),
        _examples("Left last", found.late, pictures),
    )
    return section(place, "exits-part", "Where rows leave", _chart(found, place), *examples, items(found.notes))


def _chart(found: Exits, place: Place) -> Html:
    data = {"bars": [{"exit": each.stage, "share": each.share, "ms": each.cost_ms} for each in found.exits]}
    told = ", ".join(f"{each.stage} {each.share:.1%}" for each in found.exits)
    title = f"Share of rows that left at each exit ({found.split} split)"
    table = datatable(exit_caption(found), EXIT_HEADER, [exit_row(each) for each in found.exits])
    return chart(place, "exits", title, data, describe=told + ".", table=table)


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
