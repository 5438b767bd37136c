"""HTML as values: text is escaped when it goes in, so that no name in a report can become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Union


@dataclass(frozen=True)
class Html:
    """Finished markup."""

    text: str


Child = Union[Html, str, None]
"""Markup as it is, text to be escaped, or nothing."""

VOID = ("br", "img", "input", "meta")
"""Elements that hold nothing and have no end tag."""


@dataclass(frozen=True)
class Place:
    """Where in a page a report stands: what its ids begin with, and the level of its own heading."""

    prefix: str = "r1"
    level: int = 1

    def id(self, name: str) -> str:
        """An id that no other report of the page has."""
        return f"{self.prefix}-{name}"


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Html:
    """One element; attributes that are None are left out.

    Underscores stand for hyphens, and one at the end keeps Python's own words apart: `class_`, `text_anchor`.
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    said = "".join(f' {key}="{html.escape(str(value))}"' for key, value in given.items())
    inside = "" if name in VOID else f"{join(children).text}</{name}>"
    return Html(f"<{name}{said}>{inside}")


def join(children: Iterable[Child]) -> Html:
    """The children one after the other."""
    return Html("".join(_text(child) for child in children))


def section(place: Place, name: str, title: str, *children: Child) -> Html | None:
    """A part of a report under its own heading; None when there is nothing in it."""
    inside = join(children)
    if not inside.text:
        return None
    heading = element(f"h{place.level + 1}", title, id=place.id(name))
    return element("section", heading, inside, aria_labelledby=place.id(name))


def items(texts: Iterable[Child], class_: str | None = None) -> Html | None:
    """A list of points; None when there are none."""
    found = [element("li", text) for text in texts]
    return element("ul", *found, class_=class_) if found else None


def _text(child: Child) -> str:
    if child is None:
        return ""
    return child.text if isinstance(child, Html) else html.escape(child)
