"""Writes a model in one exporter's form: what the race compares and a bundle ships."""

from __future__ import annotations

from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.errors import RefusedError
from edgewright.registry import EXPORTERS, blame
from edgewright.store import key_of
from edgewright.types import Artifact, Model


def exported(model: Model, name: str, bench: Bench) -> tuple[Artifact, ...]:
    """The artifacts that an exporter writes, one per stage and variant.

    Raises: RefusedError when it cannot write this model for the target; PluginError when it fails.
    """
    offer = bench.registry.get(EXPORTERS, name)
    refusal = offer.value.check(model, bench.target)
    if refusal is not None:
        raise RefusedError(f"{name} cannot export {model.name}: {refusal.reason}")
    context = Workbench(bench, key_of("export", name, model.digest))
    with blame(offer, f"exporting {model.name} for {bench.target.name}"):
        return tuple(offer.value.export(model, context))
