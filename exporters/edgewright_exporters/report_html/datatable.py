"""A table of a report: the first column names the row, the others are figures; it scrolls where it does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright_exporters.report_html.markup import Child, Html, element


def datatable(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[Child]], *, marked: int | None = None
) -> Html:
    """`marked` is the number of a row to set apart; its own words must say why."""
    head = element("thead", element("tr", *(element("th", cell, scope="col") for cell in header)))
    body = element("tbody", *(_row(row, marked == i) for i, row in enumerate(rows)))
    scrolled = element(
        "div", element("table", head, body), class_="scroll", tabindex="0", role="region", aria_label=caption
    )
    # Not a <caption>: it would be as wide as the table, and out of sight on a phone.
    return element("figure", element("figcaption", caption), scrolled)


def folded(summary: str, table: Html) -> Html:
    """A table that is opened by those who want it."""
    return element("details", element("summary", summary), table)


def _row(cells: Sequence[Child], marked: bool) -> Html:
    name, *figures = cells
    inside = (element("th", name, scope="row"), *(element("td", cell) for cell in figures))
    return element("tr", *inside, class_="marked" if marked else None)
