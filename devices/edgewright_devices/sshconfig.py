"""The hosts that an OpenSSH client configuration names."""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

DEPTH = 16
"""How deep files include one another, as in OpenSSH."""


def hosts(config: Path) -> tuple[str, ...]:
    """The names that `Host` lines give, those of included files too; patterns name none. Empty where no file is."""
    return tuple(dict.fromkeys(_named(config, config.parent, DEPTH)))


def _named(config: Path, home: Path, depth: int) -> Iterator[str]:
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        keyword, words = _parsed(line)
        if keyword == "host":
            yield from (word for word in words if not re.search(r"[*?!]", word))
        elif keyword == "include" and depth:
            for pattern in words:
                for path in sorted(glob.glob(str(home / Path(pattern).expanduser()))):
                    yield from _named(Path(path), home, depth - 1)


def _parsed(line: str) -> tuple[str, list[str]]:
    """The keyword in small letters and its arguments; `Key Value` and `Key=Value` mean the same."""
    match = re.match(r"\s*([A-Za-z]+)(?:\s*=\s*|\s+)(.*)", line)
    if not match:
        return "", []
    try:
        return match.group(1).lower(), shlex.split(match.group(2), comments=True)
    except ValueError:
        return "", []
