"""Finds pooling of images: the largest or the mean value under a window, or of a whole image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import onnx

from edgewright_exporters.kernels.pool import PoolCase
from edgewright_exporters.kernels.window import Window
from edgewright_exporters.onnx_kernels.codes import byte_type, dequantized, quantized
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.windows import window_of
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard

IMAGES = frozenset(("x", "y"))


def pools(wiring: Wiring) -> Iterator[Match]:
    """Every pool over two axes, and every mean over both axes of an image; of bytes where only the largest counts."""
    for node in wiring.nodes:
        shape = wiring.floats(node.input[0]) if node.input else None
        case = _case(wiring, node, shape) if shape is not None and len(shape) == 4 else None
        if case is not None and wiring.floats(node.output[0]):
            x, y, dtype = _bytes(wiring, node, case) or (node.input[0], node.output[0], case.dtype)
            yield match("pool", replace(case, dtype=dtype), inputs={"x": x}, output=y, blocked=IMAGES)


def _bytes(wiring: Wiring, node: onnx.NodeProto, case: PoolCase) -> tuple[str, str, str] | None:
    """Codes before and behind, and their type, where they are of the same values: rounding keeps order."""
    x, after = dequantized(wiring, node.input[0]), quantized(wiring, node.output[0])
    if case.kind != "max" or x is None or after is None or not x.single:
        return None
    y, codes = after
    dtype = byte_type(wiring, x.name)
    same = bool(codes.scale == x.scale and codes.zero == x.zero) and byte_type(wiring, y) == dtype
    return (x.name, y, dtype) if dtype is not None and same else None


def _case(wiring: Wiring, node: onnx.NodeProto, shape: tuple[int, ...]) -> PoolCase | None:
    batch, channels, *image = shape
    about = attributes(node)
    if is_standard(node, "MaxPool", "AveragePool") and not any(node.output[1:]):
        window = window_of(about, image, about["kernel_shape"])
        if window is None or _empty(window):
            return None
        kind = "max" if node.op_type == "MaxPool" else "mean"
        return PoolCase(batch, channels, window, kind, kind == "mean" and bool(about.get("count_include_pad", 0)))
    if is_standard(node, "GlobalAveragePool") or _mean_of_image(wiring, node):
        return PoolCase(batch, channels, Window((image[0], image[1]), (image[0], image[1])), "mean")
    return None


def _empty(window: Window) -> bool:
    """Whether some window may lie on padding alone."""
    return any(pad >= taps for pad, taps in zip(window.padding, window.kernel * 2))


def _mean_of_image(wiring: Wiring, node: onnx.NodeProto) -> bool:
    if not is_standard(node, "ReduceMean"):
        return False
    held = wiring.constant(node.input[1]) if len(node.input) > 1 else None
    axes = attributes(node).get("axes", ()) if held is None else held.ravel().tolist()
    return sorted(axis % 4 for axis in axes) == [2, 3] and prod(wiring.floats(node.output[0]) or ()) > 0
