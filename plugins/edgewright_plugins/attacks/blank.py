"""The attack `blank`: the same value everywhere, as from a covered lens or a sensor that has come loose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewright.protocols import Probe
from edgewright.types import Array, Arrays
from edgewright_plugins.attacks.ball import each_float


@dataclass(frozen=True)
class Blank:
    """All `zeros` (or what of real data is nearest to it), or the `mean` of the real inputs."""

    fill: str

    @property
    def name(self) -> str:
        """`blank-zeros` or `blank-mean`."""
        return f"blank-{self.fill}"

    @property
    def summary(self) -> str:
        """One line."""
        return f"every value {'0' if self.fill == 'zeros' else 'the mean of real inputs'}, as when a lens is covered"

    def craft(self, probe: Probe, inputs: Arrays, rng: np.random.Generator) -> Arrays:
        """Every row is the same. Raises: RefusedError without an input of floats."""

        def filled(key: str, array: Array) -> Array:
            return np.full_like(array, np.clip(0 if self.fill == "zeros" else array.mean(), *probe.limits[key]))

        return each_float(inputs, filled, self.name)
