"""Nests a chain into one graph that decides inside: behind each gate an `If` whose else-branch is the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.onnxchain.graphs import bound, deserialized, reset, serialized, take_functions
from edgewright.types import Signature, Stage, TensorSpec, Variant


@dataclass(frozen=True, eq=False)
class _Piece:
    """A stage whose graph has neither inputs nor outputs any more; what it would return stands here."""

    name: str
    graph: ir.Graph
    answers: tuple[ir.Value, ...]
    score: ir.Value
    threshold: float | None


def nested(variant: Variant, signature: Signature, *, exits: str = "exits") -> onnx.ModelProto:
    """The chain as one graph: behind each gate an `If` whose else-branch is the rest of the chain.

    It takes the signature's inputs and returns its outputs, then `exits` int64 [1], the number of the stage where the
    row left. Thresholds are the initializers `threshold_0`, `threshold_1`, ... of the outermost graph, so that they
    can be edited in the file. Each weight stands in the branch that needs it: onnxruntime then packs it beforehand, and
    takes 0.95 to 1.00 times as long as the stages one by one, 1.05 to 1.20 with all weights in the outermost graph
    (1.31, 12 layers of 512 x 512, float32 and int8, one thread).
    Raises: RefusedError when rows are more than one, a gate has no threshold, or stages cannot stand in one graph.
    """
    _check_nestable(variant, signature)
    models = deserialized([onnxkit.read(stage.graph) for stage in variant.stages])
    top, given = models[0], dict[str, ir.Value]()
    pieces = _pieces(variant.stages, models, given, signature.outputs)
    for model in models[1:]:
        take_functions(top, model)
    inputs = [given.get(spec.name) or ir.val(spec.name) for spec in signature.inputs]
    reset(top.graph.inputs, [_typed(value, spec) for value, spec in zip(inputs, signature.inputs)])
    thresholds = [_threshold(top.graph, number, piece) for number, piece in enumerate(pieces[:-1])]
    specs = (*signature.outputs, TensorSpec(exits, "int64", (1,)))
    reset(pieces[-1].graph.outputs, _answer(pieces[-1].graph, pieces[-1], len(pieces) - 1, specs))
    for number in reversed(range(len(pieces) - 1)):
        _choose(pieces[number], thresholds[number], number, pieces[number + 1].graph, specs)
    for value, spec in zip((*top.graph.inputs, *top.graph.outputs), (*signature.inputs, *specs)):
        value.name = spec.name
    return serialized(top)


def _check_nestable(variant: Variant, signature: Signature) -> None:
    several = [spec for spec in signature.inputs if spec.shape and spec.shape[0] != 1]
    if several:
        raise RefusedError(
            f"an If decides for all rows at once, so it takes one row, and {several[0].describe()} has more: "
            "deploy with --batch 1, or keep the stages"
        )
    for stage in variant.stages[:-1]:
        if stage.gate is None or stage.gate.threshold is None:
            raise RefusedError(f"the stage {stage.name!r} has no threshold to decide by: fit the gates first")


def _pieces(
    stages: Sequence[Stage], models: Sequence[ir.Model], given: dict[str, ir.Value], outputs: Sequence[TensorSpec]
) -> list[_Piece]:
    """The stages joined to one another; `given` gets the value of each of the model's inputs."""
    pieces: list[_Piece] = []
    carried: Sequence[ir.Value] = ()
    for stage, model in zip(stages, models):
        for name, value in zip(stage.inputs, model.graph.inputs):
            given.setdefault(name, value)
        returned = bound(model.graph, [*(given[name] for name in stage.inputs), *carried])
        _prefix(model.graph, stage.name)
        answers = dict(zip(stage.outputs, returned))
        carried = returned[len(stage.outputs) :][: len(stage.carry)]
        threshold = stage.gate.threshold if stage.gate else None
        ordered = tuple(answers[spec.name] for spec in outputs)
        pieces.append(_Piece(stage.name, model.graph, ordered, returned[-1], threshold))
    return pieces


def _prefix(graph: ir.Graph, stage: str) -> None:
    """Names that say whose they are, and so are met once in the whole file."""
    for value in list(graph.initializers.values()):
        value.name = f"{stage}/{value.name}"
    for node in graph.all_nodes():
        node.name = f"{stage}/{node.name or node.op_type}"
        for value in node.outputs:
            value.name = f"{stage}/{value.name}"


def _threshold(top: ir.Graph, number: int, piece: _Piece) -> ir.Value:
    name = f"threshold_{number}"
    tensor = ir.tensor(np.array(piece.threshold, np.float32), name=name)
    value = ir.val(name, ir.DataType.FLOAT, ir.Shape([]), const_value=tensor)
    top.register_initializer(value)
    return value


def _choose(piece: _Piece, threshold: ir.Value, number: int, rest: ir.Graph, specs: Sequence[TensorSpec]) -> None:
    """End a stage's graph with its gate: its answer, or what `rest` answers. NaN is not at least anything."""
    leave = ir.Graph([], [], nodes=[], name=f"{piece.name}/leave")
    reset(leave.outputs, _answer(leave, piece, number, specs))
    passed = ir.node("GreaterOrEqual", [piece.score, threshold], name=f"{piece.name}/gate")
    passed.outputs[0].name = f"{piece.name}/leaves"
    results = [_typed(ir.val(f"{piece.name}/if/{spec.name}"), spec) for spec in specs]
    branches = {"then_branch": leave, "else_branch": rest}
    choice = ir.node("If", passed.outputs, branches, outputs=results, name=f"{piece.name}/if")
    piece.graph.extend([passed, choice])
    reset(piece.graph.outputs, results)


def _answer(graph: ir.Graph, piece: _Piece, number: int, specs: Sequence[TensorSpec]) -> list[ir.Value]:
    """What a row that ends at `piece` returns, made inside `graph`: a branch cannot return a value from outside."""
    constant = ir.node("Constant", [], {"value": ir.tensor(np.array([number], np.int64))}, name=f"{piece.name}/exit")
    nodes = [ir.node("Identity", [value], name=f"{piece.name}/answer/{value.name}") for value in piece.answers]
    graph.extend([*nodes, constant])
    made = [node.outputs[0] for node in (*nodes, constant)]
    for value, spec in zip(made, specs):
        value.name = f"{piece.name}/answer/{spec.name}"
        _typed(value, spec)
    return made


def _typed(value: ir.Value, spec: TensorSpec) -> ir.Value:
    """A value with the type and shape of a signature's tensor."""
    value.dtype = ir.DataType.from_numpy(np.dtype(spec.dtype))
    value.shape = ir.Shape(spec.shape)
    return value
