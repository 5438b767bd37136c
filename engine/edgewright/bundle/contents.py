"""What goes into a bundle, and what an opened one holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.types import Artifact, Plan, Signature, Variant, bytes_of


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle. `files` maps a place in the bundle to bytes or to a file to copy."""

    name: str
    signature: Signature
    variants: tuple[Variant, ...]
    artifacts: tuple[Artifact, ...]
    plan: Plan
    files: Mapping[str, bytes | Path]
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened: its folder is known to hold what its manifest says.

    `extra` is the rest of the manifest (recipe, task, versions, verdict, history).
    """

    path: Path
    name: str
    digest: str
    signature: Signature
    variants: tuple[Variant, ...]
    artifacts: tuple[Artifact, ...]
    plan: Plan
    extra: Mapping[str, Any]

    @property
    def example_inputs(self) -> Path:
        """Where the synthetic input lies."""
        return self.path / "example" / "inputs.npz"

    @property
    def example_outputs(self) -> Path:
        """Where the answer to it lies."""
        return self.path / "example" / "outputs.npz"

    @property
    def example_stream(self) -> Path | None:
        """Where inputs for many runs lie, stacked on axis 0; None when there are none."""
        place = self.path / "example" / "stream.npz"
        return place if place.is_file() else None

    @property
    def size(self) -> int:
        """Bytes of all artifacts with their companions: what has to be shipped to run it."""
        return bytes_of(self.artifacts)
