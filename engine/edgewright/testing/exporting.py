"""Checks of exporters: what they write, that it is what the model answers, and that a runtime opens it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgewright.bench.placing import placements_of
from edgewright.errors import PluginError, RefusedError
from edgewright.numerics import worst
from edgewright.protocols import Exporter
from edgewright.registry import RUNTIMES
from edgewright.testing.rig import Rig
from edgewright.testing.trials import fingerprint
from edgewright.testing.verdicts import attempt, require, require_sentence
from edgewright.types import Artifact, Model, Offer, Plan, Refusal

ALIKE = 0.05
"""How far answers may be apart, as a share of the largest: what the race asks of a form."""


@dataclass(frozen=True, eq=False)
class Export:
    """What an exporter wrote of a sample, and whether it left the sample as it was."""

    sample: str
    model: Model
    artifacts: Sequence[Artifact]
    intact: bool


@dataclass(frozen=True, eq=False)
class Exports:
    """All that it wrote, why it wrote nothing, or how it failed."""

    done: Sequence[Export]
    refusal: Refusal | None = None
    failure: PluginError | None = None


def exports(offer: Offer[Exporter], rig: Rig) -> Refusal | None:
    """One artifact per stage, of the stated format, whose size and digest are those of its file, with its error."""
    found = _exports(offer, rig)
    if found.failure:
        raise found.failure
    for each in found.done:
        covered = [(a.variant, a.stage) for a in each.artifacts]
        wanted = [(v.name, s.name) for v in each.model.variants for s in v.stages]
        require(covered == wanted, "export", f"it covers {covered}; one artifact per stage is {wanted}")
        for artifact in each.artifacts:
            _check_artifact(artifact, offer.value.format)
        told = f"the last artifact of the {each.sample} sample has no numerics: max_abs, max_rel and n"
        require({"max_abs", "max_rel", "n"} <= set(each.artifacts[-1].numerics), "export", told)
    return found.refusal


def leaves_the_model_alone(offer: Offer[Exporter], rig: Rig) -> Refusal | None:
    """Neither the model that it writes nor its files and example change."""
    for each in _exports(offer, rig).done:
        require(each.intact, "export", f"it changed the {each.sample} sample")
    return _nothing(offer, rig)


def exports_the_same_twice(offer: Offer[Exporter], rig: Rig) -> Refusal | None:
    """The same model gives the same bytes."""
    for each in _exports(offer, rig).done[:1]:
        again = _export(offer, each.sample, each.model, rig, "again").artifacts
        same = [a.digest for a in again] == [a.digest for a in each.artifacts]
        require(same, "export", f"the {each.sample} sample gives other bytes the second time")
    return _nothing(offer, rig)


def opens_what_it_wrote(offer: Offer[Exporter], rig: Rig) -> Refusal | None:
    """A runtime opens the artifacts, and they answer as the model does."""
    refusal = _nothing(offer, rig)
    for each in _exports(offer, rig).done:
        bench = rig.benches[each.sample]
        plan = _plan(each.artifacts, rig)
        if isinstance(plan, Refusal):
            return plan
        here = replace(bench, device=bench.host)
        wanted = attempt("run", lambda b=bench, m=each.model: b.outputs(m, "selection"))
        found = attempt("open", lambda b=here, e=each, p=plan: b.deployed_outputs(e.model, "selection", p))
        names = list(wanted)
        apart = worst(names, [wanted[name] for name in names], [found[name] for name in names])
        told = f"{apart.name} of the {each.sample} sample is off by {100 * apart.max_rel:.2g} % of its largest value"
        require(apart.max_rel <= ALIKE, "mismatch", told)
    return refusal


def _exports(offer: Offer[Exporter], rig: Rig) -> Exports:
    return rig.once("exports", offer, lambda: _export_all(offer, rig))


def _export_all(offer: Offer[Exporter], rig: Rig) -> Exports:
    done: list[Export] = []
    refusal: Refusal | None = None
    for sample, model in {**rig.models("onnx"), **rig.models("torch")}.items():
        try:
            refused = require_sentence(attempt("check", lambda m=model: offer.value.check(m, rig.target)), "check")
            if refused is None:
                done.append(_export(offer, sample, model, rig, "export"))
        except RefusedError as refusing:
            refused = Refusal(str(refusing))
        except PluginError as failure:
            return Exports(done, None, failure)
        refusal = refused or refusal
    return Exports(done, None if done else refusal)


def _export(offer: Offer[Exporter], sample: str, model: Model, rig: Rig, turn: str) -> Export:
    context, before = rig.context(sample, turn, offer.plugin, offer.value.name), fingerprint(model)
    artifacts = attempt("export", lambda: tuple(offer.value.export(model, context)), (RefusedError,))
    return Export(sample, model, artifacts, fingerprint(model) == before)


def _nothing(offer: Offer[Exporter], rig: Rig) -> Refusal | None:
    """Why there is nothing to look at."""
    found = _exports(offer, rig)
    failed = Refusal("it could not write anything; see `exports`") if found.failure else found.refusal
    return None if found.done else failed


def _plan(artifacts: Sequence[Artifact], rig: Rig) -> Plan | Refusal:
    """The first runtime here that opens each of them: the host's own, then any but `null`, which computes nothing."""
    bench = next(iter(rig.benches.values()))
    others = (name for name in rig.registry.names(RUNTIMES) if name != "null")
    names = list(dict.fromkeys((*rig.target.runtimes, *others)))
    try:
        placements = [
            placements_of(
                each, names, registry=rig.registry, recipe=bench.recipe, target=rig.target, device=rig.device
            )[0]
            for each in artifacts
        ]
    except RefusedError as error:
        return Refusal(str(error))
    return Plan(tuple(placements), tuple(artifacts))


def _check_artifact(artifact: Artifact, format: str) -> None:
    require(artifact.path.is_file(), "export", f"{artifact.path} was not written")
    data = artifact.path.read_bytes()
    require(artifact.format == format, "export", f"it writes {artifact.format}, and states {format}")
    require(artifact.size == len(data), "export", f"{artifact.name} has {len(data)} bytes, not {artifact.size}")
    require(artifact.digest == hashlib.sha256(data).hexdigest(), "export", f"{artifact.name}: digest and file differ")
