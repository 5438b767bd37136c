"""The code blocks of a page: fences with what stands behind their language, and indented blocks."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Block:
    """A code block: where it stands, its language (none if it is indented), the `key=value` behind that, its text."""

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{os.path.relpath(self.page, ROOT)}:{self.line}"

    def said(self, key: str) -> str:
        """The value of `key=value` behind the language; empty without it."""
        return next((word.partition("=")[2] for word in self.words if word.startswith(f"{key}=")), "")

    @property
    def file(self) -> str:
        """The name in a first line that is a comment of one word with an ending: the block is that file."""
        first = self.text.partition("\n")[0].removeprefix("# ")
        return first if self.text.startswith("# ") and " " not in first and "." in first else ""


def pages() -> list[Path]:
    """The front page and the site's, the tutorial first: the others work on what it has made."""
    written = [page for page in DOCS.rglob("*.md") if not {"examples", "targets"} & set(page.parent.parts)]
    return [DOCS / "tutorial.md", ROOT / "README.md", *sorted(set(written) - {DOCS / "tutorial.md"})]


def blocks_of(page: Path) -> list[Block]:
    """The blocks in their order; what a directive of the site is given is none."""
    found: list[Block] = []
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type not in ("fence", "code_block") or token.map is None or token.info.startswith("{"):
            continue
        language, *words = token.info.split() or [""]
        found.append(Block(page, token.map[0] + 1, language, tuple(words), token.content))
    return found


def commands_of(block: Block) -> Iterator[Sequence[str]]:
    """The arguments of each call of `engine` in a block, without variables before it, comments and redirections."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if "engine" not in line:
            continue
        words = shlex.split(line, comments=True)
        while words and "=" in words[0] and words[0].partition("=")[0].isupper():
            words = words[1:]
        if words and words[0] == "engine":
            yield [word for word in words[1:] if not word.startswith((">", "2>"))]


def inline_commands(page: Path) -> Iterator[str]:
    """What stands in sentences as `engine ...`."""
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        yield from (each.content for each in token.children or () if re.match(r"engine [a-z]", each.content))
