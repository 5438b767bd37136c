"""How much of the metric a stage may still lose: what is allowed, less what the stages before it have lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from edgewright.bench import Bench
from edgewright.stagewise.metric import judged, own_ways, seen
from edgewright.stagewise.rows import Piece
from edgewright.stagewise.ways import Way


@dataclass(frozen=True, eq=False)
class Share:
    """What a method may lose on a chain (its bench, and its stages before the method).

    Early stages come first because every row passes them; what they leave is there for the later ones. `asked` says
    that the method looks at data, and may ask how much it may lose: it is then measured.
    """

    bench: Bench
    pieces: Sequence[Piece]
    asked: bool

    def left(self, now: Sequence[Piece], position: int) -> float | None:
        """What the stage at `position` of the chain as it is `now` may lose, as a share; None when nothing binds."""
        drop = self.bench.recipe.bounds.max_drop
        if drop is None or not self.asked or self.bench.task.synthetic:
            return None if drop is None else drop.share
        before = self._metric(self._at_first, position)
        lost = before - self._metric(seen(now, self.bench, "selection"), position) if position else 0.0
        return max(self._allowed - max(lost, 0.0), 0.0)

    @cached_property
    def _at_first(self) -> list[Way]:
        return seen(self.pieces, self.bench, "selection")

    @cached_property
    def _allowed(self) -> float:
        """From the original on, as a share; where earlier methods have spent it, from the chain at hand on."""
        drop, bench = self.bench.recipe.bounds.max_drop, self.bench
        assert drop is not None
        original = self._goodness(bench.score(bench.outputs(bench.reference, "selection"), "selection"))
        spent = max(original - self._metric(self._at_first, len(self.pieces) - 1), 0.0)
        return drop.share - spent if spent <= drop.share else drop.share

    def _metric(self, ways: Sequence[Way], position: int) -> float:
        gates = sum(piece.stage.gate is not None for piece in self.pieces[:position])
        return self._goodness(judged(own_ways(ways, gates), self.bench))

    def _goodness(self, value: float) -> float:
        """As a share of the metric's full scale, more being better."""
        metric = self.bench.task.metric
        return (value if metric.direction == "higher" else -value) / metric.full_scale
