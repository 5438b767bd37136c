"""Lets attacks ask a bundle on a device, and collects the inputs they craft."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgewright.agents.agent import Agent, Opened
from edgewright.environment import Environment
from edgewright.errors import RefusedError
from edgewright.protocols import Probe
from edgewright.registry import ATTACKS, blame
from edgewright.types import Array, Arrays, Gate, Variant


@dataclass(frozen=True, eq=False)
class Crafted:
    """Inputs by the name of their attack, one line about each attack, and why those refused that did."""

    inputs: Mapping[str, Arrays]
    about: Mapping[str, str]
    refused: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class AgentProbe:
    """What attacks may ask, answered by a bundle on a device."""

    agent: Agent
    opened: Opened
    gates: tuple[tuple[int, Gate], ...]
    limits: Mapping[str, tuple[float, float]]
    queries: int

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of the gates that let rows leave."""
        return tuple(gate.threshold for _, gate in self.gates if gate.threshold is not None)

    def scores(self, inputs: Arrays) -> Array:
        """Float32 [gates, rows]."""
        rows = len(next(iter(inputs.values())))
        if not self.gates:
            return np.zeros((0, rows), np.float32)
        stages = self.agent.explore(self.opened, inputs)
        return np.stack([stages[number][gate.score] for number, gate in self.gates])

    def depths(self, inputs: Arrays) -> Array:
        """Int64 [rows]."""
        return self.agent.infer_exits(self.opened, inputs)[1]


def probe_of(agent: Agent, opened: Opened, variant: Variant, inputs: Arrays, queries: int) -> AgentProbe:
    """A probe of the variant that the agent holds, with the limits of the real `inputs`."""
    numbered = enumerate(variant.stages)
    gates = tuple((i, stage.gate) for i, stage in numbered if stage.gate and stage.gate.threshold is not None)
    limits = {name: (float(array.min()), float(array.max())) for name, array in inputs.items()}
    return AgentProbe(agent, opened, gates, limits, queries)


def craft(probe: Probe, inputs: Arrays, seed: int, env: Environment) -> Crafted:
    """What every attack that is installed makes of the inputs. Raises: PluginError naming one that failed."""
    made: dict[str, Arrays] = {}
    about: dict[str, str] = {}
    refused: dict[str, str] = {}
    offers = env.registry.all(ATTACKS)
    for number, offer in enumerate(offers):
        name = offer.value.name
        env.progress(f"crafting inputs: {name}", number, len(offers))
        try:
            with blame(offer, f"crafting inputs with {name!r}"):
                made[name] = offer.value.craft(probe, inputs, np.random.default_rng((seed, number)))
                about[name] = offer.value.summary
        except RefusedError as refusal:
            refused[name] = str(refusal)
    return Crafted(made, about, refused)
