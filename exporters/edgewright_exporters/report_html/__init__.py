"""The renderer `html`: one file that any browser shows without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgewright.protocols import Renderer
from edgewright.types import Report


class HtmlReport:
    """Verdict first, then figures, charts with their numbers, and how it came about."""

    name = "html"
    suffix = ".html"

    def render(self, report: Report) -> str:
        """The page of one report."""
        return self.render_page((report,), ({},))

    def render_page(self, reports: Sequence[Report], pictures: Sequence[Mapping[int, bytes]]) -> str:
        """One page of one report or several; `pictures` holds, for each, the PNG of examples by id."""
        from edgewright_exporters.report_html.page import page

        return page(reports, pictures)


HTML = HtmlReport()


def edgewright_renderers() -> Iterable[Renderer]:
    """What this module offers."""
    return (HTML,)
