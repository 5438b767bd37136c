"""The devices that come with the engine: one TOML file each in this folder, and the host, probed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgewright.asking.targetfile import read_profile
from edgewright.types import Target
from edgewright_devices.probe import probe

FOLDER = Path(__file__).parent


def built_in() -> tuple[Target, ...]:
    """Every profile of this folder, by name."""
    return tuple(read_profile(path) for path in sorted(FOLDER.glob("*.toml")))


def edgewright_targets() -> Iterable[Target]:
    """The host as `cpu`, then the profiles."""
    return (probe(), *built_in())
