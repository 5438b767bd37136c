"""Rewrites an ONNX graph to 16-bit floats around its islands.

One algorithm for fp16 and bf16: a value is kept in the type its producer makes, and a Cast stands only
where a consumer wants the other one. Weights are never clipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.types import Arrays
from edgewright_plugins.half import Params
from edgewright_plugins.half.floats import TYPES, HalfType, fits, is_float
from edgewright_plugins.half.islands import Islands, find_islands
from edgewright_plugins.half.peaks import measure_peaks
from edgewright_plugins.qdq.scores import score_nodes
from edgewright_plugins.simplify.graph import raise_opset

CAST_OPSET = 13
"""From it on, Cast knows bfloat16."""


def convert(proto: onnx.ModelProto, feeds: Sequence[Arrays], params: Params) -> tuple[onnx.ModelProto, Islands]:
    """The graph with its float32 nodes in `params.dtype`, inputs and outputs as they were.

    Nodes whose values come close to the type's largest on `feeds`, or whose constants overflow it, stay in
    float32; so do those that onnxruntime cannot run otherwise.
    Raises: RefusedError when the opset is too old and cannot be raised.
    """
    half = TYPES[params.dtype]
    raised, _ = raise_opset(proto)
    if onnxkit.opsets(raised)["ai.onnx"] < CAST_OPSET:
        raise RefusedError(f"half needs opset {CAST_OPSET}, and this file cannot be raised to it; export it again")
    typed = _typed(raised)
    model = ir.serde.deserialize_model(typed)
    islands = find_islands(model, half, measure_peaks(typed, feeds), params.headroom, score_nodes(typed))
    _rewrite(model.graph, islands, half)
    passes.RemoveUnusedNodesPass()(model)
    passes.NameFixPass()(model)
    return ir.serde.serialize_model(model), islands


def _typed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with named nodes, constants as initializers, and the type of every value noted."""
    model = ir.serde.deserialize_model(proto)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in model.graph:
        node.name = node.name or f"{node.op_type}_{node.outputs[0].name}"
    passes.NameFixPass()(model)
    return onnx.shape_inference.infer_shapes(ir.serde.serialize_model(model), data_prop=True)


def _rewrite(graph: ir.Graph, islands: Islands, half: HalfType) -> None:
    casts = _Casts(graph, half, {n.outputs[i] for n, slots in islands.halved.items() for i in slots.outputs})
    for node in list(graph.all_nodes()):
        slots = islands.halved.get(node)
        for index, value in enumerate(node.inputs):
            if value is None or not is_float(value):
                continue
            if slots is not None and index in slots.inputs:
                node.replace_input_with(index, casts.halved(value))
            elif node in islands.lacking and _is_weight(value, half):
                node.replace_input_with(index, casts.restored(value))
            else:
                node.replace_input_with(index, casts.full(value))
    casts.finish()


def _is_weight(value: ir.Value, half: HalfType) -> bool:
    """Kernels and matrices may be kept in 16 bits though their node is not; vectors and numbers are not worth it."""
    array = value.const_value
    return value.is_initializer() and array is not None and len(array.shape) >= 2 and fits(array.numpy(), half)


@dataclass
class _Casts:
    """The other form of each value, made once. `stored` are the values whose producers make 16 bits."""

    graph: ir.Graph
    half: HalfType
    stored: set[ir.Value]
    known: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)

    def halved(self, value: ir.Value) -> ir.Value:
        """The value in 16 bits."""
        if value in self.stored:
            return value
        return self._once(value, self.half.code)

    def full(self, value: ir.Value) -> ir.Value:
        """The value in float32."""
        return self._once(value, ir.DataType.FLOAT) if value in self.stored else value

    def restored(self, weight: ir.Value) -> ir.Value:
        """A weight in float32 that is kept in 16 bits."""
        return self._once(self.halved(weight), ir.DataType.FLOAT)

    def finish(self) -> None:
        """Give the graph's outputs back in float32 under their names, and note the types of the rest."""
        for index, value in enumerate(self.graph.outputs):
            if value in self.stored:
                output = self.full(value)
                output.name, value.name = value.name, f"{value.name}_{self.half.name}"
                self.graph.outputs[index] = output
        for value in self.stored:
            value.dtype = self.half.code

    def _once(self, value: ir.Value, code: ir.DataType) -> ir.Value:
        if (value, code) not in self.known:
            constant = value.is_initializer() and code == self.half.code
            self.known[value, code] = self._constant(value) if constant else self._cast(value, code)
        return self.known[value, code]

    def _constant(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        name = f"{value.name}_{self.half.name}"
        tensor = ir.tensor(value.const_value.numpy().astype(self.half.numpy), name=name)
        other = ir.Value(name=name, type=ir.TensorType(self.half.code), shape=value.shape, const_value=tensor)
        self.graph.register_initializer(other)
        return other

    def _cast(self, value: ir.Value, code: ir.DataType) -> ir.Value:
        name = f"{value.name}_{code.name.lower()}"
        output = ir.Value(name=name, type=ir.TensorType(code), shape=value.shape)
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", code)], outputs=[output], name=f"Cast_{name}")
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        return output
