"""Finds convolutions of bytes, as quantised graphs have them: float nodes between codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from edgewright.types import Array
from edgewright_exporters.kernels import dot
from edgewright_exporters.kernels.qconv_cut import QConvCase
from edgewright_exporters.kernels.qdepthwise import QDepthwiseCase
from edgewright_exporters.kernels.requantise import LIMITS
from edgewright_exporters.kernels.window import Window
from edgewright_exporters.onnx_kernels.codes import Codes, bias_of, byte_type, dequantized, quantized
from edgewright_exporters.onnx_kernels.convs import IMAGES
from edgewright_exporters.onnx_kernels.epilogues import clip_limits, image_epilogue_after
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.windows import window_of
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard, other_input


@dataclass(frozen=True, eq=False)
class _Conv:
    """y = scale * (conv(x - zero, weight) + bias), of bytes; `scale` and `bias` are one number per filter."""

    x: Codes
    weight: Array
    scale: Array
    bias: Array
    window: Window
    shape: tuple[int, ...]
    y: str

    @property
    def depthwise(self) -> bool:
        return self.shape[1] > 1 and self.weight.shape[:2] == (self.shape[1], 1)


@dataclass(frozen=True, eq=False)
class _Bytes:
    """Codes that are all that is made of a value: name, type, and the lowest and highest that there are."""

    name: str
    dtype: str
    codes: Codes
    limits: tuple[int, int]

    @property
    def clipped(self) -> bool:
        """Whether these are not all codes of the type."""
        return self.limits != LIMITS[self.dtype]

    @property
    def weights(self) -> Mapping[str, Array]:
        """What templates pack of them."""
        return {"y_zero": self.codes.zero, "clip": np.array(self.limits)}


def qconvs(wiring: Wiring) -> Iterator[Match]:
    """Every `Conv` of dequantised bytes with constant int8 weights, with what follows it.

    That is a rounding to bytes, before it an activation, or between two roundings the sum with another image of bytes;
    elsewhere the result is float32. Weights have no zero point; a bias is int32 with the scales of the sums.
    """
    for node in wiring.nodes:
        conv = _conv(wiring, node) if is_standard(node, "Conv") else None
        if conv is not None:
            yield _added(wiring, conv) or _rounded(wiring, conv) or _in_float(wiring, conv)


def _added(wiring: Wiring, conv: _Conv) -> Match | None:
    """With the sum after its rounding, of two convolutions added to one another for the later one."""
    mid = None if conv.depthwise else _bytes_after(wiring, conv.y)
    back = wiring.only_reader(mid.name) if mid is not None else None
    if mid is None or not is_standard(back, "DequantizeLinear") or back is None:
        return None
    added = wiring.only_reader(back.output[0])
    if added is None or not is_standard(added, "Add"):
        return None
    other = other_input(added, back.output[0])
    r, y = dequantized(wiring, other), _bytes_after(wiring, added.output[0])
    dtype = byte_type(wiring, r.name) if r is not None else None
    if r is None or y is None or dtype is None or not r.single or wiring.shape(r.name) != wiring.shape(mid.name):
        return None
    if wiring.producers[back.output[0]] < wiring.producers[other]:
        return None
    case = replace(_dense(wiring, conv, y), residual=dtype)
    low, high = (limit - mid.codes.zero for limit in mid.limits)
    scales = {"mid_scale": mid.codes.scale, "mid_low": low, "mid_high": high, "r_scale": r.scale, "r_zero": r.zero}
    weights = {**y.weights, **scales, "y_scale": y.codes.scale}
    return _match("qconv", case, conv, y.name, scale=conv.scale / mid.codes.scale, residual=r.name, weights=weights)


def _rounded(wiring: Wiring, conv: _Conv) -> Match | None:
    y = _bytes_after(wiring, conv.y)
    if y is None:
        return None
    template, case = _case(wiring, conv, y)
    return _match(template, case, conv, y.name, scale=conv.scale / y.codes.scale, weights=y.weights)


def _in_float(wiring: Wiring, conv: _Conv) -> Match:
    after = image_epilogue_after(wiring, conv.y, residual=False)
    template, case = _case(wiring, conv, None)
    return _match(template, replace(case, activation=after.activation), conv, after.y, scale=conv.scale, weights={})


def _match(
    template: str,
    case: Any,
    conv: _Conv,
    y: str,
    *,
    scale: Array,
    weights: Mapping[str, Array],
    residual: str | None = None,
) -> Match:
    inputs = {"x": conv.x.name} | ({} if residual is None else {"residual": residual})
    own = {"weight": conv.weight, "scale": scale.astype(np.float32), "bias": conv.bias, "x_zero": conv.x.zero}
    return match(template, case, inputs=inputs, output=y, blocked=IMAGES, **own, **weights)


def _case(wiring: Wiring, conv: _Conv, y: _Bytes | None) -> tuple[str, QConvCase | QDepthwiseCase]:
    return ("qdepthwise", _thin(wiring, conv, y)) if conv.depthwise else ("qconv", _dense(wiring, conv, y))


def _dense(wiring: Wiring, conv: _Conv, y: _Bytes | None) -> QConvCase:
    gentle = dot.gentle(np.moveaxis(conv.weight, 1, -1))
    about = _about(wiring, conv, y)
    return QConvCase(conv.shape[0], conv.shape[1], len(conv.weight), conv.window, gentle=gentle, **about)


def _thin(wiring: Wiring, conv: _Conv, y: _Bytes | None) -> QDepthwiseCase:
    return QDepthwiseCase(conv.shape[0], conv.shape[1], conv.window, **_about(wiring, conv, y))


def _about(wiring: Wiring, conv: _Conv, y: _Bytes | None) -> dict[str, Any]:
    given = {"gives": "float32"} if y is None else {"gives": y.dtype, "clip": y.clipped}
    return {"takes": byte_type(wiring, conv.x.name) or "", **given}


def _bytes_after(wiring: Wiring, name: str) -> _Bytes | None:
    """The codes that `name` is rounded to, also behind a ReLU or another clipping, which is one of codes then."""
    low, high = None, None
    node = wiring.only_reader(name)
    if node is not None and is_standard(node, "Relu"):
        low, name = 0.0, node.output[0]
    elif node is not None and (limits := clip_limits(wiring, node)) is not None:
        (low, high), name = limits, node.output[0]
    after = quantized(wiring, name)
    dtype = byte_type(wiring, after[0]) if after is not None else None
    if after is None or dtype is None:
        return None
    least, most = LIMITS[dtype]
    limits = (
        least if low is None else _code(after[1], low, (least, most)),
        most if high is None else _code(after[1], high, (least, most)),
    )
    return _Bytes(after[0], dtype, after[1], limits)


def _code(codes: Codes, value: float, limits: tuple[int, int]) -> int:
    """The code of a value: rounding keeps order, so that clipping values clips codes."""
    return int(np.clip(np.rint(np.float32(value) / codes.scale.astype(np.float32)) + codes.zero, *limits).item())


def _conv(wiring: Wiring, node: onnx.NodeProto) -> _Conv | None:
    x, w = (dequantized(wiring, name) for name in node.input[:2])
    if x is None or w is None or not x.single or byte_type(wiring, x.name) is None or x.name in wiring.constants:
        return None
    shape, weight, y = wiring.shape(x.name), wiring.constant(w.name), node.output[0]
    if shape is None or weight is None or weight.dtype != np.int8 or w.zero.any() or wiring.floats(y) is None:
        return None
    window = window_of(attributes(node), shape[2:], weight.shape[2:])
    if window is None or not (w.single or w.axis == 0):
        return None
    scale = np.broadcast_to(w.scale.ravel(), len(weight)).astype(np.float32) * x.scale.ravel()
    named = len(node.input) > 2 and node.input[2]
    bias = bias_of(wiring, node.input[2], scale) if named else np.zeros(len(scale), np.int32)
    if bias is None:
        return None
    found = _Conv(x, weight, scale, bias, window, shape, y)
    return found if found.depthwise or weight.shape[1] == shape[1] else None
