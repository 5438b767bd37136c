"""How integers of 2 to 8 bits lie in an ONNX file: in which type, from which opset on, and behind which nodes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from edgewright import onnxkit
from edgewright.grids import SHIFTS, Encoding, Grid, are_shifts
from edgewright.types import Array
from edgewright_plugins.qdq.parts import Parts

OPSETS = {2: 25, 4: 21, 8: 1}
"""The first opset that has integers of so many bits."""
BLOCKS = 21
"""The first opset with a scale per group."""
ENOUGH = 512
"""So many shifts take less room with their table and its nodes than in a byte each."""
TYPES = {
    (2, True): TensorProto.INT2,
    (2, False): TensorProto.UINT2,
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
}


def with_room(proto: onnx.ModelProto, grids: Iterable[Grid], *, shifts: bool = False) -> onnx.ModelProto:
    """The graph at the lowest opset that can store codes of these grids, and `shifts`, in as few bits as they have.

    A graph that cannot be raised that far stays lower, and its codes take more bits (see `stored_bits`).
    """
    needed = [OPSETS[4] if shifts else 1]
    needed += [max(OPSETS[grid.stored_bits], BLOCKS if grid.per == "group" else 1) for grid in grids]
    wanted = max(needed) if holds_two_bits() else min(max(needed), BLOCKS)
    return _raised(proto, wanted) or _raised(proto, min(wanted, BLOCKS)) or proto


def stored_bits(grid: Grid, opset: int) -> int:
    """The bits that a code takes in a file of this opset: 2, 4 or 8."""
    return next(bits for bits in (2, 4, 8) if bits >= grid.bits and opset >= OPSETS[bits])


def put_codes(parts: Parts, name: str, codes: Array, grid: Grid, opset: int) -> list[onnx.NodeProto]:
    """Store codes so that `name` is a tensor of bytes; returns the nodes that make it one, if any are needed.

    Runtimes compute them when they load the file, and run the same kernels as with codes stored in bytes.
    """
    bits = stored_bits(grid, opset)
    if bits == 8 and packs(codes) and opset >= OPSETS[4]:
        return _put_shifts(parts, name, codes)
    if bits == 8:
        parts.constants[name] = packed(name, codes, 8, signed=grid.signed)
        return []
    parts.constants.pop(name, None)
    parts.constants[f"{name}_packed"] = packed(f"{name}_packed", codes, bits, signed=grid.signed)
    return [helper.make_node("Cast", [f"{name}_packed"], [name], f"{name}_unpack", to=TYPES[8, grid.signed])]


def packs(codes: Array) -> bool:
    """Whether codes of a byte are stored as shifts, in four bits each."""
    return codes.size >= ENOUGH and are_shifts(codes)


def _put_shifts(parts: Parts, name: str, codes: Array) -> list[onnx.NodeProto]:
    """Signs and powers in four bits each, and the table that says which byte each of them is."""
    parts.constants.pop(name, None)
    places = np.zeros(129, np.uint8)
    places[list(SHIFTS)] = np.arange(len(SHIFTS))  # negative ones count from the end
    places[0] = 0
    numbers, table = f"{name}_shifts", f"{name}_table"
    parts.constants[numbers] = packed(numbers, places[codes], 4, signed=False)
    parts.constants[table] = packed(table, np.array(SHIFTS), 8, signed=True)
    return [
        helper.make_node("Cast", [numbers], [f"{numbers}_wide"], f"{numbers}_unpack", to=TensorProto.INT32),
        helper.make_node("Gather", [table, f"{numbers}_wide"], [name], f"{name}_look_up"),
    ]


def packed(name: str, codes: Array, bits: int, *, signed: bool) -> onnx.TensorProto:
    """A tensor that holds integers in `bits` bits each (2, 4 or 8)."""
    dtype = helper.tensor_dtype_to_np_dtype(TYPES[bits, signed])
    return numpy_helper.from_array(np.asarray(codes).astype(dtype), name)


def where(encoding: Encoding) -> dict[str, Any]:
    """The attributes of a DequantizeLinear: along which axis its scales lie, and how many values share one."""
    if encoding.grid.per == "tensor":
        return {}
    if encoding.grid.per == "channel":
        return {"axis": encoding.axis}
    return {"axis": encoding.axis, "block_size": encoding.grid.group}


@lru_cache(maxsize=1)
def holds_two_bits() -> bool:
    """Whether this host's runtime loads a file with integers of two bits."""
    weight = packed("w", np.zeros(4, np.int32), 2, signed=True)
    cast = helper.make_node("Cast", ["w"], ["y"], to=TensorProto.INT8)
    value = helper.make_tensor_value_info("y", TensorProto.INT8, [4])
    graph = helper.make_graph([cast], "probe", [], [value], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSETS[2])])
    try:
        onnxkit.session(onnxkit.pack(proto))
    except Exception:  # noqa: BLE001 - onnxruntime's own exceptions share no narrower parent
        return False
    return True


def _raised(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto | None:
    """The graph at this opset or later, with its shapes noted anew; None where it cannot be raised."""
    if onnxkit.opsets(proto).get("ai.onnx", 1) >= opset:
        return proto
    try:
        raised = version_converter.convert_version(proto, opset)
        onnx.checker.check_model(raised)
    except (RuntimeError, version_converter.ConvertError, onnx.checker.ValidationError):
        return None
    del raised.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(raised, data_prop=True)
