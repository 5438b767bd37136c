"""Values that are codes with scales: what `DequantizeLinear` and `QuantizeLinear` stand for in a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from edgewright.types import Array
from edgewright_exporters.onnx_kernels.wiring import Wiring, as_row, attributes, is_standard

SAME = 1e-6
"""How far, relatively, a bias's scale may be from that of the sums it is added to."""

BYTES: Mapping[int, str] = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.INT8: "int8"}


@dataclass(frozen=True, eq=False)
class Codes:
    """A value is `scale * (codes - zero)`; where there are several scales they lie along `axis`; one is a number."""

    name: str
    scale: Array
    zero: Array
    axis: int

    @property
    def single(self) -> bool:
        """Whether there is one scale for all."""
        return self.scale.size == 1


def dequantized(wiring: Wiring, name: str) -> Codes | None:
    """The codes that float32 `name` is made of."""
    return _codes(wiring, wiring.maker(name), "DequantizeLinear")


def quantized(wiring: Wiring, name: str) -> tuple[str, Codes] | None:
    """The bytes that are all that is made of `name`, with one scale for all of them."""
    node = wiring.only_reader(name)
    codes = _codes(wiring, node, "QuantizeLinear")
    if node is None or codes is None or not codes.single or byte_type(wiring, node.output[0]) is None:
        return None
    return node.output[0], codes


def has_one_scale(wiring: Wiring, node: onnx.NodeProto) -> bool:
    """Whether a node makes codes of values or values of codes, with one scale for all of them."""
    codes = _codes(wiring, node, node.op_type) if is_standard(node, "QuantizeLinear", "DequantizeLinear") else None
    return codes is not None and codes.single


def byte_type(wiring: Wiring, name: str) -> str | None:
    """`uint8` or `int8` for values of that type."""
    return BYTES.get(wiring.types.get(name, (0, None))[0])


def row_of(wiring: Wiring, name: str, columns: int) -> Array | None:
    """A constant row of float32, also one that is stored as codes; None of anything else."""
    codes = dequantized(wiring, name)
    held = wiring.constant(codes.name) if codes is not None else None
    if codes is None or held is None:
        return as_row(wiring.constant(name), columns)
    return as_row(((held.astype(np.float32) - codes.zero) * codes.scale).astype(np.float32), columns)


def bias_of(wiring: Wiring, name: str, scale: Array) -> Array | None:
    """A constant bias of int32 in units of `scale`, one number per column; None of anything else."""
    codes = dequantized(wiring, name)
    held = None if codes is None else wiring.constant(codes.name)
    if codes is None or held is None or held.dtype != np.int32 or codes.zero.any() or held.size != len(scale):
        return None
    return held.ravel() if np.allclose(codes.scale.ravel(), scale, rtol=SAME, atol=0.0) else None


def _codes(wiring: Wiring, node: onnx.NodeProto | None, operator: str) -> Codes | None:
    if node is None or not is_standard(node, operator) or attributes(node).get("block_size", 0):
        return None
    scale = wiring.constant(node.input[1])
    zero = wiring.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros((), np.int64)
    if scale is None or zero is None or scale.dtype != np.float32:
        return None
    return Codes(node.input[0], scale.squeeze(), zero.astype(np.int64).squeeze(), attributes(node).get("axis", 1))
