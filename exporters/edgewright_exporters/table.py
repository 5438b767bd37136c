"""A Markdown table whose columns line up, so that it reads as well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of the table. The first column is set left, all others right; a `|` in a cell is escaped."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]
    ruler = [("-" * width) if i == 0 else ("-" * (width - 1) + ":") for i, width in enumerate(widths)]
    return [_line(row, widths) for row in (cells[0], ruler, *cells[1:])]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
    return f"| {' | '.join(padded)} |"
