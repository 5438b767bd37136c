"""Timed runs of one bundle, each with its own input and its own limit, and how far each went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from time import perf_counter_ns
from typing import TYPE_CHECKING, Optional

from edgewright.types import Arrays

if TYPE_CHECKING:
    from edgewright_runtime.loaded import Loaded


class Runs:
    """Makes runs one by one; of a bundle whose runs end at different places it notes where they did."""

    def __init__(
        self,
        loaded: Loaded,
        feeds: Iterator[Arrays],
        deadline_ms: Optional[float] = None,
        through: Sequence[Optional[int]] = (None,),
    ) -> None:
        """`feeds` are taken one per run; `through` are the last stages to run, one per run and then from the start."""
        self._loaded = loaded
        self._feeds = feeds
        self._deadline_ms = deadline_ms
        self._through = cycle(through)
        self.depths: list[int] = []
        """The last stage that ran (or the latest exit, where the graph decides inside), per run."""
        self.stages_ns: list[list[int]] = []
        """What each stage that ran took, per run."""

    def once(self) -> int:
        """One run; the nanoseconds it took."""
        feeds, through = next(self._feeds), next(self._through)
        start = perf_counter_ns()
        result = self._loaded.run(feeds, deadline_ms=self._deadline_ms, through=through)
        taken = perf_counter_ns() - start
        if self._loaded.dynamic:
            self.depths.append(max(result.exits))
            self.stages_ns.append([round(ms * 1e6) for ms in result.stages_ms])
        return taken
