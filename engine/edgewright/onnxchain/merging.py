"""Merges a stage of a chain into the next one, so that the exit between them is gone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import onnx
import onnx_ir as ir

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.onnxchain.graphs import bound, deserialized, reset, serialized, take_functions
from edgewright.types import GraphFile, Stage, Variant

Keep = Callable[[bytes, str], GraphFile]


def dropped(variant: Variant, closed: Collection[int], keep: Keep) -> Variant:
    """The chain without the exits of the stages numbered `closed`: each is merged into the stage after it.

    Raises: RefusedError when the last stage is among them, or two stages cannot stand in one graph.
    """
    if closed and max(closed) >= len(variant.stages) - 1:
        raise RefusedError(f"the last stage of {variant.name} has no exit to drop: whoever gets there ends there")
    stages: list[Stage] = []
    begun: tuple[Stage, onnx.ModelProto] | None = None
    for number, stage in enumerate(variant.stages):
        if begun is None and number not in closed:
            stages.append(stage)
            continue
        proto = onnxkit.read(stage.graph)
        begun = (stage, proto) if begun is None else merge(*begun, stage, proto)
        if number not in closed:
            stages.append(replace(begun[0], graph=keep(onnxkit.pack(begun[1]), "onnx")))
            begun = None
    return replace(variant, stages=tuple(stages))


def merge(
    first: Stage, first_proto: onnx.ModelProto, then: Stage, then_proto: onnx.ModelProto
) -> tuple[Stage, onnx.ModelProto]:
    """Two stages as one that returns what `then` does; the answer and score of `first` go, with all only they needed.

    The Stage is named like `then` and still holds its graph: keep the file that comes with it, and put it there.
    Raises: RefusedError when their opsets differ and cannot be brought together.
    """
    a, b = deserialized([first_proto, then_proto])
    before = list(a.graph.inputs)
    given = dict(zip(first.inputs, before))
    new = {name: value for name, value in zip(then.inputs, b.graph.inputs) if name not in given}
    carried = a.graph.outputs[len(first.outputs) :][: len(first.carry)]
    names = [str(value.name) for value in b.graph.outputs]
    results = bound(b.graph, [*(({**given, **new})[name] for name in then.inputs), *carried])
    reset(a.graph.inputs, [*before[: len(given)], *new.values(), *before[len(given) :]])
    _absorb(a, b)
    reset(a.graph.outputs, _named(a.graph, results, names))
    proto = serialized(a)
    carry = [value.name for value in proto.graph.output][len(then.outputs) :][: len(then.carry)]
    free = first.free_rows and then.free_rows
    return replace(then, inputs=(*first.inputs, *new), carry=tuple(carry), free_rows=free), proto


def _absorb(into: ir.Model, other: ir.Model) -> None:
    """Move nodes, weights and functions over; a matrix that both hold stands there once."""
    nodes = list(other.graph)
    other.graph.remove(nodes)
    _take_weights(into.graph, other.graph)
    into.graph.extend(nodes)
    take_functions(into, other)


def _take_weights(into: ir.Graph, other: ir.Graph) -> None:
    """Matrices of equal content become one. Vectors and numbers do not: methods tell them apart by name."""
    known = {_content(value): value for value in into.initializers.values() if _is_matrix(value)}
    for value in list(other.initializers.values()):
        del other.initializers[str(value.name)]
        same = known.get(_content(value)) if _is_matrix(value) else None
        if same is not None:
            value.replace_all_uses_with(same)
            continue
        value.name = _free_name(str(value.name), into.initializers)
        into.register_initializer(value)


def _is_matrix(value: ir.Value) -> bool:
    return value.const_value is not None and len(value.const_value.shape) > 1


def _content(value: ir.Value) -> tuple[object, ...]:
    tensor = value.const_value
    assert tensor is not None
    return tensor.dtype, tuple(tensor.shape), hashlib.sha256(tensor.tobytes()).digest()


def _named(graph: ir.Graph, values: Sequence[ir.Value], names: Sequence[str]) -> list[ir.Value]:
    """The values under the names of outputs; one of another name, or an input, is copied."""
    found: list[ir.Value] = []
    for value, name in zip(values, names):
        if value.name == name and value.producer() is not None:
            found.append(value)
            continue
        copy = ir.node("Identity", [value], name=f"{name}_copy")
        copy.outputs[0].name, copy.outputs[0].type, copy.outputs[0].shape = name, value.type, value.shape
        graph.append(copy)
        found.append(copy.outputs[0])
    return found


def _free_name(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name
