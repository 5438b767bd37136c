"""The files that stages were written to, and the plan that says where and how each of them runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """A file in one format that covers one stage of one variant.

    `numerics` holds the error against the source model: `max_abs`, `max_rel`, `n`.
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
    """A placement for each stage of each variant, in running order."""

    placements: tuple[Placement, ...]
