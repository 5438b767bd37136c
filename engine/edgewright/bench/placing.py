"""The ways to run an artifact: which runtimes take it, and with which options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from edgewright.asking.recipe import Recipe
from edgewright.errors import RefusedError
from edgewright.protocols import Runtime
from edgewright.registry import RUNTIMES, Registry
from edgewright.types import Artifact, Device, GraphFile, Model, Placement, Target


def placements_of(
    artifact: Artifact,
    names: Sequence[str],
    *,
    registry: Registry,
    recipe: Recipe,
    target: Target,
    device: Device | None,
) -> Sequence[Placement]:
    """Every way worth racing to run an artifact with the runtimes called `names`, the usual one first.

    Raises: RefusedError when none of them takes it, with each one's reason.
    """
    found: list[Placement] = []
    refusals: list[str] = []
    for name in names:
        runtime = registry.get(RUNTIMES, name).value
        refusal = _refuses(runtime, artifact, device)
        if refusal:
            refusals.append(f"{name}: {refusal}")
            continue
        found += [_placement(artifact, name, options, recipe) for options in runtime.options(artifact, target)]
    if not found:
        raise RefusedError(f"no runtime can run {artifact.name}: {'; '.join(refusals)}")
    return found


def _placement(artifact: Artifact, runtime: str, options: Mapping[str, Any], recipe: Recipe) -> Placement:
    settings = {**options, "threads": recipe.threads, "allow_fallback": recipe.allow_fallback}
    provider = str(settings.pop("provider"))
    return Placement(artifact.variant, artifact.stage, artifact.name, runtime, provider, settings)


def _refuses(runtime: Runtime, artifact: Artifact, device: Device | None) -> str:
    """Why a runtime cannot run an artifact; what is not at hand cannot be probed."""
    if artifact.format not in runtime.formats:
        return f"it takes {', '.join(runtime.formats)}, not {artifact.format}"
    refusal = runtime.probe(device) if device is not None else None
    return refusal.reason if refusal else ""


def stage_artifacts(model: Model) -> tuple[Artifact, ...]:
    """The graphs of an ONNX model as artifacts, as they are."""
    found: list[Artifact] = []
    for variant in model.variants:
        for stage in variant.stages:
            graph = cast("GraphFile", stage.graph)
            size = graph.path.stat().st_size
            name = "-".join(dict.fromkeys((variant.name, stage.name)))
            found.append(Artifact(name, graph.path, graph.digest, size, graph.format, variant.name, stage.name))
    return tuple(found)
