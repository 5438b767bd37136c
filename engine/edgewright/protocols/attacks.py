"""What crafts inputs that make a model with exits slow, and how such a model looks to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edgewright.types import Array, Arrays

if TYPE_CHECKING:
    import numpy as np


class Probe(Protocol):
    """A model with exits as an attack sees it: it can be asked, and nothing of its inside is known."""

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """The least and the greatest value of real data, by input."""
        ...

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of the gates in `scores`: a row leaves at the first whose score is at least its threshold."""
        ...

    @property
    def queries(self) -> int:
        """How often an attack may ask, for scores or depths."""
        ...

    def scores(self, inputs: Arrays) -> Array:
        """What each gate would decide by, float32 [gates, rows]; no gates where a graph decides inside."""
        ...

    def depths(self, inputs: Arrays) -> Array:
        """The number of the exit at which each row leaves, from 0, int64 [rows]."""
        ...


@runtime_checkable
class Attack(Protocol):
    """Crafts inputs that make a model with exits slow. Offered with `edgewright_attacks`."""

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str:
        """One line for `engine plugins` and `engine stress`."""
        ...

    def craft(self, probe: Probe, inputs: Arrays, rng: np.random.Generator) -> Arrays:
        """As many rows as the real `inputs` have, of the same types and shapes, within the limits of real data.

        Raises: RefusedError for inputs that it cannot work on.
        """
        ...
