"""What a bundle answers to many examples, asked of the worker of an agent that holds it, chunk by chunk."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edgewright.agents.agent import Agent, Opened
from edgewright.types import Array, Arrays

CHUNK = 64
"""Examples that travel to an agent at once: few enough to fit anywhere, enough to hide the trip."""

EXITS = "@exits"
"""Under which exits are kept beside the outputs; no tensor is called so."""


@contextmanager
def holding(agent: Agent, bundle: Path, runtimes: Mapping[str, str]) -> Generator[Opened]:
    """A bundle that a worker of the agent holds until the block ends."""
    opened = agent.open(bundle, runtimes=runtimes)
    try:
        yield opened
    finally:
        agent.close(opened)


def inferred(agent: Agent, opened: Opened, chunks: Iterable[Arrays], batch: int) -> Arrays:
    """The outputs, and under EXITS the stage at which each example left, joined on the example axis."""

    def ask(inputs: Arrays) -> Arrays:
        outputs, exits = agent.infer_exits(opened, inputs, batch=batch)
        return {**outputs, EXITS: exits}

    return _joined([ask(inputs) for inputs in chunks])


def explored(agent: Agent, opened: Opened, chunks: Iterable[Arrays], batch: int) -> Arrays:
    """What each stage answers with nothing leaving, as `number/name` (see `by_stage`), joined on the example axis."""

    def ask(inputs: Arrays) -> Arrays:
        found = agent.explore(opened, inputs, batch=batch)
        return {f"{number}/{name}": array for number, each in enumerate(found) for name, array in each.items()}

    return _joined([ask(inputs) for inputs in chunks])


def by_stage(found: Arrays, stages: int) -> Sequence[dict[str, Array]]:
    """What `explored` found, one mapping by name for each stage."""
    return [
        {name.partition("/")[2]: array for name, array in found.items() if name.startswith(f"{number}/")}
        for number in range(stages)
    ]


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
