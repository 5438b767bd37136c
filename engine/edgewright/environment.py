"""What every command works with: the plugins, the cache, and a way to tell how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgewright.registry import Registry
from edgewright.store import Store

Progress = Callable[[str, int, int], None]
"""(message, done, total); a total of 0 means it is not known."""


@dataclass(frozen=True, eq=False)
class Environment:
    """Made once by the command line, passed to everything that works."""

    registry: Registry
    store: Store
    progress: Progress
