"""Counts what an ONNX graph asks of a device: operations and bytes, node by node, at the width they run in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright_devices.fusions import fuse
from edgewright_devices.nodes import Node, nodes_of
from edgewright_devices.prepare import branches, prepare, read
from edgewright_devices.shapes import EXTERNAL, sizes_of

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]

VIEWS = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Shape", "Size"}
"""Operators that runtimes answer without touching the data."""

MOVED = VIEWS | {"Transpose"}
"""Operators whose result is as wide as what they read."""

CONVOLUTIONS = {"Conv", "ConvInteger", "ConvTranspose"}
PRODUCTS = {"MatMul", "MatMulInteger"}
RECURRENT = {"RNN", "GRU", "LSTM"}
MULTIPLIES = CONVOLUTIONS | PRODUCTS | RECURRENT | {"Gemm", "Einsum"}
OPAQUE = {"Loop", "Scan", "Attention", "MultiHeadAttention", "GroupQueryAttention", "MatMulNBits", "DeformConv"}
"""Operators whose work cannot be read from shapes alone; they are reported, never counted as nothing."""

WIDE = {
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "Gelu", "Swish", "Erf", "Exp", "Log", "Sqrt",
    "Div", "Pow", "Reciprocal", "Softplus", "Mish", "ReduceMean", "ReduceSum",
}  # fmt: skip
"""Operators that no runtime has integer kernels for: between quantised tensors they compute in float all the same."""

FUSED = {"BatchNormalization", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish"}
"""Operators that runtimes fold into the product whose result they take, when nothing else takes it."""

SELECT = {"Gather", "GatherElements", "GatherND", "Slice"}
"""Operators that read no more of their first input than they write."""

PARAMETRIC = {"Resize", "Pad", "Slice", "Clip", "Expand", "Tile", "QuantizeLinear", "Split", "ReduceMean"}
"""Operators whose inputs after the first are parameters, not data."""

FLOATS = {1, 10, 11}
"""FLOAT, FLOAT16 and DOUBLE, by their number in TensorProto.DataType."""


@dataclass(frozen=True)
class Product:
    """The loops of a node that multiplies: each of `rows` results of `given` values sums over `taken` x `window`.

    `given` counts all groups, `taken` one of them. `constant` tells weights from data on the right side.
    """

    rows: int
    taken: int
    given: int
    window: int = 1
    stride: int = 1
    groups: int = 1
    constant: bool = True


@dataclass(frozen=True)
class Work:
    """What one node asks for. `operator` is the standard one that does the same work; `ops` counts a MAC as two
    (other nodes: one per output element). `dtype` is what the node computes in: `int8` between quantised tensors,
    `float16`, else `float32`. `product` says how a node that multiplies does it. `idle` marks work on what is known
    to be 0: some runtimes leave it out. `fed` are the values among what it reads that come from outside the graph.
    `critical` marks what multiplies on the path with the most MACs: no runtime can do that at the same time as the
    rest of the path, however many kernels it runs at once.
    """

    name: str
    operator: str
    dtype: str
    macs: int
    ops: int
    weight_bytes: int
    activation_bytes: int
    product: Product | None = None
    idle: bool = False
    fed: int = 0
    critical: bool = False

    @property
    def bytes(self) -> int:
        """All that moves between the node and memory, if nothing stays in a cache."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True)
class Workload:
    """The nodes of a graph that cost something, and by name and operator those that could not be counted.

    `opaque` ones may hide most of the work; `uncounted` ones only move data, whose size is not known.
    """

    works: tuple[Work, ...]
    opaque: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(work.macs for work in self.works)

    @property
    def weight_bytes(self) -> int:
        """Weights read in one run, at their stored width; a shared weight counts each time it is read."""
        return sum(work.weight_bytes for work in self.works)


def workload(path: Path, shapes: Mapping[str, Shape] | None = None, *, batch: int = 1) -> Workload:
    """What one run of the ONNX file at `path` asks for.

    `shapes` are the sizes of inputs by name; for other inputs a free first dimension is `batch`, any other 1.
    The branches of an `If` count as the dearer of the two.

    Raises: ModelError when the file cannot be read.
    """
    return count(read(path), shapes, batch=batch)


def count(proto: onnx.ModelProto, shapes: Mapping[str, Shape] | None = None, *, batch: int = 1) -> Workload:
    """`workload` of a model in memory, which is changed."""
    prepared = prepare(proto, shapes or {}, batch)
    return _count(prepared.graph, prepared.nodes, _Tensors())


@dataclass
class _Tensors:
    """What is known about the tensors of a graph: shapes, bits per element, and which are constant.

    `products` are results that what follows may finish, `zeros` known to be 0, `widened` read by float kernels alone,
    `inputs` come from outside.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    bits: dict[str, int] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    quantised: set[str] = field(default_factory=set)
    products: set[str] = field(default_factory=set)
    zeros: set[str] = field(default_factory=set)
    widened: set[str] = field(default_factory=set)
    inputs: set[str] = field(default_factory=set)

    def copy(self) -> _Tensors:
        """A copy for a branch, which sees its parent's tensors."""
        sets = (set(self.constants), set(self.quantised), set[str](), set(self.zeros))
        return _Tensors(dict(self.shapes), dict(self.bits), *sets)

    def type(self, name: str, elem_type: int) -> None:
        """Note the element type of a tensor."""
        self.bits[name] = _bits(elem_type)
        if elem_type in _integers():
            self.quantised.add(name)

    def size(self, name: str) -> int:
        """Elements of a tensor."""
        return math.prod(self.shapes[name])

    def bytes(self, name: str) -> int:
        """Bytes of a tensor as it is stored."""
        return math.ceil(self.size(name) * self.bits.get(name, 32) / 8)


def _count(graph: onnx.GraphProto, nodes: Sequence[Node], tensors: _Tensors) -> Workload:
    tensors = tensors.copy()
    _read_constants(graph, tensors)
    nodes = fuse(nodes, tensors.constants, [value.name for value in graph.output])
    _read_tensors(graph, nodes, tensors)
    works: list[Work] = []
    opaque: list[str] = []
    uncounted: list[str] = []
    path = _heaviest_path(nodes, tensors)
    for node in nodes:
        if node.op_type == "If":
            inner = max((_count(each, nodes_of(each), tensors) for each in branches(node)), key=lambda load: load.macs)
            works += inner.works
            opaque += inner.opaque
            uncounted += inner.uncounted
        elif _is_free(node, tensors):
            continue
        elif not _is_opaque(node) and _known(node, tensors):
            works.append(_work(node, tensors, critical=node.output[0] in path))
        elif _is_opaque(node) or _multiplies(node):
            opaque.append(_label(node))
        else:
            uncounted.append(_label(node))
    return Workload(tuple(works), tuple(opaque), tuple(uncounted))


def _heaviest_path(nodes: Sequence[Node], tensors: _Tensors) -> set[str]:
    """What is written along the path through the graph that has the most MACs, work on zeros left out."""
    total: dict[str, int] = {"": 0}
    before: dict[str, str] = {}
    for node in nodes:
        most, longest = max([(total.get(name, 0), name) for name in node.input], default=(0, ""))
        own = _live_macs(node, tensors) if _multiplies(node) else 0
        for name in node.output:
            total[name], before[name] = most + own, longest
    path, name = set[str](), max(total, key=lambda name: total[name])
    while name in before:
        path.add(name)
        name = before[name]
    return path


def _live_macs(node: Node, tensors: _Tensors) -> int:
    counted = not _is_opaque(node) and _known(node, tensors) and tensors.zeros.isdisjoint(_data(node, tensors))
    return _macs(node, _operands(node), tensors) if counted else 0


def _label(node: Node) -> str:
    return f"{node.name} ({node.op_type})"


def _is_opaque(node: Node) -> bool:
    """Whether shapes do not tell the node's work: a loop, an attention, an operator of someone's own."""
    return node.op_type in OPAQUE or node.domain not in {"", "ai.onnx", "ai.onnx.ml"}


def _read_constants(graph: onnx.GraphProto, tensors: _Tensors) -> None:
    for initializer in graph.initializer:
        name, sizes, kind = initializer.name, tuple(initializer.dims), initializer.data_type
        tensors.shapes[name] = sizes
        tensors.type(name, kind)
        tensors.constants.add(name)
        if kind in FLOATS and math.prod(sizes) == 1 and _is_zero(initializer):
            tensors.zeros.add(name)


def _read_tensors(graph: onnx.GraphProto, nodes: Sequence[Node], tensors: _Tensors) -> None:
    for value in (*graph.input, *graph.value_info, *graph.output):
        name, tensor = value.name, value.type.tensor_type
        sizes = sizes_of(tensor)
        if sizes is not None:
            tensors.shapes.setdefault(name, sizes)
        if name not in tensors.bits:
            tensors.type(name, tensor.elem_type)
    tensors.inputs.update(value.name for value in graph.input)
    uses = Counter(chain.from_iterable(node.input for node in nodes))
    for node in nodes:
        _follow(node, tensors)
        if uses[node.output[0]] == 1 and (_multiplies(node) or _is_fused(node, tensors)):
            tensors.products.add(node.output[0])
    _narrow_outputs(nodes, tensors)
    wide = (node for node in nodes if node.op_type in WIDE and node.op_type not in FUSED)
    tensors.widened.update(name for node in wide for name in node.input)


def _follow(node: Node, tensors: _Tensors) -> None:
    """Mark what is constant, and give dequantised tensors the width they are stored in."""
    read = [name for name in node.input if name]
    if node.op_type == "Constant" or (read and tensors.constants.issuperset(read)):
        tensors.constants.update(node.output)
    if _gives_zeros(node, tensors):
        tensors.zeros.update(node.output)
    if node.op_type == "DequantizeLinear":
        tensors.bits[node.output[0]] = tensors.bits.get(node.input[0], 8)
        tensors.quantised.add(node.output[0])
    elif node.op_type in MOVED and read and read[0] in tensors.quantised:
        tensors.bits[node.output[0]] = tensors.bits[read[0]]
        tensors.quantised.add(node.output[0])


def _gives_zeros(node: Node, tensors: _Tensors) -> bool:
    """Whether all that the node writes is 0, or as constant as that: it multiplies by 0, or reads nothing else."""
    if not tensors.zeros:
        return False
    if node.op_type == "Mul":
        return any(name in tensors.zeros for name in node.input)
    data = _data(node, tensors)
    return bool(data) and all(name in tensors.zeros for name in data)


def _is_zero(initializer: onnx.TensorProto) -> bool:
    """Whether a constant of one float is 0; a zero point is none."""
    from onnx import numpy_helper

    if initializer.data_location == EXTERNAL:
        return False
    if initializer.raw_data or initializer.float_data:
        return not any(initializer.raw_data or initializer.float_data)
    return not numpy_helper.to_array(initializer).any()


def _narrow_outputs(nodes: Sequence[Node], tensors: _Tensors) -> None:
    """A node between DequantizeLinear and QuantizeLinear runs fused with both: its output is written narrow."""
    by_output = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type != "QuantizeLinear":
            continue
        names = [node.input[0]]
        while names[-1] in by_output and _is_fused(by_output[names[-1]], tensors):
            names.append(_data(by_output[names[-1]], tensors)[0])
        if names[-1] in by_output and _is_quantised(by_output[names[-1]], tensors):
            tensors.bits.update(dict.fromkeys(names, tensors.bits.get(node.output[0], 8)))
            tensors.quantised.update(names)


def _is_quantised(node: Node, tensors: _Tensors) -> bool:
    """Whether the node computes on narrow integers: those it reads, or those it reads dequantised."""
    operands = _operands(node)[:2]
    narrow = bool(operands) and all(name in tensors.quantised for name in operands)
    return narrow and node.op_type not in WIDE


def _is_free(node: Node, tensors: _Tensors) -> bool:
    """Constant expressions are folded, views move nothing, and (de)quantising is fused into its neighbours."""
    if tensors.constants.issuperset(node.output) or node.op_type in VIEWS:
        return True
    if node.op_type == "QuantizeLinear":
        return node.input[0] in tensors.quantised
    if node.op_type == "DequantizeLinear":
        return node.output[0] not in tensors.widened
    return _is_fused(node, tensors)


def _is_fused(node: Node, tensors: _Tensors) -> bool:
    """Whether the node only finishes a product: normalises it, activates it or adds a constant to it."""
    if node.op_type not in FUSED and (node.op_type not in {"Add", "Mul"} or len(node.input) != 2):
        return False
    data = _data(node, tensors)
    return len(data) == 1 and data[0] in tensors.products


def _data(node: Node, tensors: _Tensors) -> list[str]:
    return [name for name in node.input if name and name not in tensors.constants]


def _multiplies(node: Node) -> bool:
    return node.op_type in MULTIPLIES


def _known(node: Node, tensors: _Tensors) -> bool:
    return node.output[0] in tensors.shapes and all([name in tensors.shapes for name in _operands(node)])


def _operands(node: Node) -> list[str]:
    """The data that the node reads, weights included."""
    read = [name for name in node.input if name]
    if node.op_type.endswith("Integer"):
        return read[:2]
    return read[:1] if node.op_type in PARAMETRIC else read


def _work(node: Node, tensors: _Tensors, *, critical: bool) -> Work:
    read = _operands(node)
    macs = _macs(node, read, tensors)
    weights = sum(tensors.bytes(name) for name in read if name in tensors.constants)
    moved = sum(tensors.bytes(name) for name in read if name not in tensors.constants)
    written = sum(tensors.bytes(name) for name in node.output if name in tensors.shapes)
    moved = min(moved, written) if node.op_type in SELECT else moved
    return Work(
        name=node.name,
        operator=node.op_type,
        dtype=_dtype(node, tensors),
        macs=macs,
        ops=2 * macs or tensors.size(node.output[0]),
        weight_bytes=weights,
        activation_bytes=moved + written,
        product=_product(node, read, tensors, macs) if macs else None,
        idle=any(name in tensors.zeros for name in (*_data(node, tensors), *node.output)),
        fed=sum(tensors.size(name) for name in read if name in tensors.inputs),
        critical=critical and macs > 0,
    )


def _macs(node: Node, read: Sequence[str], tensors: _Tensors) -> int:
    """Multiply-accumulates of a node: each element of the output times what is summed into it."""
    if not _multiplies(node):
        return 0
    if node.op_type == "Einsum":
        return _einsum_macs(node, tensors)
    if node.op_type in RECURRENT:
        return _recurrent_macs(node, tensors)
    left, right = (tensors.shapes[name] for name in read[:2])
    if node.op_type in CONVOLUTIONS:
        # a transposed convolution spreads each input element instead of gathering into each output element
        spread = node.op_type.endswith("Transpose")
        return (math.prod(left) if spread else tensors.size(node.output[0])) * math.prod(right[1:])
    summed = left[0] if node.op_type == "Gemm" and _attribute(node, "transA", 0) else left[-1]
    return tensors.size(node.output[0]) * summed


def _recurrent_macs(node: Node, tensors: _Tensors) -> int:
    """Every step of every example multiplies by both weight matrices."""
    steps, batch = tensors.shapes[node.input[0]][:2]
    return steps * batch * (tensors.size(node.input[1]) + tensors.size(node.input[2]))


def _einsum_macs(node: Node, tensors: _Tensors) -> int:
    """The product of the sizes of all labels."""
    terms = _attribute(node, "equation", b"").decode().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input):
        sizes.update(zip(term, tensors.shapes[name]))
    return math.prod(sizes.values()) if len(terms) > 1 else 0


def _product(node: Node, read: Sequence[str], tensors: _Tensors, macs: int) -> Product:
    """The loops behind `macs`."""
    right, constant = tensors.shapes[read[1]], read[1] in tensors.constants
    if node.op_type in CONVOLUTIONS:
        groups = _attribute(node, "group", 1)
        spread = node.op_type.endswith("Transpose")
        taken, given = (right[0] // groups, right[1] * groups) if spread else (right[1], right[0])
        strides = _attribute(node, "strides", [1])
        rows = macs // max(1, taken * given * math.prod(right[2:]))
        return Product(rows, taken, given, math.prod(right[2:]), max(strides), groups, constant)
    summed = max(1, macs // max(1, tensors.size(node.output[0])))
    given = tensors.shapes[node.output[0]][-1] if tensors.shapes[node.output[0]] else 1
    return Product(max(1, macs // (summed * max(1, given))), summed, given, constant=constant)


def _dtype(node: Node, tensors: _Tensors) -> str:
    if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        return "int8"
    if _is_quantised(node, tensors):
        return "int8"
    return "float16" if tensors.bits.get(node.input[0], 32) == 16 else "float32"


def _attribute(node: Node, name: str, default: Any) -> Any:
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


@cache
def _integers() -> frozenset[int]:
    """The integer types that weights and activations are quantised to."""
    import onnx

    names = onnx.TensorProto.DataType
    narrow = {"INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"}
    return frozenset(value for name, value in names.items() if name in narrow)


@cache
def _bits(elem_type: int) -> int:
    """Bits per element of an ONNX type; 32 for those without a fixed width."""
    import onnx

    names = onnx.TensorProto.DataType
    narrow = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2, "BOOL": 8, "BFLOAT16": 16}
    label = names.Name(elem_type) if elem_type in names.values() else ""
    if label in narrow:
        return narrow[label]
    if label in {"", "UNDEFINED", "STRING"}:
        return 32
    return int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize) * 8
