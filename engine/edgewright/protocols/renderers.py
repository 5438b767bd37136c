"""What turns reports into text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from edgewright.types import Report


@runtime_checkable
class Renderer(Protocol):
    """Turns a report into text. Offered with `edgewright_renderers`."""

    @property
    def name(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    def render(self, report: Report) -> str: ...


@runtime_checkable
class PageRenderer(Protocol):
    """A renderer that also sets several reports on one page, with pictures of examples. Offered as any other."""

    def render_page(self, reports: Sequence[Report], pictures: Sequence[Mapping[int, bytes]]) -> str:
        """`pictures` holds, for each report, the PNG of examples by id; a report may have none."""
        ...
