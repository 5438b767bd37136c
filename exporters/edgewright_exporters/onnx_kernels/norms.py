"""Finds layer normalisations, and the sums before them that their kernel can do as well."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx

from edgewright.types import Array
from edgewright_exporters.kernels.norm import NormCase
from edgewright_exporters.onnx_kernels.codes import row_of
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.templates import Job
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard


def norms(wiring: Wiring) -> Iterator[Match]:
    """Every `LayerNormalization` over the last axis with constant scale and bias."""
    for node in wiring.nodes:
        weights = _weights(wiring, node) if is_standard(node, "LayerNormalization") else None
        if weights is not None:
            yield _matched(wiring, node, weights)


def with_sums(wiring: Wiring, matches: Sequence[Match]) -> Sequence[Match]:
    """The same kernels, where normalisations also add the two values whose sum they read, if no kernel makes it."""
    made = {name for each in matches for name in each.outputs.values()}
    return [_summed(wiring, each, made) if each.job.template == "norm" else each for each in matches]


def _matched(wiring: Wiring, node: onnx.NodeProto, weights: tuple[Array, Array]) -> Match:
    scale, bias = weights
    name = node.input[0]
    case = NormCase(prod(wiring.floats(name) or ()) // len(scale), len(scale), attributes(node).get("epsilon", 1e-5))
    return match("norm", case, inputs={"x": name}, output=node.output[0], scale=scale, bias=bias)


def _summed(wiring: Wiring, norm: Match, made: Collection[str]) -> Match:
    name = norm.inputs["x"]
    terms = None if name in made else _terms(wiring, name)
    if terms is None:
        return norm
    job = Job("norm", replace(norm.job.case, residual=True))
    inputs, outputs = {"x": terms[0], "residual": terms[1]}, {"sum": name, **norm.outputs}
    return replace(norm, job=job, inputs=inputs, outputs=outputs)


def _weights(wiring: Wiring, node: onnx.NodeProto) -> tuple[Array, Array] | None:
    """Scale and bias; None where they are not constant, or the node does more than its kernel."""
    shape = wiring.floats(node.input[0])
    if shape is None or any(node.output[1:]) or attributes(node).get("axis", -1) not in (-1, len(shape) - 1):
        return None
    scale = row_of(wiring, node.input[1], shape[-1])
    named = len(node.input) > 2 and node.input[2]
    bias = row_of(wiring, node.input[2], shape[-1]) if named else np.zeros(shape[-1], np.float32)
    return None if scale is None or bias is None else (scale, bias)


def _terms(wiring: Wiring, name: str) -> tuple[str, str] | None:
    """The two values whose sum `name` is, each of its shape."""
    maker = wiring.maker(name)
    if maker is None or not is_standard(maker, "Add"):
        return None
    first, second = maker.input
    same = wiring.floats(first) == wiring.floats(second) == wiring.floats(name)
    return (first, second) if same else None
