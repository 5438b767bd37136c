"""Checks of transforms: what they do to small models, and what they need for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from edgewright import onnxkit
from edgewright.bundle import plain
from edgewright.errors import PluginError
from edgewright.registry import EXPORTERS, Transform
from edgewright.stagewise.apply import by_stages
from edgewright.testing.rig import Rig
from edgewright.testing.trials import Trial, alone, content, cut_short, graphs, resumed, same, tried
from edgewright.testing.verdicts import attempt, require
from edgewright.types import Arrays, GraphFile, Model, Offer, Refusal

READS: Mapping[str, str] = {
    **dict.fromkeys(("task", "max_drop", "feed", "outputs", "score"), "task"),
    **dict.fromkeys(("cost", "stage_costs", "profile"), "device"),
    "target": "target",
}
"""What a method must name in `reads` where it asks its context for something: the key of its result is made of that."""


def applies(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """It gives a model for every sample that it accepts; a torch method's is built again from its decision."""
    found = tried(offer, rig)
    if found.failure:
        raise found.failure
    return found.refusal


def leaves_its_input_alone(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """Neither the model that it is given nor its files, modules and example change."""
    return _each(
        offer, rig, lambda trial: require(trial.intact, "apply", f"it changed its input, the {trial.sample} sample")
    )


def is_the_same_twice(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """The same model, parameters and seed give the same bytes."""

    def check(trial: Trial) -> None:
        told = f"it gives another model the second time, on the {trial.sample} sample; draw from context.seed alone"
        require(trial.second is None or same(trial.first, trial.second), "apply", told)

    return _each(offer, rig, check)


def writes_itself_down(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """The model's history grows by one step of its name, which JSON can hold."""
    name = offer.value.name

    def check(trial: Trial) -> None:
        before, after = trial.model.history, trial.first.history
        steps = [step.name for step in after[len(before) :]]
        kept = after[: len(before)] == before and steps == [name]
        require(kept, "apply", f"its history grew by {steps}; it must grow by one step named {name!r}")
        attempt("apply", lambda: json.dumps(plain(after[-1])))

    return _each(offer, rig, check)


def keeps_the_signature(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """Inputs that are fed and outputs that are answers keep their names and order; states may come on top."""

    def check(trial: Trial) -> None:
        for part, what in (("fed", "inputs"), ("answers", "outputs")):
            old, new = ([s.name for s in getattr(m.signature, part)] for m in (trial.model, trial.first))
            require(old == new, "apply", f"the {what} were {old} and are {new}; keep their names and order")

    return _each(offer, rig, check)


def is_valid(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """The format is the stated one; graphs are what their digests say, and onnx finds nothing wrong with them."""

    def check(trial: Trial) -> None:
        found, stated = trial.first.format, offer.value.gives
        require(found == stated, "apply", f"it gives {found}, not {stated} as stated")
        for stage in trial.first.stages:
            if isinstance(stage.graph, GraphFile):
                _check_graph(stage.name, stage.graph)

    return _each(offer, rig, check)


def survives_the_export(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """The exporter `onnx` writes it, and what it wrote is opened and answers as the model does."""

    def check(trial: Trial) -> None:
        wanted, found = _outputs(offer, trial, rig), _exported(offer, trial, rig)
        for name, array in wanted.items():
            fits = np.allclose(found[name], array, rtol=1e-4, atol=1e-5, equal_nan=True)
            require(fits, "export", f"{name} of the exported {trial.sample} sample is not what the model answers")

    return _each(offer, rig, check)


def keeps_shapes(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """What comes out has the sizes that the signature of its input says; axis 0 counts examples."""

    def check(trial: Trial) -> None:
        for spec in trial.model.signature.outputs:
            found = _output(offer, trial, spec.name, rig)
            fixed = zip(spec.shape[1:], found.shape[1:])
            fits = found.ndim == len(spec.shape) and all(isinstance(a, str) or a == b for a, b in fixed)
            require(
                fits, "mismatch", f"{spec.describe()} came out as {list(found.shape)}, on the {trial.sample} sample"
            )

    return _each(offer, rig, check)


def keeps_dtypes(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """What comes out has the type that the signature of its input says."""

    def check(trial: Trial) -> None:
        for spec in trial.model.signature.outputs:
            found = _output(offer, trial, spec.name, rig).dtype
            fits = str(found) == spec.dtype
            require(fits, "mismatch", f"{spec.describe()} came out as {found}, on the {trial.sample} sample")

    return _each(offer, rig, check)


def stays_finite(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """No value that comes out is infinite or NaN."""

    def check(trial: Trial) -> None:
        for name, found in _outputs(offer, trial, rig).items():
            finite = found.dtype.kind != "f" or bool(np.isfinite(found).all())
            require(finite, "mismatch", f"{name} holds values that are not finite, on the {trial.sample} sample")

    return _each(offer, rig, check)


def declares_what_it_costs(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """`needs` says whether it trains, and `reads` names all that its result depends on: measurements, data, target."""
    transform = offer.value

    def check(trial: Trial) -> None:
        if by_stages(transform, trial.model):
            return  # there the engine asks, stage by stage
        trains = trial.trained and not _untouched(trial)
        require(not trains or transform.needs == "training", "state", f"it trains, and needs is {transform.needs!r}")
        for asked in dict.fromkeys(trial.asked):
            read = READS.get(asked)
            require(
                read is None or read in transform.reads,
                "state",
                f"it asks for context.{asked}, and reads does not name {read!r}: a result of elsewhere would be taken",
            )

    return _each(offer, rig, check)


def lets_errors_through(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """What fails under it ends the step, and does not give a model that looks done."""
    found = tried(offer, rig)
    if not found.trials:
        return found.without
    outcome = cut_short(offer, found.trials[0], rig)
    if outcome is None:
        return Refusal("it asks its context for nothing, so that nothing can fail under it")
    if isinstance(outcome, Model):
        raise PluginError("apply: its context failed, and it gave a model all the same; let errors through")
    return None


def goes_on_after_a_kill(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """Cut short half way, a new process takes what is in the cache, and gives the same bytes as without the cut."""
    found = tried(offer, rig)
    if not found.trials:
        return found.without
    trial = found.trials[0]
    refusal = _no_other_process(offer, trial)
    if refusal is None and cut_short(offer, trial, rig) is not None:
        again = resumed(offer, trial, rig)
        told = f"cut short and taken up again, it gives another model, on the {trial.sample} sample; keep what it found"
        require(same(again, trial.first), "resume", f"{told} in context.remember or scratch, not in itself")
    return refusal


def does_not_depend_on_order(offer: Offer[Transform], rig: Rig) -> Refusal | None:
    """What it worked on before makes no difference: the last sample alone, in fresh modules, gives the same bytes."""
    found = tried(offer, rig)
    if not found.trials:
        return found.without
    if offer.value.needs == "training":
        return Refusal("what trains is had in fresh modules once: see `goes on after a kill`")
    trial = [each for each in found.trials if len(each.model.stages) == 1 or each is found.trials[0]][-1]
    refusal = _no_other_process(offer, trial)
    if refusal is None:
        told = f"the {trial.sample} sample comes out otherwise when it is the first that it works on"
        require(same(alone(offer, trial, rig), trial.first), "order", f"{told}; keep nothing from model to model")
    return refusal


# ------------------------------------------------------------------ what the checks share


def _each(offer: Offer[Transform], rig: Rig, check: Callable[[Trial], None]) -> Refusal | None:
    found = tried(offer, rig)
    for trial in found.trials:
        check(trial)
    return None if found.trials else found.without


def _no_other_process(offer: Offer[Any], trial: Trial) -> Refusal | None:
    if not offer.entry:
        return Refusal("no module holds the offered object under a name, so that it cannot be had anew")
    if trial.second is not None and not same(trial.first, trial.second):
        return Refusal("it is not the same twice anyway")
    return None


def _untouched(trial: Trial) -> bool:
    """Whether all weights are those that the model had: only the structure is new."""
    return set(graphs(trial.first)) == set(graphs(trial.model))


def _check_graph(stage: str, graph: GraphFile) -> None:
    require(content(graph.path) == graph.digest, "apply", f"the file of {stage} is not what its digest says")
    attempt("apply", lambda: onnx.checker.check_model(onnxkit.read(graph)))


def _output(offer: Offer[Transform], trial: Trial, name: str, rig: Rig) -> np.ndarray[Any, Any]:
    outputs = _outputs(offer, trial, rig)
    require(name in outputs, "run", f"the output {name!r} is missing")
    return outputs[name]


def _outputs(offer: Offer[Transform], trial: Trial, rig: Rig) -> Arrays:
    """What the rewritten model answers to four examples."""
    context = rig.context(trial.sample, offer.plugin, offer.value.name, "run")
    return rig.once(
        f"outputs {trial.sample}", offer, lambda: attempt("run", lambda: context.outputs(trial.first, limit=4))
    )


def _exported(offer: Offer[Transform], trial: Trial, rig: Rig) -> Arrays:
    """The same, once the model was written out and read again."""
    context = rig.context(trial.sample, offer.plugin, offer.value.name, "export")
    exporter = rig.registry.get(EXPORTERS, "onnx").value
    model = attempt("export", lambda: context.lower(trial.first))
    artifacts = attempt("export", lambda: exporter.export(model, context))
    files = {(a.variant, a.stage): GraphFile(a.path, a.digest, a.format) for a in artifacts}
    variants = (
        replace(v, stages=tuple(replace(s, graph=files[v.name, s.name]) for s in v.stages)) for v in model.variants
    )
    return attempt("export", lambda: context.outputs(replace(model, variants=tuple(variants)), limit=4))
