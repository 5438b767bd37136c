"""Every way to extend the engine, in one screen.

A hook returns an iterable of objects that satisfy the named protocol. The recipe gives order and choice:
no hook stops at a first result, none may be wrapped, and installing a plugin changes no existing command.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pluggy

from edgewright.protocols import (
    Attack,
    Connection,
    Exporter,
    Kernel,
    Loader,
    Meter,
    OnnxTransform,
    Predictor,
    Renderer,
    Runtime,
    TorchTransform,
)
from edgewright.types import Target

API = 1
"""The plugin interface this engine speaks; a plugin module says `EDGEWRIGHT_API = 1`."""

hookspec = pluggy.HookspecMarker("edgewright")


@dataclass(frozen=True)
class StepEvent:
    """A step of the pipeline that has ended. `seconds` is wall-clock time."""

    step: str
    model: str
    target: str
    seconds: float
    cached: bool


@hookspec
def edgewright_loaders() -> Iterable[Loader]:  # pyright: ignore[reportReturnType]
    """Ways to read a model."""


@hookspec
def edgewright_transforms() -> Iterable[OnnxTransform | TorchTransform]:  # pyright: ignore[reportReturnType]
    """Compression methods."""


@hookspec
def edgewright_exporters() -> Iterable[Exporter]:  # pyright: ignore[reportReturnType]
    """Formats to write."""


@hookspec
def edgewright_kernels() -> Iterable[Kernel]:  # pyright: ignore[reportReturnType]
    """Machine code for nodes of a graph, and where in a graph it fits."""


@hookspec
def edgewright_runtimes() -> Iterable[Runtime]:  # pyright: ignore[reportReturnType]
    """Ways to run an artifact on a device."""


@hookspec
def edgewright_meters() -> Iterable[Meter]:  # pyright: ignore[reportReturnType]
    """Instruments for energy."""


@hookspec
def edgewright_targets() -> Iterable[Target]:  # pyright: ignore[reportReturnType]
    """Device profiles, every figure with its source."""


@hookspec
def edgewright_predictors() -> Iterable[Predictor]:  # pyright: ignore[reportReturnType]
    """Ways to predict what a model costs on a target."""


@hookspec
def edgewright_connections() -> Iterable[Connection]:  # pyright: ignore[reportReturnType]
    """Ways to reach a device."""


@hookspec
def edgewright_attacks() -> Iterable[Attack]:  # pyright: ignore[reportReturnType]
    """Inputs that make dynamic models slow."""


@hookspec
def edgewright_renderers() -> Iterable[Renderer]:  # pyright: ignore[reportReturnType]
    """Texts to make of a report."""


@hookspec
def edgewright_step_finished(event: StepEvent) -> None:
    """Called after each step of the pipeline; the result is ignored and may change nothing."""
