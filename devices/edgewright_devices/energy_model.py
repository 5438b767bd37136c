"""Energy of a network from a table of what each primitive takes: modelled, never measured.

Every multiply-accumulate is an operation and an addition, whichever operation it is, and memory is counted alike for
all: weights come from DRAM once, activations pass a buffer, and tiles of `TILE` x `TILE` results read both factors
from it. So a network is a count per entry of the table, and energies are linear in the entries.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.errors import EdgewrightError
from edgewright.grids import SHIFTS
from edgewright.types import Figure, GraphFile, Measurement, Model, Row, Target, unknown
from edgewright_devices.prepare import read
from edgewright_devices.workload import Work, count

if TYPE_CHECKING:
    import onnx

TILE = 16
"""Rows and columns of results that are summed side by side: those of Eyeriss, 12 x 14, rounded up."""
WORD = 2.0
"""Bytes of a word of memory in the table."""
MODELLED = "modelled energy"


@dataclass(frozen=True)
class Entry:
    """What one operation takes in pJ, the ends between which sources put it, and the sources."""

    pj: float
    low: float
    high: float
    source: str


HOROWITZ = "Horowitz, Computing's energy problem, ISSCC 2014, figure 1.1.9 (45 nm, 0.9 V)"
SHIFT_ADD_NET = "You et al., ShiftAddNet, NeurIPS 2020, and the code of ShiftAddViT (45 nm)"
TABLE: Mapping[str, Entry] = {
    "multiply_float32": Entry(3.7, 3.7, 3.7, HOROWITZ),
    "add_float32": Entry(0.9, 0.9, 0.9, HOROWITZ),
    "multiply_float16": Entry(1.1, 1.1, 1.1, HOROWITZ),
    "add_float16": Entry(0.4, 0.4, 0.4, HOROWITZ),
    "multiply_int8": Entry(0.2, 0.2, 0.2, HOROWITZ),
    "add_int32": Entry(0.1, 0.1, 0.1, HOROWITZ),
    "shift": Entry(0.057, 0.024, 0.13, f"16 bits, which int8 moved by 6 needs; ends: 8 and 32 bits: {SHIFT_ADD_NET}"),
    "agree": Entry(0.0075, 0.00375, 0.015, f"xor and count of one bit: a quarter of add_int8's 0.03 pJ, an eighth to a "
                   f"half; our estimate from {HOROWITZ}"),
    "dram": Entry(200.0, 200.0, 650.0, f"16 bits; 200: the code of ShiftAddViT, 650: {HOROWITZ}, 2.6 nJ for 64"),
    "buffer": Entry(22.2, 5.0, 25.0, f"16 bits; 22.2: the code of ShiftAddViT; ends: 32 kB and 1 MB, {HOROWITZ}"),
}  # fmt: skip
"""The built-in table; a profile's `[operations]` replace entries."""

STEPS: Mapping[str, tuple[str, ...]] = {
    "float32": ("multiply_float32", "add_float32"),
    "float16": ("multiply_float16", "add_float16"),
    "int8": ("multiply_int8", "add_int32"),
    "shift": ("shift", "add_int32"),
    "masked": ("add_float32",),
    "signs": ("agree",),
}
"""What one multiply-accumulate of each primitive is made of."""

Counts = defaultdict[str, float]
"""How often each entry of the table is used."""


def counts_of(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], *, batch: int, int8: bool) -> Counts:
    """How often each entry is used in one run; with `int8` as if all that is float32 were in 8 bits.

    Raises: ModelError when the graph cannot be read; ValueError, naming it, for a node whose work is not known.
    """
    primitives = primitives_of(proto)
    load = count(proto, shapes, batch=batch)
    if load.opaque:
        raise ValueError(f"the work of {len(load.opaque)} nodes is not known, the first is {load.opaque[0]}")
    found: Counts = defaultdict(float)
    for work in load.works:
        primitive = primitives.get(work.name, work.dtype)
        _add(found, _counts(work, "int8" if int8 and primitive == "float32" else primitive, narrow=int8))
    return found


def _add(found: Counts, more: Counts) -> None:
    for name, number in more.items():
        found[name] += number


def _counts(work: Work, primitive: str, *, narrow: bool) -> Counts:
    """One node's. What is no product takes an addition per result; its width is the activations'."""
    found: Counts = defaultdict(float)
    for step in STEPS[primitive] if work.macs else ("add_float32",):
        found[step] += work.macs or work.ops
    share = 1 / 4 if narrow and work.dtype == "float32" else 1.0
    # A table of shifts is read at the width of the codes, 4 bits for 8.
    weights = work.weight_bytes * (share if primitive != "shift" else 1 / 2)
    found["dram"] += weights / WORD
    found["buffer"] += work.activation_bytes * share / WORD
    if work.product is not None:
        rows, columns = min(TILE, work.product.rows), min(TILE, work.product.given)
        width = {"float32": 4.0, "float16": 2.0}.get(work.dtype, 1.0) * share
        signs = {"signs": (1 / 8, 1 / 8), "masked": (1 / 8, width)}
        one, other = signs.get(primitive, (width / 2 if primitive == "shift" else width, width))
        found["buffer"] += work.macs * (one / rows + other / columns) / WORD
    return found


# ------------------------------------------------------------------ which primitive a node multiplies by

CARRY = {"Transpose", "Reshape", "DequantizeLinear", "QuantizeLinear", "Cast", "Identity", "Unsqueeze", "Squeeze"}


def primitives_of(proto: onnx.ModelProto) -> dict[str, str]:
    """By name of a node: `shift` where a factor is looked up among shifts, `signs`, `masked`: two or one of +-1."""
    import onnx.numpy_helper

    made = {name: node for node in proto.graph.node for name in node.output}
    small = [tensor for tensor in proto.graph.initializer if math.prod(tensor.dims) <= len(SHIFTS)]
    held = {tensor.name: onnx.numpy_helper.to_array(tensor).ravel().tolist() for tensor in small}

    def kind(name: str) -> str:
        node = made.get(name)
        while node is not None and node.op_type in CARRY:
            node = made.get(node.input[0])
        if node is None:
            return ""
        known = [held[each] for each in node.input if each in held]
        if node.op_type == "Gather" and known and tuple(known[0]) == SHIFTS:
            return "shift"
        return "signs" if node.op_type == "Where" and sorted(known) == [[-1.0], [1.0]] else ""

    found: dict[str, str] = {}
    for node in proto.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        kinds = {kind(name) for name in node.input[:2]}
        primitive = "shift" if "shift" in kinds else "signs" if kinds == {"signs"} else "masked" * ("signs" in kinds)
        if primitive:
            found[node.name or node.output[0]] = primitive
    return found


# ------------------------------------------------------------------ two networks side by side


def table_of(operations: Mapping[str, Figure]) -> Mapping[str, Entry]:
    """The built-in table with a profile's figures, which have no ends, in the place of its own."""
    own = {name: Entry(figure.value, figure.value, figure.value, figure.source) for name, figure in operations.items()}
    return {**TABLE, **own}


def picojoules(counts: Counts, table: Mapping[str, Entry]) -> float:
    """The energy of one run."""
    return sum(number * table[name].pj for name, number in counts.items())


def ends(counts: Sequence[Counts], table: Mapping[str, Entry]) -> tuple[float, float]:
    """The least and the largest of an energy, or of the ratio of two, as entries move between their ends together."""
    unsure = [
        name for name, entry in table.items() if entry.low < entry.high and any(each.get(name) for each in counts)
    ]
    found: list[float] = []
    for corner in itertools.product((False, True), repeat=len(unsure)):
        high = dict(zip(unsure, corner, strict=True))
        prices = {name: (e.high if high.get(name) else e.low if name in high else e.pj) for name, e in table.items()}
        first, *rest = (sum(number * prices[name] for name, number in each.items()) for each in counts)
        found.append(first / rest[0] if rest else first)
    return min(found), max(found)


def row(title: str, first: Counts, other: Counts, table: Mapping[str, Entry]) -> Row:
    """A row of a report: both energies in mJ, and how many times less the second one takes."""
    value = picojoules(first, table) / picojoules(other, table)
    ratio = Measurement("ratio", value, "x", interval=ends((first, other), table), kind="modelled")
    return Row(title, _modelled(first, table), _modelled(other, table), ratio)


def _modelled(counts: Counts, table: Mapping[str, Entry]) -> Measurement:
    low, high = ends((counts,), table)
    parts = {name: number * table[name].pj * 1e-9 for name, number in counts.items()}
    return Measurement(
        MODELLED,
        picojoules(counts, table) * 1e-9,
        "mJ",
        interval=(low * 1e-9, high * 1e-9),
        instrument="table of operations",
        kind="modelled",
        conditions={"mJ by entry": parts, "sources": {name: table[name].source for name in counts}},
    )


def compared(first: Model, other: Model, target: Target) -> tuple[Row, ...]:
    """`other` beside `first`, and beside `first` with all that is float32 in 8 bits; one row without figures, and the
    reason, where the work of a node is not known."""
    table = table_of(target.operations)
    try:
        plain, narrow, own = (_counted(model, int8) for model, int8 in ((first, False), (first, True), (other, False)))
    except (ValueError, EdgewrightError) as reason:
        nothing = unknown(MODELLED, "mJ", f"it is not modelled: {reason}")
        return (Row(MODELLED, nothing, nothing),)
    if not all(picojoules(each, table) for each in (narrow, own)):
        return ()
    return row(MODELLED, plain, own, table), row(f"{MODELLED}, original in int8", narrow, own, table)


def _counted(model: Model, int8: bool) -> Counts:
    """The counts of every stage of the first variant."""
    shapes = {name: tuple(int(size) for size in array.shape) for name, array in model.example.items()}
    batch = next((shape[0] for shape in shapes.values() if shape), 1)
    found: Counts = defaultdict(float)
    for stage in model.variants[0].stages:
        if not isinstance(stage.graph, GraphFile):
            raise ValueError(f"{model.name} is no ONNX graph")
        _add(found, counts_of(read(stage.graph.path), shapes, batch=batch, int8=int8))
    return found
