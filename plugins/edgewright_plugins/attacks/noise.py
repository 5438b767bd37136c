"""The attacks without aim: noise in place of the input, and a little noise on it, against which aim is judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewright.protocols import Probe
from edgewright.types import Array, Arrays
from edgewright_plugins.attacks.ball import EPS, each_float, moved, signs


@dataclass(frozen=True)
class Gaussian:
    """Noise with the mean and deviation of the real inputs, within their range."""

    name: str = "noise-gaussian"
    summary: str = "normal noise with the mean and deviation of real inputs"

    def craft(self, probe: Probe, inputs: Arrays, rng: np.random.Generator) -> Arrays:
        """Nothing of the inputs is left. Raises: RefusedError without an input of floats."""

        def drawn(key: str, array: Array) -> Array:
            return np.clip(rng.normal(array.mean(), array.std(), array.shape), *probe.limits[key])

        return each_float(inputs, drawn, self.name)


@dataclass(frozen=True)
class Uniform:
    """Noise over the whole range of the real inputs."""

    name: str = "noise-uniform"
    summary: str = "uniform noise over the range of real inputs"

    def craft(self, probe: Probe, inputs: Arrays, rng: np.random.Generator) -> Arrays:
        """Nothing of the inputs is left. Raises: RefusedError without an input of floats."""
        return each_float(inputs, lambda key, array: rng.uniform(*probe.limits[key], array.shape), self.name)


@dataclass(frozen=True)
class Jitter:
    """Real inputs, each value moved up or down by `eps` of the range: as far as `slowdown` may go, without aim."""

    eps: float = EPS
    name: str = "jitter"
    summary: str = "real inputs with noise as large as slowdown's; the control of that attack"

    def craft(self, probe: Probe, inputs: Arrays, rng: np.random.Generator) -> Arrays:
        """Raises: RefusedError without an input of floats."""

        def shaken(key: str, array: Array) -> Array:
            return moved(array, signs(rng, array.shape), probe.limits[key], self.eps)

        return each_float(inputs, shaken, self.name)
