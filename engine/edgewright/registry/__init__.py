"""Plugins: found, checked against the kinds of offer there are, collected, and named when they fail."""

from edgewright.registry.discovery import Absent, Source, installed
from edgewright.registry.kinds import (
    ATTACKS,
    CONNECTIONS,
    EXPORTERS,
    KERNELS,
    KINDS,
    LOADERS,
    METERS,
    PREDICTORS,
    RENDERERS,
    RUNTIMES,
    TARGETS,
    TRANSFORMS,
    Kind,
    Transform,
)
from edgewright.registry.registry import Registry, blame

__all__ = [
    "ATTACKS",
    "CONNECTIONS",
    "EXPORTERS",
    "KERNELS",
    "KINDS",
    "LOADERS",
    "METERS",
    "PREDICTORS",
    "RENDERERS",
    "RUNTIMES",
    "TARGETS",
    "TRANSFORMS",
    "Absent",
    "Kind",
    "Registry",
    "Source",
    "Transform",
    "blame",
    "installed",
]
