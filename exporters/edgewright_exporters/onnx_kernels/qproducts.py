"""Finds matrix products of bytes, as quantised graphs have them: float nodes between codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx

from edgewright.grids import SHIFTS, are_shifts
from edgewright.types import Array
from edgewright_exporters.kernels import dot
from edgewright_exporters.kernels.qgemm import QGemmCase
from edgewright_exporters.onnx_kernels.codes import Codes, bias_of, byte_type, dequantized, quantized
from edgewright_exporters.onnx_kernels.epilogues import epilogue_after
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.products import plain_gemm
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard


@dataclass(frozen=True, eq=False)
class _Product:
    """y = scale * ((x - zero) weight + bias), of bytes; `scale` and `bias` are one number per column."""

    x: Codes
    weight: Array
    scale: Array
    bias: Array
    y: str


def qproducts(wiring: Wiring) -> Iterator[Match]:
    """Every `MatMul` and `Gemm` of dequantised bytes with constant int8 weights, with the rounding or the activation
    and residual after it.

    Weights have no zero point; a bias is int32 with the scales of the sums.
    """
    for node in wiring.nodes:
        product = _product(wiring, node) if plain_gemm(node) or is_standard(node, "MatMul") else None
        if product is not None:
            yield _rounded(wiring, product) or _in_float(wiring, product)


def _rounded(wiring: Wiring, product: _Product) -> Match | None:
    """With bytes as its result, where nothing else is made of it."""
    after = quantized(wiring, product.y)
    if after is None:
        return None
    y, codes = after
    case = replace(_case(wiring, product), gives=byte_type(wiring, y) or "")
    scale = product.scale / codes.scale
    return _match(product, case, y, scale, {"x": product.x.name}, y_zero=codes.zero)


def _in_float(wiring: Wiring, product: _Product) -> Match:
    after = epilogue_after(wiring, product.y)
    added = after.residual is not None
    case = replace(_case(wiring, product), gives="float32", activation=after.activation, residual=added)
    inputs = {"x": product.x.name} | ({} if after.residual is None else {"residual": after.residual})
    return _match(product, case, after.y, product.scale, inputs)


def _match(
    product: _Product, case: QGemmCase, y: str, scale: Array, inputs: Mapping[str, str], *, y_zero: Array | None = None
) -> Match:
    return match(
        "qgemm",
        case,
        inputs=inputs,
        output=y,
        weight=product.weight,
        scale=scale.astype(np.float32),
        bias=product.bias,
        x_zero=product.x.zero,
        y_zero=y_zero,
    )


def _case(wiring: Wiring, product: _Product) -> QGemmCase:
    depth, columns = product.weight.shape
    return QGemmCase(
        prod(wiring.shape(product.x.name) or ()) // depth,
        depth,
        columns,
        takes=byte_type(wiring, product.x.name) or "",
        codes=SHIFTS if are_shifts(product.weight) else (),
        gentle=dot.gentle(product.weight.T),
    )


def _product(wiring: Wiring, node: onnx.NodeProto) -> _Product | None:
    x, w = (dequantized(wiring, name) for name in node.input[:2])
    if x is None or w is None or not x.single or byte_type(wiring, x.name) is None:
        return None
    if len(wiring.shape(x.name) or ()) < 2 or x.name in wiring.constants or wiring.floats(node.output[0]) is None:
        return None
    weighted = _weight(wiring, w, turned=bool(attributes(node).get("transB", 0)))
    if weighted is None:
        return None
    weight, scale = weighted
    scale = scale * x.scale.ravel()
    named = len(node.input) > 2 and node.input[2]
    bias = bias_of(wiring, node.input[2], scale) if named else np.zeros(len(scale), np.int32)
    if bias is None:
        return None
    return _Product(x, weight, scale, bias, node.output[0])


def _weight(wiring: Wiring, codes: Codes, *, turned: bool) -> tuple[Array, Array] | None:
    """The weight [K, N] and a scale for each of its columns."""
    held = wiring.constant(codes.name)
    if held is None or held.ndim != 2 or held.dtype != np.int8 or codes.zero.any():
        return None
    if not codes.single and codes.axis % 2 != (0 if turned else 1):
        return None
    weight = held.T if turned else held
    return weight, np.broadcast_to(codes.scale, weight.shape[1:]).astype(np.float32)
