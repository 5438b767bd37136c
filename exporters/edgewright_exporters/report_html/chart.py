"""A chart with its numbers behind it: a browser draws it from data that stand beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from edgewright.bundle import plain
from edgewright_exporters.report_html.datatable import folded
from edgewright_exporters.report_html.markup import Html, Place, element


def chart(place: Place, kind: str, title: str, data: Mapping[str, Any], *, describe: str, table: Html) -> Html:
    """A figure that `charts.js` draws by its kind.

    Args:
        place: Where in the page.
        kind: The function of `charts.js` that draws it.
        title: What stands above it.
        data: What that function takes.
        describe: What the picture shows, for those who do not see it.
        table: The same in numbers.
    """
    canvas = element("div", class_="canvas", role="img", aria_label=f"{title}. {describe}")
    return element(
        "figure",
        element("figcaption", title),
        canvas,
        element("script", Html(as_script(data)), type="application/json"),
        folded("The numbers", table),
        id=place.id(kind),
        class_="chart",
        data_kind=kind,
    )


def as_script(data: Any) -> str:
    """JSON that ends no script element, whatever names are in it; five digits are more than a picture shows."""
    text = json.dumps(_rounded(plain(data)), separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in cast("dict[str, Any]", value).items()}
    return [_rounded(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value
