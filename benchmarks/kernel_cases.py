"""What kernels.py compares: a case of one of our templates, and the nodes that ONNX Runtime has for the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from edgewright_exporters.kernels import (
    attention,
    codebook,
    conv,
    depthwise,
    dot,
    gelu,
    gemm,
    norm,
    qconv,
    qdepthwise,
    qgemm,
    softmax,
)
from edgewright_exporters.kernels.attention_panel import AttentionCase
from edgewright_exporters.kernels.qconv_cut import QConvCase
from edgewright_exporters.kernels.window import Window, blocked

Array = npt.NDArray[Any]
SHAPES = ((192, 768), (768, 192), (192, 576), (768, 3072), (3072, 768))
"""Depth and columns of the products of vision transformers of widths 192 and 768."""

COLD = 8 * 2**20
"""Bytes of weights that one run goes through where they are to come from beyond the second cache."""

RESNET = (
    (64, 64, 56, 1),
    (64, 128, 56, 2),
    (128, 128, 28, 1),
    (128, 256, 28, 2),
    (256, 256, 14, 1),
    (256, 512, 14, 2),
    (512, 512, 7, 1),
)
POINTWISE = (
    (32, 16, 112),
    (16, 96, 112),
    (96, 24, 56),
    (24, 144, 56),
    (192, 64, 14),
    (64, 384, 14),
    (384, 96, 14),
    (160, 960, 7),
    (960, 160, 7),
    (320, 1280, 7),
)
DEPTHWISE = ((32, 112, 1), (96, 112, 2), (144, 56, 1), (192, 28, 1), (384, 14, 1), (576, 14, 2), (960, 7, 1))


@dataclass(frozen=True)
class Comparison:
    """One computation, twice: `case` of `template`, and `nodes` over `inputs` and `constants`, by name.

    `weights` is what the template packs; `expected` says each result. `operations` are those of `kind`, a product and
    its sum being two; none where the peak of the machine says nothing. A run does it `copies` times, with constants of
    their own, whose last axis is then the columns of the results. `barred` tells those that have to take no longer
    than ONNX Runtime. `theirs` are inputs and results as its nodes have them, where these lie otherwise.
    """

    name: str
    template: ModuleType
    case: Any
    nodes: Sequence[NodeProto]
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    constants: Mapping[str, Array] = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)
    operations: int = 0
    kind: str = "float32"
    copies: int = 1
    barred: bool = False
    theirs: tuple[Mapping[str, Array], Mapping[str, Array]] | None = None


def groups(lanes: int) -> Mapping[str, Callable[[], Sequence[Comparison]]]:
    """Everything that is compared, in the parts that one call may measure; vectors have `lanes` float32."""
    products = {
        "float32, M=1": lambda: [each for shape in SHAPES for each in _hot_and_cold(_gemm(1, *shape))],
        "float32, M=196": lambda: [_gemm(196, *shape) for shape in SHAPES],
        "float32 + bias + GELU": lambda: [_gemm(rows, *SHAPES[at], gelu=True) for rows in (1, 196) for at in (0, 3)],
        "int8, M=1": lambda: [each for shape in SHAPES for each in _hot_and_cold(_qgemm(1, *shape))],
        "int8, M=196": lambda: [_qgemm(196, *shape) for shape in SHAPES],
        "4-bit codes, M=1": lambda: [each for s in SHAPES for each in _hot_and_cold(_qgemm(1, *s, codes=True))],
        "4-bit codes, M=196": lambda: [_qgemm(196, *shape, codes=True) for shape in SHAPES],
    }
    return {
        **products,
        "attention": lambda: [_attention(197, 3, 64), _attention(197, 6, 32)],
        "rows": lambda: [
            _norm(197, 192),
            *(_residual_norm(197, 192, fused=fused) for fused in (True, False)),
            _softmax(591, 197),
            _gelu(197 * 768),
        ],
        "conv 3x3 of ResNet-18": lambda: [convolution(*each, lanes=lanes, kernel=3) for each in RESNET],
        "conv 1x1 of MobileNetV2": lambda: [convolution(*each, 1, lanes=lanes, kernel=1) for each in POINTWISE],
        "depthwise 3x3 of MobileNetV2": lambda: [_depthwise(*each, lanes=lanes) for each in DEPTHWISE],
        "int8 conv 3x3 of ResNet-18": lambda: _gentle_or_not(RESNET, 3, lanes),
        "int8 conv 1x1 of MobileNetV2": lambda: _gentle_or_not([(*each, 1) for each in POINTWISE], 1, lanes),
        "int8 depthwise of MobileNetV2": lambda: [_qdepthwise(*each, lanes=lanes) for each in DEPTHWISE],
    }


def _gentle_or_not(shapes: Sequence[tuple[int, int, int, int]], kernel: int, lanes: int) -> Sequence[Comparison]:
    """Weights of seven bits, as quantisers leave them for CPUs without a dot product, then of eight."""
    return [_qconv(*shape, most=most, lanes=lanes, kernel=kernel) for most in (64, 127) for shape in shapes]


def _hot_and_cold(comparison: Comparison) -> Iterator[Comparison]:
    weights = comparison.weights["weight"].nbytes
    yield replace(comparison, name=f"{comparison.name}, hot")
    yield replace(comparison, name=f"{comparison.name}, cold", copies=max(2, ceil(COLD / weights)))


def _normal(*shape: int) -> Array:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


# ------------------------------------------------------------------ products


def _gemm(rows: int, depth: int, columns: int, *, gelu: bool = False) -> Comparison:
    case = gemm.GemmCase(rows, depth, columns, bias=gelu, activation="gelu" if gelu else "none")
    weights = {"weight": _normal(depth, columns) / np.float32(depth**0.5)}
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    if gelu:
        weights["bias"] = _normal(columns)
        nodes = [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["sum"]),
            helper.make_node("Gelu", ["sum"], ["y"]),
        ]
    inputs = {"x": _normal(rows, depth)}
    return Comparison(
        f"{rows} x {depth} x {columns}",
        gemm,
        case,
        nodes,
        inputs,
        {"y": gemm.reference(case, **inputs, **weights)},
        constants=weights,
        weights=weights,
        operations=2 * rows * depth * columns,
        barred=not gelu,
    )


def _qgemm(rows: int, depth: int, columns: int, *, codes: bool = False) -> Comparison:
    """Bytes to bytes, one scale per column; ONNX Runtime keeps the same weights in a byte each."""
    most = 7 if codes else 127
    case = qgemm.QGemmCase(rows, depth, columns, codes=codebook.INT4 if codes else ())
    rng = np.random.default_rng((rows, depth, columns))
    x = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
    weight = rng.integers(-most, most + 1, (depth, columns)).astype(np.int8)
    scales = (rng.uniform(0.5, 1.0, columns) / most).astype(np.float32)
    return replace(quantised_product(case, x, weight, scales, spread=43 / 40), barred=not codes)


def quantised_product(case: qgemm.QGemmCase, x: Array, weight: Array, scales: Array, *, spread: float) -> Comparison:
    """A product of bytes with int8 weights and a scale for each column; `spread` is what results are scaled for."""
    x_scale, y_scale = np.float32(0.02), np.float32(0.02 * case.depth**0.5 * spread)
    constants = {
        "x_scale": x_scale,
        "x_zero": np.uint8(117),
        "weight": weight,
        "scales": scales,
        "zeros": np.zeros(case.columns, np.int8),
        "y_scale": y_scale,
        "y_zero": np.uint8(128),
    }
    zeros = {name: constants[name] for name in ("x_zero", "y_zero")}
    weights = {"weight": weight, "scale": (x_scale * scales / y_scale).astype(np.float32), **zeros}
    return Comparison(
        f"{case.rows} x {case.depth} x {case.columns}",
        qgemm,
        case,
        [helper.make_node("QLinearMatMul", ["x", *constants], ["y"])],
        {"x": x},
        {"y": qgemm.reference(case, x=x, **weights)},
        constants={name: np.asarray(value) for name, value in constants.items()},
        weights=weights,
        operations=2 * case.rows * case.depth * case.columns,
        kind="int8",
    )


def _attention(tokens: int, heads: int, size: int) -> Comparison:
    case = AttentionCase(1, tokens, tokens, heads, size, size**-0.5)
    inputs = dict(zip("qkv", np.split(_normal(1, tokens, 3 * heads * size), 3, axis=-1)))
    inputs = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    node = helper.make_node("MultiHeadAttention", list("qkv"), ["y"], domain="com.microsoft", num_heads=heads)
    return Comparison(
        f"{tokens} tokens, {heads} heads of {size}",
        attention,
        case,
        [node],
        inputs,
        {"y": attention.reference(case, **inputs)},
        operations=4 * tokens * tokens * heads * size,
    )


# ------------------------------------------------------------------ row by row


def _norm(rows: int, columns: int) -> Comparison:
    case = norm.NormCase(rows, columns)
    inputs, weights = {"x": _normal(rows, columns)}, _scale_and_bias(columns)
    (y,) = norm.reference(case, **inputs, **weights)
    nodes = [helper.make_node("LayerNormalization", ["x", *weights], ["y"], epsilon=case.epsilon)]
    return Comparison(
        f"LayerNorm {rows} x {columns}", norm, case, nodes, inputs, {"y": y}, constants=weights, weights=weights
    )


def _residual_norm(rows: int, columns: int, *, fused: bool) -> Comparison:
    """`fused` has ONNX Runtime's one node for it, else there are two, which are faster."""
    case = norm.NormCase(rows, columns, residual=True)
    x, residual = _normal(2, rows, columns)
    weights = _scale_and_bias(columns)
    total, y = norm.reference(case, x=x, residual=residual, **weights)
    one = helper.make_node(
        "SkipLayerNormalization",
        ["x", "residual", *weights],
        ["y", "", "", "sum"],
        domain="com.microsoft",
        epsilon=case.epsilon,
    )
    two = [
        helper.make_node("Add", ["x", "residual"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", *weights], ["y"], epsilon=case.epsilon),
    ]
    return Comparison(
        f"residual + LayerNorm {rows} x {columns}, theirs {'SkipLayerNormalization' if fused else 'two nodes'}",
        norm,
        case,
        [one] if fused else two,
        {"x": x, "residual": residual},
        {"sum": total, "y": y},
        constants=weights,
        weights=weights,
    )


def _scale_and_bias(columns: int) -> Mapping[str, Array]:
    scale, bias = _normal(2, columns)
    return {"scale": scale, "bias": bias}


def _softmax(rows: int, columns: int) -> Comparison:
    case, x = softmax.SoftmaxCase(rows, columns), _normal(rows, columns)
    node = helper.make_node("Softmax", ["x"], ["y"], axis=-1)
    expected = {"y": softmax.reference(case, x=x)}
    return Comparison(f"softmax {rows} x {columns}", softmax, case, [node], {"x": x}, expected)


def _gelu(size: int) -> Comparison:
    case, x = gelu.GeluCase(size), 2 * _normal(size)
    node = helper.make_node("Gelu", ["x"], ["y"])
    return Comparison(f"GELU {size}", gelu, case, [node], {"x": x}, {"y": gelu.reference(case, x=x)})


# ------------------------------------------------------------------ convolutions


def convolution(channels: int, filters: int, size: int, stride: int, *, lanes: int, kernel: int) -> Comparison:
    """Images in blocks of channels on both sides: ONNX Runtime's own layout, without its conversions.

    What widens in MobileNetV2 has a ReLU6, what narrows has nothing; ResNet's have a ReLU.
    """
    window = _window(size, kernel, stride)
    activation = "relu" if kernel == 3 else ("relu6" if filters > channels else "none")
    case = conv.ConvCase(1, channels, filters, window, activation=activation)
    x, weight, bias = _normal(1, channels, size, size), _normal(filters, channels, kernel, kernel), _normal(filters)
    weight /= np.float32(kernel * channels**0.5)
    padded = np.pad(weight, ((0, -filters % lanes), (0, -channels % lanes), (0, 0), (0, 0)))
    parts = padded.reshape(len(padded) // lanes, lanes, -1, lanes, kernel, kernel).transpose(0, 2, 4, 5, 3, 1)
    result = conv.reference(case, x=x, weight=weight, bias=bias)
    return Comparison(
        f"{channels} -> {filters}, {size} x {size}{', stride 2' if stride == 2 else ''}",
        conv,
        case,
        [_image_node(window, activation, 1)],
        {"x": in_blocks(x, lanes)},
        {"y": in_blocks(result, lanes)},
        constants={"weight": parts.reshape(padded.shape), "bias": np.pad(bias, (0, -filters % lanes))},
        weights={"weight": weight, "bias": bias},
        operations=2 * result.size * channels * kernel * kernel,
    )


def _depthwise(channels: int, size: int, stride: int, *, lanes: int) -> Comparison:
    window = _window(size, 3, stride)
    case = depthwise.DepthwiseCase(1, channels, window, activation="relu6")
    x, weight, bias = _normal(1, channels, size, size), _normal(channels, 1, 3, 3), _normal(channels)
    parts = weight.reshape(channels // lanes, lanes, 3, 3).transpose(0, 2, 3, 1)
    result = depthwise.reference(case, x=x, weight=weight, bias=bias)
    return Comparison(
        f"{channels}, {size} x {size}{', stride 2' if stride == 2 else ''}",
        depthwise,
        case,
        [_image_node(window, "relu6", channels)],
        {"x": in_blocks(x, lanes)},
        {"y": in_blocks(result, lanes)},
        constants={"weight": np.ascontiguousarray(parts).reshape(weight.shape), "bias": bias},
        weights={"weight": weight, "bias": bias},
        operations=2 * result.size * 9,
    )


def _window(size: int, kernel: int, stride: int) -> Window:
    return Window((size, size), (kernel, kernel), (stride, stride), (kernel // 2,) * 4)


def in_blocks(image: Array, lanes: int) -> Array:
    """In blocks of channels, with the four axes that ONNX Runtime says of such an image."""
    parts = blocked(image, lanes)
    return parts.reshape(parts.shape[0], -1, *image.shape[2:])


def _image_node(window: Window, activation: str, groups: int) -> NodeProto:
    """A convolution of images in blocks, which ONNX Runtime makes of an ordinary one with its activation."""
    activations: Mapping[str, Mapping[str, Any]] = {
        "none": {},
        "relu": {"activation": "Relu"},
        "relu6": {"activation": "Clip", "activation_params": [0.0, 6.0]},
    }
    return helper.make_node(
        "Conv",
        ["x", "weight", "bias"],
        ["y"],
        domain="com.microsoft.nchwc",
        kernel_shape=window.kernel,
        strides=window.stride,
        pads=window.padding,
        group=groups,
        **activations[activation],
    )


# ------------------------------------------------------------------ convolutions of bytes


def _qconv(channels: int, filters: int, size: int, stride: int, *, most: int, lanes: int, kernel: int) -> Comparison:
    """Bytes to bytes; ours has images in blocks, theirs pixel by pixel, which is how its kernel takes them."""
    window, weight = _window(size, kernel, stride), _small_weights(most, filters, channels, kernel, kernel)
    gentle = dot.gentle(np.moveaxis(weight, 1, -1))
    case = QConvCase(1, channels, filters, window, gentle=gentle)
    about = f"{channels} -> {filters}, {size} x {size}{', stride 2' if stride == 2 else ''}"
    return _quantised(qconv, case, f"{about}, {7 if gentle else 8} bits", weight, lanes=lanes, groups=1)


def _qdepthwise(channels: int, size: int, stride: int, *, lanes: int) -> Comparison:
    window = _window(size, 3, stride)
    case = qdepthwise.QDepthwiseCase(1, channels, window)
    about = f"{channels}, {size} x {size}{', stride 2' if stride == 2 else ''}"
    return _quantised(qdepthwise, case, about, _small_weights(127, channels, 1, 3, 3), lanes=lanes, groups=channels)


def _small_weights(most: int, *shape: int) -> Array:
    """int8 in -most..most with the spread of trained ones: the largest is four deviations away."""
    weight = np.random.default_rng(shape).standard_normal(shape) * (most / 4)
    return np.clip(np.rint(weight), -most, most).astype(np.int8)


def _quantised(template: ModuleType, case: Any, name: str, weight: Array, *, lanes: int, groups: int) -> Comparison:
    """A comparison with QLinearConv. Activations are of seven bits: without a dot product, its kernel saturates."""
    window, filters, depth = case.window, len(weight), weight[0].size
    rng = np.random.default_rng((filters, depth))
    x = rng.integers(0, 128, (1, case.channels, *window.image)).astype(np.uint8)
    scale = (rng.uniform(0.5, 1.0, filters) / (20 * depth**0.5)).astype(np.float32)
    weights = {"weight": weight, "bias": rng.integers(-9999, 9999, filters).astype(np.int32), "scale": scale}
    y = template.reference(case, x=x, **weights)
    one, zero = np.float32(1.0), np.uint8(0)
    names = ("x_scale", "x_zero", "weight", "scale", "w_zero", "y_scale", "y_zero", "bias")
    values = (one, zero, weight, scale, np.zeros(filters, np.int8), one, zero, weights["bias"])
    node = helper.make_node(
        "QLinearConv",
        ["x", *names],
        ["y"],
        domain="com.microsoft",
        channels_last=1,
        kernel_shape=window.kernel,
        strides=window.stride,
        pads=window.padding,
        group=groups,
    )
    return Comparison(
        name,
        template,
        case,
        [node],
        {"x": in_blocks(x, lanes)},
        {"y": in_blocks(y, lanes)},
        constants={name: np.asarray(value) for name, value in zip(names, values)},
        weights=weights,
        operations=2 * y.size * depth,
        kind="int8",
        theirs=({"x": _last(x)}, {"y": _last(y)}),
    )


def _last(image: Array) -> Array:
    """Channels last."""
    return np.ascontiguousarray(image.transpose(0, 2, 3, 1))
