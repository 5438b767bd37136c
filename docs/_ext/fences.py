"""Says on the page which code blocks the tests do not run, and why: ```sh needs=device becomes a line above it."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

NEEDS = {
    "device": "a device",
    "files": "files of your own",
    "instrument": "an instrument in the supply",
    "time": "minutes to hours",
    "host": "what your host may lack, or the right to change it",
}
"""Why a block is not run by the tests, and how a page says it. Its commands are parsed all the same."""

_FENCE = re.compile(r"^```(?P<language>\w+) needs=(?P<reason>\w+)$", re.MULTILINE)


def _mark(app: Sphinx, docname: str, source: list[str]) -> None:
    def said(match: re.Match[str]) -> str:
        return f":::{{container}} not-run\nneeds {NEEDS[match['reason']]}\n:::\n\n```{match['language']}"

    source[0] = _FENCE.sub(said, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _mark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
