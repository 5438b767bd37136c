"""Builds the torch module: runs the graph node by node on the example inputs and writes down the calls."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from edgewright.types import Arrays
from edgewright_plugins.lift.node import Call, Node, Value
from edgewright_plugins.lift.ops import OPS
from edgewright_plugins.lift.prepare import opset, prepared


@dataclass(frozen=True, eq=False)
class Lifted:
    """A torch module, and what every value of the ONNX graph came out as on the example inputs."""

    module: fx.GraphModule
    values: Mapping[str, Tensor]


def lift_graph(proto: onnx.ModelProto, example: Arrays, *, free_batch: bool = True) -> Lifted:
    """The module that computes what `proto` does: inputs by position, one tensor or a tuple of them out.

    Convolutions, products with constant matrices, norms and look-ups become layers of torch.nn, called as
    their weights are; other float tensors of the file become parameters, folded constants become buffers.

    Args:
        proto: the graph, fixed in its shapes up to those that `example` settles.
        example: one array per graph input.
        free_batch: leave axis 0 open where a shape is written out, so that other batch sizes may run.

    Raises: RefusedError naming the operators, or the node, that torch cannot stand for.
    """
    ready = prepared(proto)
    builder = Builder(ready.graph, opset(ready), free_batch=free_batch)
    with torch.no_grad():
        for value in ready.graph.input:
            if value.name not in builder.values:
                builder.add_input(value.name, torch.tensor(example[value.name]))
        for node in ready.graph.node:
            builder.add_node(node)
    return builder.finish([value.name for value in ready.graph.output])


class Builder:
    """The module under construction: an fx graph, what its values are, and what its paths hold."""

    def __init__(self, graph: onnx.GraphProto, version: int, *, free_batch: bool) -> None:
        self.graph = fx.Graph()
        self.version = version
        self.free_batch = free_batch
        self.values = {t.name: Value(t.name, _tensor(t)) for t in graph.initializer}
        self.trained = {v.name for v in self.values.values() if v.tensor.is_floating_point() and v.tensor.numel() > 1}
        self.held: dict[str, Any] = {}
        self.read: dict[Value, fx.Node] = {}
        self.tied: dict[str, nn.Parameter] = {}

    def add_input(self, name: str, tensor: Tensor) -> None:
        """One more argument of the module."""
        self.values[name] = Value(name, tensor, self.graph.placeholder(re.sub(r"\W|^(?=\d)", "_", name)))

    def add_node(self, proto: onnx.NodeProto) -> None:
        """What the node computes, on the example and as calls."""
        node = Node(
            proto.op_type,
            proto.name or proto.output[0],
            self.version,
            tuple(self.values[name] if name else None for name in proto.input),
            tuple(proto.output),
            {attribute.name: _attribute(attribute) for attribute in proto.attribute},
            self.free_batch,
        )
        try:
            results = self.parts(self.resolve(OPS[node.op](node)))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise node.refusal(f"cannot be run by torch: {error}") from error
        for name, value in zip(proto.output, results, strict=False):
            self.values[name] = value if value.name else replace(value, name=name)

    def finish(self, outputs: Sequence[str]) -> Lifted:
        """The module that returns the values of these names."""
        nodes = [self.reference(self.values[name]) for name in outputs]
        self.graph.output(nodes[0] if len(nodes) == 1 else tuple(nodes))
        module = fx.GraphModule(self.held, self.graph).eval()
        return Lifted(module, {name: value.tensor for name, value in self.values.items()})

    def resolve(self, item: Call | Value) -> Value:
        """A call as a value: run on the example, and written into the graph unless all it reads is constant."""
        if isinstance(item, Value):
            return item
        inputs: list[Value] = []

        def settle(each: Any) -> Any:
            if isinstance(each, (Call, Value)):
                inputs.append(each := self.resolve(each))
            return each

        args, kwargs = map_aggregate((item.args, dict(item.kwargs)), settle)
        tensors, names = map_aggregate((args, kwargs), _tensor_of)
        tensor = item.target(*tensors, **names)
        layer = isinstance(item.target, nn.Module)
        if not layer and all(value.constant for value in inputs):
            return Value("", tensor)
        args, kwargs = map_aggregate((args, kwargs), self.reference)
        if layer:
            return Value("", tensor, self.graph.call_module(self.hold_layer(item), args, kwargs))
        return Value("", tensor, self.graph.call_function(item.target, args, kwargs))

    def parts(self, value: Value) -> list[Value]:
        """One value per output of the call."""
        results: Any = value.tensor
        if isinstance(results, Tensor):
            return [value]
        getitem = operator.getitem
        return [
            Value("", tensor, value.source and self.graph.call_function(getitem, (value.source, i)))
            for i, tensor in enumerate(results)
        ]

    def reference(self, item: Any) -> Any:
        """The fx node of a value; a constant is first given a place in the module."""
        if not isinstance(item, Value):
            return item
        if item.source is not None:
            return item.source
        if item not in self.read:
            trained = item.name in self.trained
            held = nn.Parameter(item.tensor) if trained else nn.Buffer(item.tensor)
            self.read[item] = self.graph.get_attr(self.hold([item.name], held))
        return self.read[item]

    def hold_layer(self, call: Call) -> str:
        """The path of a layer; layers that the file gives one weight share it."""
        layer: Any = call.target
        if call.weight and layer.weight.ndim > 1:
            known = self.tied.setdefault(call.weight, layer.weight)
            if known.shape == layer.weight.shape:
                layer.weight = known
        return self.hold(call.paths, layer)

    def hold(self, wanted: Sequence[str], held: nn.Module | Tensor) -> str:
        """The path under which the module keeps `held`: the first wanted one that is free, else the last numbered."""
        paths = [_path(each) for each in wanted if each] or ["constant"]
        numbered = (f"{paths[-1]}_{number}" for number in count(1))
        path = next(path for path in chain(paths, numbered) if not self._taken(path))
        self.held[path] = held
        return path

    def _taken(self, path: str) -> bool:
        """Whether something lies there, below it, or on the way to it."""
        return any(f"{path}.".startswith(f"{one}.") or one.startswith(f"{path}.") for one in self.held)


def _path(name: str) -> str:
    """A name out of a file as attributes, dotted; of names joined by `;`, as fused layers have, the first."""
    first = name.partition(";")[0]
    atoms = [re.sub(r"\W", "_", atom) for atom in re.split(r"[./]", first) if atom] or ["constant"]
    if hasattr(fx.GraphModule, atoms[0]) or atoms[0] == "training":
        atoms[0] += "_"
    return ".".join(atoms)


def _tensor_of(item: Any) -> Any:
    return item.tensor if isinstance(item, Value) else item


def _tensor(proto: onnx.TensorProto) -> Tensor:
    array = numpy_helper.to_array(proto)
    few_bits = array.dtype.name.lstrip("u") in ("int4", "int2")
    return torch.tensor(array.astype("uint8" if array.dtype.name.startswith("u") else "int8") if few_bits else array)


def _attribute(proto: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(proto)
    if isinstance(value, onnx.TensorProto):
        return _tensor(value)
    return value.decode() if isinstance(value, bytes) else value
