"""Sees through nodes that only arrange: a value is a strided view of another wherever NumPy makes one of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgewright.types import Array
from edgewright_exporters.onnx_kernels.reshapes import RESHAPES
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard


@dataclass(frozen=True)
class View:
    """Element [i, j, ...] is `factor` times element `offset + i * strides[0] + j * strides[1] + ...` of `base`."""

    base: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    factor: float = 1.0


@dataclass(frozen=True, eq=False)
class _Step:
    """One node that arranges, and its output that was followed."""

    node: onnx.NodeProto
    output: str


def source_view(wiring: Wiring, name: str) -> View | None:
    """The view that float32 `name` is of the furthest value before it; None where no shape is fixed.

    Products with single constant numbers on the way are gathered in `factor`.
    """
    found, at, factor = _view(wiring, name, (), name), name, 1.0
    path: tuple[_Step, ...] = ()
    while found is not None and (node := wiring.maker(at)) is not None:
        scaled = _scaled(wiring, node, at)
        if scaled is not None:
            at, factor = scaled[0], factor * scaled[1]
        elif is_standard(node, *RESHAPES, "Transpose", "Gather", "Split", "Slice"):
            path, at = (_Step(node, at), *path), node.input[0]
        else:
            break
        further = _view(wiring, at, path, name, factor)
        if further is None:
            break
        found = further
    return found


def goal_view(wiring: Wiring, name: str) -> View | None:
    """The view that `name` is of the last value it is only rearranged to; None where no shape is fixed."""
    found, path, at = _view(wiring, name, (), name), [], name
    while found is not None and (node := wiring.only_reader(at)) is not None:
        if not is_standard(node, *RESHAPES, "Transpose") or node.input[0] != at:
            break
        path, at = [*path, node], node.output[0]
        array = _empty(wiring, at)
        back = None if array is None else _undone(wiring, path, array)
        if array is not None and back is not None:
            found = _seen(at, array, back, 1.0)
    return found


def _view(wiring: Wiring, base: str, path: Sequence[_Step], name: str, factor: float = 1.0) -> View | None:
    """What `path` makes of `base`, if that is a view."""
    start = _empty(wiring, base)
    array = start
    for step in path:
        array = None if array is None else _done(wiring, step, array)
    if start is None or array is None or array.shape != wiring.floats(name) or not np.may_share_memory(start, array):
        return None
    return _seen(base, start, array, factor)


def _empty(wiring: Wiring, name: str) -> Array | None:
    """An array of a value's shape whose elements are a byte, so that NumPy's strides count elements."""
    shape = wiring.floats(name)
    return None if shape is None else np.empty(shape, np.int8)


def _seen(base: str, start: Array, array: Array, factor: float) -> View:
    offset = array.__array_interface__["data"][0] - start.__array_interface__["data"][0]
    return View(base, offset, array.shape, array.strides, factor)


def _done(wiring: Wiring, step: _Step, array: Array) -> Array | None:
    """What a node makes of its first input; None where that cannot be told."""
    node, shape = step.node, wiring.floats(step.output)
    if node.op_type in RESHAPES:
        return None if shape is None else array.reshape(shape)
    if node.op_type == "Transpose":
        return array.transpose(attributes(node).get("perm", tuple(reversed(range(array.ndim)))))
    cuts = {"Gather": _gathered, "Split": _split, "Slice": _sliced}[node.op_type](wiring, step, array)
    return None if cuts is None else array[cuts]


def _undone(wiring: Wiring, path: Sequence[onnx.NodeProto], array: Array) -> Array | None:
    """What the first input of `path` must look like for `array` to be what it makes; None where it would be a copy."""
    whole = array
    for node in reversed(path):
        shape = wiring.floats(node.input[0])
        if shape is None:
            return None
        perm = attributes(node).get("perm", tuple(reversed(range(array.ndim))))
        array = array.transpose(np.argsort(perm)) if node.op_type == "Transpose" else array.reshape(shape)
    return array if np.may_share_memory(whole, array) else None


def _along(axis: int, array: Array, cut: int | slice) -> tuple[int | slice, ...]:
    return (*(slice(None),) * (axis % array.ndim), cut)


def _gathered(wiring: Wiring, step: _Step, array: Array) -> tuple[int | slice, ...] | None:
    index = wiring.constant(step.node.input[1])
    if index is None or index.ndim:
        return None
    return _along(attributes(step.node).get("axis", 0), array, int(index))


def _split(wiring: Wiring, step: _Step, array: Array) -> tuple[int | slice, ...] | None:
    axis = attributes(step.node).get("axis", 0)
    shapes = [wiring.floats(name) for name in step.node.output]
    sizes = [shape[axis] for shape in shapes if shape is not None]
    if len(sizes) < len(shapes):
        return None
    at = list(step.node.output).index(step.output)
    return _along(axis, array, slice(sum(sizes[:at]), sum(sizes[: at + 1])))


def _sliced(wiring: Wiring, step: _Step, array: Array) -> tuple[int | slice, ...] | None:
    given = [wiring.constant(name) for name in step.node.input[1:]]
    if any(value is None for value in given):
        return None
    starts, ends, *rest = [[int(each) for each in value.ravel()] for value in given if value is not None]
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    cuts: list[int | slice] = [slice(None)] * array.ndim
    for axis, start, end, stride in zip(axes, starts, ends, steps):
        if stride < 1:
            return None
        cuts[axis] = slice(start, end, stride)
    return tuple(cuts)


def _scaled(wiring: Wiring, node: onnx.NodeProto, name: str) -> tuple[str, float] | None:
    """The value that `name` is a multiple of, and how many times it; None where the shape changes with it."""
    if not is_standard(node, "Mul", "Div"):
        return None
    for at in (0, 1) if node.op_type == "Mul" else (1,):
        number, other = wiring.number(node.input[at]), node.input[1 - at]
        if number is not None and wiring.floats(other) == wiring.floats(name):
            return other, number if node.op_type == "Mul" else 1.0 / number
    return None
