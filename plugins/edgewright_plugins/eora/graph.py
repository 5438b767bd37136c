"""The deployed graph: layers rounded by the shared writer, then one branch beside each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewright.grids import Encoding, Grid, encode, encode_closest
from edgewright.types import Array
from edgewright_plugins.eora import Params
from edgewright_plugins.eora.lowrank import Branch
from edgewright_plugins.qdq.calibrate import Feeds, find_ranges
from edgewright_plugins.qdq.layers import Layer, constant, layers_of
from edgewright_plugins.qdq.place import Scheme, activations
from edgewright_plugins.qdq.write import write

BRANCH = Grid(8, per="channel")
"""How the matrices of an int8 branch are kept."""


def encodings_of(proto: onnx.ModelProto, layers: Sequence[Layer], params: Params) -> dict[str, Encoding]:
    """How each layer's weight is rounded, by the weight's name."""
    find: Callable[[Grid, Array, int], Encoding] = encode_closest if params.rounding == "closest" else encode
    grid = Grid(params.bits, per="group", group=params.group) if params.group else Grid(params.bits)
    return {
        layer.weight: find(grid, constant(proto, layer.weight), layer.across if params.group else layer.axis)
        for layer in layers
    }


def rounded(proto: onnx.ModelProto, encodings: Mapping[str, Encoding], params: Params, feeds: Feeds) -> onnx.ModelProto:
    """The graph without branches. With 8-bit activations all layers are quantised but those that are kept."""
    if params.activations:
        ranges = find_ranges(proto, activations(proto), feeds, ("mse",))["mse"]
        return write(proto, Scheme("static-layers", kept=frozenset(params.keep)), ranges, encodings)
    left = frozenset(layer.name for layer in layers_of(proto) if layer.weight not in encodings)
    return write(proto, Scheme("weights", kept=left), {}, encodings)


def with_branch(graph: onnx.ModelProto, layer: Layer, branch: Branch, *, kind: str) -> onnx.ModelProto:
    """A copy in which the branch's answer is added to the layer's: x -> MatMul -> MatMul -> Add."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    position = next(i for i, node in enumerate(copy.graph.node) if layer.output in node.output)
    alone, narrow, added = (f"{layer.output}_{part}" for part in ("rounded", "narrow", "branch"))
    made = copy.graph.node[position]
    made.output[list(made.output).index(layer.output)] = alone
    down, first = _stored(copy, f"{layer.weight}_down", branch.down, kind)
    up, second = _stored(copy, f"{layer.weight}_up", branch.up, kind)
    nodes = [
        *first,
        *second,
        helper.make_node("MatMul", [layer.input, down], [narrow], f"{layer.name}_down"),
        helper.make_node("MatMul", [narrow, up], [added], f"{layer.name}_up"),
        helper.make_node("Add", [alone, added], [layer.output], f"{layer.name}_add"),
    ]
    for offset, node in enumerate(nodes, position + 1):
        copy.graph.node.insert(offset, node)
    return copy


def as_kept(branch: Branch, kind: str) -> Branch:
    """The branch with the values that the file will hold."""
    if kind == "float" or not branch.size:
        return branch
    return Branch(*(encode(BRANCH, matrix, 1).rounded(matrix) for matrix in (branch.down, branch.up)))


def _stored(graph: onnx.ModelProto, name: str, matrix: Array, kind: str) -> tuple[str, list[onnx.NodeProto]]:
    """Adds a matrix to the graph; the name of its float value, and the nodes that make it."""
    if kind == "float":
        graph.graph.initializer.append(numpy_helper.from_array(matrix, name))
        return name, []
    encoding = encode(BRANCH, matrix, 1)
    codes, scale, steps = (f"{name}_{part}" for part in ("codes", "scale", "steps"))
    graph.graph.initializer.append(numpy_helper.from_array(encoding.codes(matrix).astype(np.int8), codes))
    graph.graph.initializer.append(numpy_helper.from_array(encoding.scale, scale))
    # onnxruntime computes these two when it loads the file, a DequantizeLinear at every run.
    return name, [
        helper.make_node("Cast", [codes], [steps], f"{name}_cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [steps, scale], [name], f"{name}_mul"),
    ]
