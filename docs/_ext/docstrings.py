"""Docstrings of ours are Markdown in one respect: what is indented after an empty line is code."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def _literal(*event: Any) -> None:
    """Put `::` before indented paragraphs, as reStructuredText wants it. The event's last argument is the lines."""
    lines: list[str] = event[-1]
    found: list[str] = []
    for line in lines:
        begins = line.startswith("    ") and found and not found[-1]
        inside = next((each for each in reversed(found) if each and not each.startswith("    ")), "") == "::"
        found += ["::", "", line] if begins and not inside else [line]
    lines[:] = found


def _whole(app: Sphinx, what: str, *event: Any) -> None:
    """Keep napoleon from reading `The inputs: all but the recurrent ones` as a type and what it is of."""
    if what in ("attribute", "data", "property"):
        event[-1].insert(0, "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _whole, priority=100)
    app.connect("autodoc-process-docstring", _literal, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
