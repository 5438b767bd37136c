"""The method `nested-if`: a chain with gates as one graph that decides inside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edgewright.protocols import Context, NoParams, OnnxTransform
from edgewright.types import GraphFile, Model, Refusal, Signature, Stage, Step, Target, TensorSpec, Variant

NAME = "nested"
EXITS = "exits"


class NestedIf:
    """Joins the stages of a chain into one ONNX file: behind each gate an `If` that holds the stages after it.

    Any runtime that knows `If` then leaves early by itself, and the file says which exit was taken. What it cannot do
    is to let some rows of a batch leave, or to count what a stage costs.
    """

    name = "nested-if"
    summary = "turns a chain with gates into one ONNX file that decides inside by nested Ifs (batch 1)"
    Params = NoParams
    takes = "onnx"
    gives = "onnx"
    needs = "nothing"
    reads = ("task", "target", "device")
    whole = True

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses what has no gates, and more than one row at a time."""
        variant = model.variants[0]
        if len(model.variants) != 1 or not any(stage.gate for stage in variant.stages):
            return Refusal(f"{model.name} is no chain of stages with gates; let inputs leave early first (early-exit)")
        several = [spec for spec in _of_one_row(model.signature).inputs if spec.shape and spec.shape[0] != 1]
        if several:
            return Refusal(
                f"an If decides for all rows at once, and {several[0].describe()} has more than one; "
                "deploy with --batch 1, or keep the stages"
            )
        return None

    def apply(self, model: Model, params: NoParams, context: Context) -> Model:
        """One stage that holds the chain; gates that have no threshold yet are fitted first.

        Raises: RefusedError when stages cannot stand in one graph.
        """
        from edgewright import onnxkit
        from edgewright.onnxchain import nested

        chain = context.settled(model) if _unfitted(model) else model
        chain = replace(chain, signature=_of_one_row(chain.signature))
        variant = chain.variants[0]
        if len(variant.stages) == 1:
            note = "no exit earns its place, so there is nothing to decide inside"
            return chain.after(Step(self.name, "edgewright", notes=(note,), declined=True))
        exits = _exits_name(chain)
        proto = nested(variant, chain.signature, exits=exits)
        stage = _stage(chain, context.keep(onnxkit.pack(proto)), exits)
        return replace(chain, variants=(replace(variant, stages=(stage,)),)).after(_step(variant))


def _unfitted(model: Model) -> bool:
    return any(stage.gate is not None and stage.gate.threshold is None for stage in model.stages)


def _of_one_row(signature: Signature) -> Signature:
    """The signature with a free first axis fixed at one row, the only number that an `If` can decide for."""

    def fixed(spec: TensorSpec) -> TensorSpec:
        free = bool(spec.shape) and isinstance(spec.shape[0], str)
        return replace(spec, shape=(1, *spec.shape[1:])) if free else spec

    return replace(signature, inputs=tuple(map(fixed, signature.inputs)), outputs=tuple(map(fixed, signature.outputs)))


def _exits_name(model: Model) -> str:
    """The name of the output that says where the row left; no output of the model has it."""
    name = EXITS
    while name in {spec.name for spec in (*model.signature.inputs, *model.signature.outputs)}:
        name += "_"
    return name


def _stage(model: Model, graph: GraphFile, exits: str) -> Stage:
    inputs = tuple(spec.name for spec in model.signature.inputs)
    return Stage(NAME, graph, inputs, tuple(spec.name for spec in model.signature.outputs), exits=exits)


def _step(variant: Variant) -> Step:
    gates = {stage.name: stage.gate.threshold for stage in variant.stages if stage.gate}
    note = f"{len(variant.stages)} stages in one graph; an exit's number is that of its threshold, the last one's is "
    return Step("nested-if", "edgewright", notes=(f"{note}{len(gates)}",), details={"thresholds": gates})


NESTED_IF = NestedIf()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (NESTED_IF,)
