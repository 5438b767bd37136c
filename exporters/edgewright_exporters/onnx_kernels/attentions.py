"""Finds attention, softmax(Q K^T * factor) V, however Q, K and V are cut out of the rows that projections leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import onnx

from edgewright_exporters.kernels.attention_panel import AttentionCase
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.views import View, goal_view, source_view
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard, other_input


def attentions(wiring: Wiring) -> Iterator[Match]:
    """Every attention whose heads lie side by side in the rows of Q, K, V and the result, in one array or in three.

    What adds to the scores must be zero, as the mask of models that mask nothing is.
    """
    for node in wiring.nodes:
        product = _scores(wiring, node.input[0]) if is_standard(node, "MatMul") else None
        found = None if product is None else attention_of(wiring, node, *product)
        if found is not None:
            yield found


def attention_of(wiring: Wiring, last: onnx.NodeProto, node: onnx.NodeProto, factor: float) -> Match | None:
    """The attention of the scores `node` times `factor`, that ends with the product `last` of shares and values."""
    q, k, v = (source_view(wiring, name) for name in (*node.input, last.input[1]))
    y = goal_view(wiring, last.output[0])
    if q is None or k is None or v is None or y is None or v.factor != 1.0:
        return None
    for axis in {4: (None,), 3: (1, 0)}.get(len(y.shape), ()):
        found = _laid_out(wiring, [_with_axis(view, axis) for view in (q, _turned(k), v, y)], factor)
        if found is not None:
            return found
    return None


def _with_axis(view: View, axis: int | None) -> View:
    """[batch, heads, tokens, size] of a view that lacks `axis`: one head of each sequence, or heads of one sequence."""
    if axis is None:
        return view
    shape, strides = list(view.shape), list(view.strides)
    shape.insert(axis, 1)
    strides.insert(axis, 0)
    return replace(view, shape=tuple(shape), strides=tuple(strides))


def _laid_out(wiring: Wiring, views: Sequence[View], factor: float) -> Match | None:
    """The match, where the rows of Q, K, V and Y are laid out as the kernel takes them."""
    q, k, v, y = views
    if not len(q.shape) == len(k.shape) == len(v.shape) == 4:
        return None
    batch, heads, queries, size = q.shape
    keys = k.shape[2]
    if k.shape != v.shape or k.shape != (batch, heads, keys, size) or not _in_rows(wiring, y, 1, 0):
        return None
    case = AttentionCase(batch, queries, keys, heads, size, factor * q.factor * k.factor)
    if all(_in_rows(wiring, view, 1, 0) for view in (q, k, v)):
        inputs = {"q": q.base, "k": k.base, "v": v.base}
        return match("attention", case, inputs=inputs, output=y.base)
    together = q.base == k.base == v.base and queries == keys
    if together and all(_in_rows(wiring, view, 3, part) for part, view in enumerate((q, k, v))):
        return match("attention", replace(case, packed=True), inputs={"qkv": q.base}, output=y.base)
    return None


def _in_rows(wiring: Wiring, view: View, parts: int, part: int) -> bool:
    """Whether element [b, h, t, i] is number `part * width + h * size + i` of row [b, t], `width` being all heads."""
    _, heads, tokens, size = view.shape
    width = heads * size
    strides = (tokens * parts * width, size, parts * width, 1)
    same = all(n == 1 or found == want for n, found, want in zip(view.shape, view.strides, strides))
    whole = prod(wiring.floats(view.base) or ()) == parts * prod(view.shape)
    return same and whole and view.offset == part * width


def _turned(view: View) -> View:
    """K from its transpose."""
    return replace(view, shape=_swapped(view.shape), strides=_swapped(view.strides))


def _swapped(sizes: Sequence[int]) -> tuple[int, ...]:
    return (*sizes[:-2], sizes[-1], sizes[-2])


def _scores(wiring: Wiring, shares: str) -> tuple[onnx.NodeProto, float] | None:
    """The product of queries and keys behind `shares`, and the factor that scores are multiplied by."""
    softmax = softmax_of(wiring, _guarded(wiring, shares))
    if softmax is None:
        return None
    return scaled_product(wiring, _unmasked(wiring, softmax.input[0]))


def softmax_of(wiring: Wiring, shares: str) -> onnx.NodeProto | None:
    """The softmax over the last axis that gives `shares`."""
    node, axes = wiring.maker(shares), wiring.floats(shares)
    if node is None or not is_standard(node, "Softmax") or axes is None:
        return None
    return node if attributes(node).get("axis", -1) in (-1, len(axes) - 1) else None


def scaled_product(wiring: Wiring, name: str) -> tuple[onnx.NodeProto, float] | None:
    """The `MatMul` whose product, times a positive number, a value is; and the number."""
    node, factor = wiring.maker(name), 1.0
    if node is not None and is_standard(node, "Mul", "Div"):
        number = wiring.number(node.input[1])
        if number is None:
            return None
        node, factor = wiring.maker(node.input[0]), number if node.op_type == "Mul" else 1.0 / number
    return (node, factor) if node is not None and is_standard(node, "MatMul") and factor > 0 else None


def _guarded(wiring: Wiring, shares: str) -> str:
    """The softmax's value where `shares` is it with every NaN put to zero, as rows that see no key would need it.

    No mask hides a row here, so that a NaN is one of the inputs', and stays one.
    """
    node = wiring.maker(shares)
    if node is None or not is_standard(node, "Where") or wiring.number(node.input[1]) != 0.0:
        return shares
    test = wiring.maker(node.input[0])
    tested = test.input[0] if test is not None and is_standard(test, "IsNaN") else ""
    return node.input[2] if tested == node.input[2] else shares


def _unmasked(wiring: Wiring, scores: str) -> str:
    """What a mask of zeros is added to."""
    node = wiring.maker(scores)
    if node is None or not is_standard(node, "Add"):
        return scores
    for name in node.input:
        mask, other = wiring.constant(name), other_input(node, name)
        if mask is not None and not mask.any() and wiring.floats(other) == wiring.floats(scores):
            return other
    return scores
