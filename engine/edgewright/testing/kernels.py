"""Checks of kernels: that they compute what they stand in for, with every tile, and leave all else alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgewright.deploying.context import Workbench
from edgewright.errors import RefusedError
from edgewright.protocols import Kernel, LoadRequest, Trial
from edgewright.registry import EXPORTERS, KERNELS, LOADERS
from edgewright.store import key_of
from edgewright.task import noise_task
from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import attempt, require
from edgewright.types import Model, Offer, Refusal

if TYPE_CHECKING:
    import onnx

FAR = 1e-4
"""How far the outputs of a whole model may be from onnxruntime's own, as a share of the largest."""

LOOKALIKES = {
    **{"Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "Max": "Min", "Min": "Max"},
    **{"Relu": "Abs", "Sigmoid": "Tanh", "Tanh": "Sigmoid", "Erf": "Tanh", "Exp": "Sin", "Sqrt": "Exp"},
    **{"ReduceMean": "ReduceMax", "ReduceSum": "ReduceMax", "Softmax": "LogSoftmax"},
}
"""Operators that take and give the same and compute something else."""

TURNED = ("Add", "Div", "Mul", "Sub")


@dataclass(frozen=True)
class _Trials:
    """What became of each example, or why none could be tried."""

    done: Sequence[Trial]
    refusal: Refusal | None = None


def finds_its_examples(offer: Offer[Kernel], rig: Rig) -> Refusal | None:
    """Each of its examples is a model in which it finds a place."""
    for text, trial in zip(_examples(offer), _looked(offer, rig).done):
        require(trial.places > 0, "find", f"it finds no place in its example {_short(text)}")
    return _looked(offer, rig).refusal


def computes_what_the_graph_does(offer: Offer[Kernel], rig: Rig) -> Refusal | None:
    """Its NumPy reference gives what onnxruntime computes at each place."""
    for trial in _looked(offer, rig).done:
        require(not trial.doubts, "reference", _first(trial.doubts))
    return _looked(offer, rig).refusal


def leaves_alone_what_it_cannot_do(offer: Offer[Kernel], rig: Rig) -> Refusal | None:
    """Free sizes, other types, weights from outside, other operators, operands turned: it is right, or stays away."""
    looked = _looked(offer, rig)
    for text in _examples(offer) if looked.refusal is None else ():
        for what, changed in _changed(text):
            (trial,) = attempt("find", lambda m=changed: _tool(rig).trials(offer, (m,), None))
            require(not trial.doubts, "find", f"in {_short(text)} with {what}: {_first(trial.doubts)}")
    return looked.refusal


def is_right_with_every_tile(offer: Offer[Kernel], rig: Rig) -> Refusal | None:
    """Every tile computes the reference, in any pieces, within its memory; every instruction set is compiled for."""
    found = rig.once("trials", offer, lambda: _trials(offer, rig, compiled=True))
    for trial in found.done:
        require(not trial.lost, "compile", _first(trial.lost))
    return found.refusal


def runs_in_a_whole_model(offer: Offer[Kernel], rig: Rig) -> Refusal | None:
    """An exported model calls it, and answers as it did."""
    found = rig.once("trials", offer, lambda: _trials(offer, rig, compiled=True))
    if found.refusal or any(trial.lost for trial in found.done):
        return found.refusal or Refusal("it could not be compiled; see `is right with every tile`")
    context = _context(_examples(offer)[-1], offer, rig)
    try:
        artifacts = attempt("export", lambda: _tool(rig).export(context.original, context), (RefusedError,))
    except RefusedError as refusal:
        return Refusal(str(refusal))
    calls = sum(count for name, count in artifacts[-1].operators.items() if name.startswith("edgewright::"))
    require(calls > 0, "export", "the exported model does not call it")
    off = artifacts[-1].numerics.get("max_rel")
    if off is None:
        return Refusal("this machine does not run what was exported")
    require(off <= FAR, "mismatch", f"the exported model is off by {off:.2g} of its largest output")
    return None


def _looked(offer: Offer[Kernel], rig: Rig) -> _Trials:
    return rig.once("looked", offer, lambda: _trials(offer, rig, compiled=False))


def _trials(offer: Offer[Kernel], rig: Rig, *, compiled: bool) -> _Trials:
    texts, tool = _examples(offer), _tool(rig)
    if tool is None:
        return _Trials((), Refusal("no exporter is installed that kernels can be tried with"))
    folder = rig.store.folder("kernels") if compiled else None
    try:
        trials = attempt("find", lambda: tool.trials(offer, texts, folder), (RefusedError,))
    except RefusedError as refusal:
        return _Trials((), Refusal(str(refusal)))
    return _Trials(trials)


def _examples(offer: Offer[Kernel]) -> Sequence[str]:
    texts = attempt("examples", lambda: tuple(offer.value.examples()))
    require(bool(texts), "examples", "there is none; give graphs in which it is found, in ONNX's own text")
    return texts


def _tool(rig: Rig) -> Any:
    return next((each.value for each in rig.registry.all(EXPORTERS) if hasattr(each.value, "trials")), None)


def _context(text: str, offer: Offer[Kernel], rig: Rig) -> Workbench:
    """A context for the example as a model of its own, with this kernel and no other."""
    from onnx import parser

    path = rig.folder / f"kernel-{rig.number(offer)}.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    bench = next(iter(rig.benches.values()))
    loader = next(each.value for each in rig.registry.all(LOADERS) if each.value.accepts(str(path)))
    model: Model = loader.load(str(path), LoadRequest(rig.store, {}))
    batch = model.signature.inputs[0].shape[0]
    recipe = replace(bench.recipe, kernels=(rig.registry.name(KERNELS, offer),), batch=batch)
    task = noise_task(model.signature, seed=0)
    own = replace(bench, original=model, reference=model, task=task, recipe=recipe)
    return Workbench(own, key_of("conformance", offer.plugin, offer.value.name))


def _changed(text: str) -> Iterator[tuple[str, bytes]]:
    """The example with one thing changed that a pattern may overlook, and what that is."""
    from onnx import TensorProto, numpy_helper, parser

    first: onnx.ModelProto = parser.parse_model(text)

    def copy() -> onnx.ModelProto:
        again = type(first)()
        again.CopyFrom(first)
        return again

    free = copy()
    for value in (*free.graph.input, *free.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}_{axis}"
    yield "free sizes", free.SerializeToString()
    wide = copy()
    for value in (*wide.graph.input, *wide.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float64"), tensor.name))
    yield "doubles", wide.SerializeToString()
    yield "weights from outside", _fed(copy())
    for at, node in enumerate(first.graph.node):
        if node.op_type in LOOKALIKES:
            other = copy()
            other.graph.node[at].op_type = LOOKALIKES[node.op_type]
            yield f"{LOOKALIKES[node.op_type]} in the place of {node.op_type}", other.SerializeToString()
        if node.op_type in TURNED:
            other = copy()
            other.graph.node[at].input[:] = node.input[::-1]
            yield f"the operands of {node.op_type} turned", other.SerializeToString()


def _fed(proto: onnx.ModelProto) -> bytes:
    """With every constant of floats an input."""
    from onnx import TensorProto, helper

    weights = [tensor for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    for tensor in weights:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        proto.graph.initializer.remove(tensor)
    return proto.SerializeToString()


def _first(told: Mapping[str, str]) -> str:
    return next((f"{where}: {reason}" for where, reason in told.items()), "")


def _short(text: str) -> str:
    """A graph without its head, as far as a line takes it."""
    body = " ".join(text.partition(">")[2].split())
    return body if len(body) <= 60 else f"{body[:57]}..."
