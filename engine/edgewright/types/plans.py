"""The files that stages were written to, and the plan that says where and how each of them runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional


@dataclass(frozen=True)
class Needs:
    """What a processor must be to run machine code: as `isa` and `features` of a `Device` say it.

    `name` is what people call the instruction set (`armv8.2-a-dot`).
    """

    name: str
    isa: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Companion:
    """A file that an artifact does not run without, such as a library of kernels; artifacts may share one.

    `needs` is known of what will be executed, and checked before it is.
    """

    name: str
    path: Path = field(compare=False)
    digest: str
    size: int
    needs: Optional[Needs] = None


@dataclass(frozen=True)
class Artifact:
    """A file in one format that covers one stage of one variant.

    `size` is that file's own. `numerics` holds the error against the source model: `max_abs`, `max_rel`, `n`.
    """

    name: str
    path: Path = field(compare=False)
    digest: str
    size: int
    format: str
    variant: str
    stage: str
    ir: int = 0
    opsets: Mapping[str, int] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)
    numerics: Mapping[str, float] = field(default_factory=dict)
    companions: tuple[Companion, ...] = ()


def bytes_of(artifacts: Iterable[Artifact]) -> int:
    """The size of all their files, each companion once: what has to be shipped to run them."""
    artifacts = tuple(artifacts)
    companions = {companion.digest: companion.size for artifact in artifacts for companion in artifact.companions}
    return sum(artifact.size for artifact in artifacts) + sum(companions.values())


@dataclass(frozen=True)
class Placement:
    """Where and how one stage runs."""

    variant: str
    stage: str
    artifact: str
    runtime: str
    provider: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A placement for each stage of each variant, in running order.

    `artifacts` are what is placed, where an exporter wrote them; empty for the graphs of the stages as they are.
    """

    placements: tuple[Placement, ...]
    artifacts: tuple[Artifact, ...] = ()
