"""Finds products of signs, A B^T where both are `Where(Greater(x, bound), 1, -1)`, however x lies in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from numpy.lib.stride_tricks import as_strided

from edgewright.types import Array
from edgewright_exporters.kernels.hamming_cut import HammingCase
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.views import View, source_view
from edgewright_exporters.onnx_kernels.wiring import Wiring, is_standard, other_input


@dataclass(frozen=True, eq=False)
class _Signs:
    """Signs [batch, heads, tokens, size]: of which elements of `base`, counted from its first, and of which bounds."""

    base: str
    places: Array
    bounds: Array

    @property
    def turned(self) -> _Signs:
        """With the last two axes swapped."""
        return _Signs(self.base, self.places.swapaxes(-1, -2), self.bounds.swapaxes(-1, -2))


def hammings(wiring: Wiring) -> Iterator[Match]:
    """Every `MatMul` of signs whose bounds are constants, one for each number of a head or fewer, and what scales it.

    A scale is a constant with one number for each head at most. The numbers of a token must be neighbours in memory.
    """
    for node in wiring.nodes:
        if is_standard(node, "MatMul"):
            a, b = (_signs(wiring, name) for name in node.input)
            found = None if a is None or b is None else _matched(wiring, node, a, b.turned)
            if found is not None:
                yield found


def _matched(wiring: Wiring, node: onnx.NodeProto, q: _Signs, k: _Signs) -> Match | None:
    (q_laid, k_laid), bounds = [_laid_out(wiring, each) for each in (q, k)], [_bounds(each) for each in (q, k)]
    if (
        q.places.shape[:2] != k.places.shape[:2]
        or q_laid is None
        or k_laid is None
        or bounds[0] is None
        or bounds[1] is None
    ):
        return None
    batch, heads, queries, size = q.places.shape
    scale, y = _scaled(wiring, node.output[0], heads)
    case = HammingCase(batch, heads, queries, k.places.shape[2], size, q_laid, k_laid, scaled=scale is not None)
    inputs = {"q": q.base, "k": k.base}
    return match("hamming", case, inputs=inputs, output=y, q_bounds=bounds[0], k_bounds=bounds[1], scale=scale)


def _signs(wiring: Wiring, name: str) -> _Signs | None:
    """What `name` holds the signs of; None where it is anything else."""
    seen = source_view(wiring, name)
    if seen is None or seen.factor != 1.0 or not 2 <= len(seen.shape) <= 4:
        return None
    choice = wiring.maker(seen.base)
    if choice is None or not is_standard(choice, "Where") or [wiring.number(n) for n in choice.input[1:]] != [1, -1]:
        return None
    test = wiring.maker(choice.input[0])
    if test is None or not is_standard(test, "Greater"):
        return None
    shape, bound = wiring.floats(test.input[0]), wiring.constant(test.input[1])
    if shape is None or shape != wiring.floats(choice.output[0]) or bound is None or bound.dtype != np.float32:
        return None
    under = _unscaled(wiring, test.input[0], shape)
    numbers = np.arange(prod(wiring.floats(under.base) or ()))
    places, bounds = (_four_axes(_seen(seen, each)) for each in (_seen(under, numbers), np.broadcast_to(bound, shape)))
    return _Signs(under.base, places, bounds)


def _unscaled(wiring: Wiring, name: str, shape: tuple[int, ...]) -> View:
    """The furthest view of `name`, or itself where that is a multiple: a bound would have to be divided."""
    view = source_view(wiring, name)
    if view is not None and view.factor == 1.0:
        return view
    return View(name, 0, shape, tuple(prod(shape[axis + 1 :]) for axis in range(len(shape))))


def _seen(view: View, array: Array) -> Array:
    """The elements of `array` that are the view of it."""
    flat = np.ascontiguousarray(array).ravel()
    return as_strided(flat[view.offset :], view.shape, [flat.itemsize * each for each in view.strides])


def _four_axes(array: Array) -> Array:
    return array.reshape((1,) * (4 - array.ndim) + array.shape)


def _laid_out(wiring: Wiring, signs: _Signs) -> tuple[int, int, int, int, int] | None:
    """How the array behind signs is to be read, as a case says it; None where numbers of a token are no neighbours."""
    places = signs.places
    first = places[0, 0, 0, 0]
    steps = [int(places.take(1, axis).flat[0] - first) if n > 1 else 0 for axis, n in enumerate(places.shape)]
    wanted = first + sum(np.ix_(*(np.arange(n) * step for n, step in zip(places.shape, steps))))
    if not np.array_equal(places, wanted) or (places.shape[3] > 1 and steps[3] != 1):
        return None
    batch, heads, tokens, _ = steps
    return prod(wiring.floats(signs.base) or ()), int(first), batch, heads, tokens


def _bounds(signs: _Signs) -> Array | None:
    """The bounds [heads, size], where they are the same for every sequence and token."""
    one = signs.bounds[:1, :, :1]
    return np.ascontiguousarray(one[0, :, 0]) if (signs.bounds == one).all() else None


def _scaled(wiring: Wiring, y: str, heads: int) -> tuple[Array | None, str]:
    """A factor for each head that all of `y` is multiplied by next, and the product; else nothing and `y`."""
    node, shape = wiring.only_reader(y), wiring.floats(y) or ()
    if node is not None and is_standard(node, "Mul") and wiring.floats(node.output[0]) == shape:
        held = wiring.constant(other_input(node, y))
        if held is not None and held.dtype == np.float32 and 2 <= len(shape) <= 4 and held.ndim <= 4:
            scale = _four_axes(held)
            if scale.shape[0] == scale.shape[2] == scale.shape[3] == 1:
                return np.ascontiguousarray(np.broadcast_to(scale[0, :, 0, 0], heads)), node.output[0]
    return None, y
