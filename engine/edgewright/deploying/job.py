"""The values of one deploy: what was asked and read, the candidates it made, and what it ended in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgewright.asking.recipe import Method, Recipe
from edgewright.asking.request import Request
from edgewright.bundle import Bundle
from edgewright.task import Task
from edgewright.types import Artifact, Model, Report, StageCost, Target, Tradeoff, bytes_of


@dataclass(frozen=True, eq=False)
class Job:
    """A request that was read and checked: everything is known, nothing is done."""

    request: Request
    target: Target
    recipe: Recipe
    model: Model
    task: Task
    methods: tuple[Method, ...]
    out: Path


@dataclass(frozen=True, eq=False)
class Candidate:
    """A prefix of the recipe: the model it gives, and the artifacts written from it.

    A model with gates brings what its stages cost in the running chain, and the choices of thresholds there were.
    """

    name: str
    methods: tuple[str, ...]
    model: Model
    artifacts: tuple[Artifact, ...] = ()
    costs: tuple[StageCost, ...] = ()
    tradeoffs: tuple[Tradeoff, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all artifacts with their companions."""
        return bytes_of(self.artifacts)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a deploy ended in. `exit_code` is 0, or 3 when a written bound or a named method was not kept."""

    report: Report
    bundle: Bundle
    exit_code: int
