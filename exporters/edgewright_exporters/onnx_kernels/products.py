"""Finds matrix products of float32 with constant weights, and what follows each of them that its kernel can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx

from edgewright.types import Array
from edgewright_exporters.kernels.gemm import GemmCase
from edgewright_exporters.onnx_kernels.epilogues import epilogue_after
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.wiring import Wiring, as_row, attributes, is_standard, other_input


@dataclass(frozen=True, eq=False)
class _Product:
    """y = x weight + bias."""

    x: str
    weight: Array
    y: str
    bias: Array | None = None


def products(wiring: Wiring) -> Iterator[Match]:
    """Every `MatMul` and `Gemm` of float32 with a constant weight, with its bias, activation and residual."""
    for node in wiring.nodes:
        product = _of_gemm(wiring, node) if node.op_type == "Gemm" else _of_matmul(wiring, node)
        if product is not None:
            yield _matched(wiring, product)


def plain_gemm(node: onnx.NodeProto) -> bool:
    """Whether a `Gemm` only multiplies and adds; its weight may be turned."""
    about = {"alpha": 1.0, "beta": 1.0, "transA": 0, **attributes(node)}
    return is_standard(node, "Gemm") and about["alpha"] == about["beta"] == 1.0 and not about["transA"]


def _matched(wiring: Wiring, product: _Product) -> Match:
    depth, columns = product.weight.shape
    after = epilogue_after(wiring, product.y)
    case = GemmCase(
        prod(wiring.floats(product.x) or ()) // depth,
        depth,
        columns,
        bias=product.bias is not None,
        activation=after.activation,
        residual=after.residual is not None,
    )
    inputs = {"x": product.x} | ({} if after.residual is None else {"residual": after.residual})
    return match("gemm", case, inputs=inputs, output=after.y, weight=product.weight, bias=product.bias)


def _of_matmul(wiring: Wiring, node: onnx.NodeProto) -> _Product | None:
    if not is_standard(node, "MatMul"):
        return None
    product = _product(wiring, node, wiring.constant(node.input[1]))
    return None if product is None else _biased(wiring, product)


def _of_gemm(wiring: Wiring, node: onnx.NodeProto) -> _Product | None:
    if not plain_gemm(node):
        return None
    weight = wiring.constant(node.input[1])
    turned = weight is not None and attributes(node).get("transB", 0)
    product = _product(wiring, node, weight.T if weight is not None and turned else weight)
    if product is None:
        return None
    if len(node.input) < 3 or not node.input[2]:
        return _biased(wiring, product)
    bias = as_row(wiring.constant(node.input[2]), product.weight.shape[1])
    return None if bias is None else replace(product, bias=bias)


def _product(wiring: Wiring, node: onnx.NodeProto, weight: Array | None) -> _Product | None:
    x, y = node.input[0], node.output[0]
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
        return None
    if len(wiring.floats(x) or ()) < 2 or wiring.floats(y) is None or x in wiring.constants:
        return None
    return _Product(x, weight, y)


def _biased(wiring: Wiring, product: _Product) -> _Product:
    reader = wiring.only_reader(product.y)
    if reader is None or not is_standard(reader, "Add"):
        return product
    bias = as_row(wiring.constant(other_input(reader, product.y)), product.weight.shape[1])
    if bias is None or wiring.floats(reader.output[0]) != wiring.floats(product.y):
        return product
    return replace(product, bias=bias, y=reader.output[0])
