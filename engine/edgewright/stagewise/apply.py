"""Applies a method to a chain, stage by stage, unless the method works on whole models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Union, cast

from edgewright.deploying.context import Workbench
from edgewright.errors import RefusedError
from edgewright.protocols import OnnxTransform, TorchTransform
from edgewright.stagewise.part import alone, stage_bench
from edgewright.stagewise.rows import Part, Piece
from edgewright.stagewise.share import Share
from edgewright.store import key_of
from edgewright.types import Model, Refusal, Stage, Step, Target, Variant

Transform = Union[OnnxTransform, TorchTransform]


def by_stages(transform: Transform, model: Model) -> bool:
    """Whether the method gets a model's stages one by one: it rewrites ONNX, and does not say that it is `whole`."""
    rewrites = isinstance(transform, OnnxTransform) and transform.takes == transform.gives == "onnx"
    return rewrites and len(model.stages) > 1 and model.format == "onnx" and not getattr(transform, "whole", False)


def refused(transform: Transform, model: Model, target: Target) -> Refusal | None:
    """Why the method cannot work on the model, before anything is done; on a chain, why on none of its stages."""
    if not by_stages(transform, model):
        return transform.check(model, target)
    if model.signature.state:
        return Refusal("it has several stages and keeps a state between runs; methods can take only one of the two")
    refusals: dict[str, Refusal] = {}
    for stage in model.stages:
        refusal = transform.check(alone(model, stage), target)
        if not isinstance(refusal, Refusal):
            return refusal
        refusals[stage.name] = refusal
    first = next(iter(refusals.values()))
    if all(each == first for each in refusals.values()):
        return first
    return Refusal(_summed({name: each.reason for name, each in refusals.items()}))


def applied(transform: OnnxTransform, model: Model, params: Any, context: Workbench) -> Model:
    """The model as the method rewrites it: a chain stage by stage, with one step for all of them.

    A stage that the method refuses or declines stays as it was, and the step's notes say so.
    Raises: RefusedError when every stage was refused; ValueError when a stage no longer fits its neighbours.
    """
    if not by_stages(transform, model):
        return transform.apply(model, params, context)
    done = [list(_each(_Work(transform, params, model, context), variant)) for variant in model.variants]
    outcomes = [each for variant in done for each in variant]
    if all(each.step is None for each in outcomes):
        raise RefusedError(_summed({each.stage.name: each.notes[-1] for each in outcomes}))
    variants = (
        replace(variant, stages=tuple(each.stage for each in found))
        for variant, found in zip(model.variants, done, strict=True)
    )
    after = replace(model, variants=tuple(variants))
    return after.after(_step(outcomes, changed=after.digest != model.digest))


# ------------------------------------------------------------------ stage by stage


@dataclass(frozen=True, eq=False)
class _Work:
    """A method, its parameters, and the chain as it was."""

    transform: OnnxTransform
    params: Any
    model: Model
    context: Workbench


@dataclass(frozen=True)
class _Outcome:
    """A stage as it came out; the method's step, None where it refused; and what is to be said."""

    stage: Stage
    step: Step | None
    notes: tuple[str, ...]


def _each(work: _Work, variant: Variant) -> Iterator[_Outcome]:
    """Every stage in turn, those before it as they were rewritten."""
    bench = work.context.bench
    pieces = [Piece(stage, bench.recipe.batch) for stage in variant.stages]
    share = Share(bench, tuple(pieces), asked=work.transform.needs == "calibration")
    for position, stage in enumerate(variant.stages):
        part = Part(tuple(pieces), position)
        outcome = _one(work, part, share)
        if outcome.stage is not stage:
            pieces[position] = Piece(outcome.stage, bench.recipe.batch)
        yield outcome


def _one(work: _Work, part: Part, share: Share) -> _Outcome:
    model = alone(work.model, part.stage, part.values(work.model.example))
    refusal = work.transform.check(model, work.context.target)
    if refusal is not None:
        return _left(part.stage, refusal.reason)
    key = key_of("stage", work.context.key, part.position, [piece.stage.digest for piece in part.pieces])
    left = work.context.remember(f"share {key}", lambda: share.left(part.pieces, part.position))
    bench, notes = stage_bench(part, model, work.context.bench, cast("float | None", left))
    context = Workbench(bench, key)
    try:
        after = bench.store.load_model(context.key, model.example) or _worked(work, model, context)
    except RefusedError as refusal:
        return _left(part.stage, str(refusal))
    step = after.history[-1]
    return _Outcome(replace(part.stage, graph=after.graph), step, (*notes, *step.notes))


def _left(stage: Stage, reason: str) -> _Outcome:
    return _Outcome(stage, None, (f"left as it was: {reason}",))


def _worked(work: _Work, model: Model, context: Workbench) -> Model:
    """The method's result, kept, so that a killed step goes on with the next stage."""
    params = _own_nodes(work.params, model, work.model)
    after = work.transform.apply(model, params, context)
    _check_fits(model, after)
    context.bench.store.save_model(context.key, after)
    context.bench.store.forget_scratch(context.key)
    return after


def _own_nodes(params: Any, model: Model, chain: Model) -> Any:
    """The parameters without the names of nodes that only other stages have."""
    named = [each.name for each in fields(params) if each.metadata.get("nodes")]
    if not named:
        return params
    here = _nodes(model.stages)
    elsewhere = _nodes(chain.stages) - here
    return replace(params, **{name: tuple(n for n in getattr(params, name) if n not in elsewhere) for name in named})


def _nodes(stages: Sequence[Stage]) -> set[str]:
    from edgewright import onnxkit

    return {node.name for stage in stages for node in onnxkit.read(stage.graph).graph.node}


def _check_fits(before: Model, after: Model) -> None:
    """Raises: ValueError when the graph takes or returns something else than it did, or fixes a size that was free."""
    from edgewright import onnxkit

    name, graph = before.stages[0].name, onnxkit.read(after.graph).graph
    weights = {tensor.name for tensor in graph.initializer}
    taken = [value for value in graph.input if value.name not in weights]
    sides = (("takes", taken, before.signature.inputs), ("returns", list(graph.output), before.signature.outputs))
    for what, values, specs in sides:
        found = [(spec.name, spec.dtype) for spec in map(onnxkit.tensor_spec, values)]
        wanted = [(spec.name, spec.dtype) for spec in specs]
        if found != wanted:
            raise ValueError(f"the rewritten stage {name!r} {what} {found}, but its chain needs {wanted}")
    for spec, value in zip(before.signature.inputs, taken):
        if spec.free and not onnxkit.tensor_spec(value).free:
            raise ValueError(f"the rewritten stage {name!r} no longer takes any number of rows of {spec.name!r}")


# ------------------------------------------------------------------ what is told


def _step(outcomes: Sequence[_Outcome], *, changed: bool) -> Step:
    """One step for all stages; declined when some were and nothing came of the others."""
    steps = {each.stage.name: each.step for each in outcomes if each.step is not None}
    first = next(iter(steps.values()))
    return replace(
        first,
        notes=tuple(f"{each.stage.name}: {note}" for each in outcomes for note in each.notes),
        details={name: step.details for name, step in steps.items()},
        declined=not changed and any(step.declined for step in steps.values()),
    )


def _summed(reasons: Mapping[str, str]) -> str:
    """One reason where all stages have the same, else each one's."""
    if len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"{stage}: {reason}" for stage, reason in reasons.items())
