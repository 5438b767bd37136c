"""Edgewright deploys neural networks to edge devices. What users and plugin authors import, resolved when asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Since 1.29 onnxruntime queues what it runs (names and digests of models, the machine) for its vendor, and writes an
# identifier of the machine to ~/.cache. Read when it is imported, and inherited by what we start; 0 turns it on again.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from edgewright.registry import Registry
    from edgewright.task import AGREEMENT, TOP1, Task, agreement, top1
    from edgewright.types import Figure, Measurement, Metric, Model, Refusal, Step, Target

_HOMES = {
    "AGREEMENT": "edgewright.task",
    "Figure": "edgewright.types",
    "Measurement": "edgewright.types",
    "Metric": "edgewright.types",
    "Model": "edgewright.types",
    "Refusal": "edgewright.types",
    "Registry": "edgewright.registry",
    "Step": "edgewright.types",
    "TOP1": "edgewright.task",
    "Target": "edgewright.types",
    "Task": "edgewright.task",
    "agreement": "edgewright.task",
    "top1": "edgewright.task",
}

__all__ = [
    "AGREEMENT",
    "Figure",
    "Measurement",
    "Metric",
    "Model",
    "Refusal",
    "Registry",
    "Step",
    "TOP1",
    "Target",
    "Task",
    "agreement",
    "top1",
]


def __getattr__(name: str) -> Any:
    """PEP 562: importing `edgewright` loads nothing else."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewright' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
