"""The table of operators: from an ONNX node to a torch call."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Union

import torch
from torch import Tensor
from torch.nn import functional

from edgewright_plugins.lift import layers, quantized, shapes, windows
from edgewright_plugins.lift.node import Call, Node, Value

Translator = Callable[[Node], Union[Call, Value]]


def plain(function: Callable[..., Any]) -> Translator:
    """All inputs, in order, to one function; single numbers beside values as numbers."""

    def translate(node: Node) -> Call:
        values = [node.value(i) for i in range(len(node.inputs))]
        folds = all(value.constant for value in values)
        return Call(function, tuple(value if folds else _number(value) for value in values))

    return translate


def tensors(function: Callable[..., Any]) -> Translator:
    """All inputs, in order, to one function that takes tensors only."""
    return lambda node: Call(function, tuple(node.value(i) for i in range(len(node.inputs))))


def with_attributes(function: Callable[..., Any], **defaults: tuple[str, Any]) -> Translator:
    """The first input, and attributes under torch's names: `negative_slope=("alpha", 0.01)`."""
    return lambda node: Call(
        function, (node.x,), {key: node.attr(name, default) for key, (name, default) in defaults.items()}
    )


def along(function: Callable[..., Any], default: int = -1) -> Translator:
    """A function of the first input along `axis`."""
    return lambda node: Call(function, (node.x,), {"dim": node.axis(default=default)})


def folded(function: Callable[..., Any]) -> Translator:
    """A function of two, over any number of inputs."""

    def translate(node: Node) -> Any:
        values: list[Any] = [node.value(i) for i in range(len(node.inputs))]
        return reduce(lambda left, right: Call(function, (left, right)), values)

    return translate


def reduced(function: Callable[..., Any]) -> Translator:
    """A reduction over the axes of an attribute or an input, all of them when there are none."""

    def translate(node: Node) -> Call | Value:
        axes = node.ints("axes", 1)
        if not axes and node.attr("noop_with_empty_axes", 0):
            return node.x
        dims = tuple(axes or range(node.x.tensor.ndim))
        return Call(function, (node.x,), {"dim": dims, "keepdim": bool(node.attr("keepdims", 1))})

    return translate


def _number(value: Value) -> Any:
    """A constant of one element as the number it is: the graph then reads `x * 0.125`."""
    small = value.constant and value.tensor.numel() == 1 and value.tensor.ndim <= 1
    return value.tensor.item() if small else value


def _divide(node: Node) -> Call | Value:
    if node.x.tensor.is_floating_point():
        return plain(operator.truediv)(node)
    return Call(torch.div, (node.x, node.value(1)), {"rounding_mode": "trunc"})


def _modulo(node: Node) -> Call:
    return Call(torch.fmod if node.attr("fmod", 0) else torch.remainder, (node.x, node.value(1)))


def _clip(node: Node) -> Call:
    bounds = {
        key: node.attr(key) if key in node.attributes else _number(node.value(i)) if node.has(i) else None
        for i, key in ((1, "min"), (2, "max"))
    }
    if (bounds["min"], bounds["max"]) == (0.0, 6.0):
        return Call(functional.relu6, (node.x,))
    return Call(torch.clamp, (node.x,), bounds)


def _prelu(node: Node) -> Call:
    slope = Call(torch.mul, (node.x, node.value(1)))
    return Call(torch.where, (Call(torch.ge, (node.x, 0)), node.x, slope))


def _hard_sigmoid(node: Node) -> Call:
    alpha, beta = node.attr("alpha", 0.2), node.attr("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return Call(functional.hardsigmoid, (node.x,))
    line = Call(operator.add, (Call(operator.mul, (node.x, alpha)), beta))
    return Call(torch.clamp, (line,), {"min": 0.0, "max": 1.0})


def _global_mean(node: Node) -> Call:
    return Call(torch.mean, (node.x,), {"dim": tuple(range(2, node.x.tensor.ndim)), "keepdim": True})


def _global_max(node: Node) -> Call:
    return Call(torch.amax, (node.x,), {"dim": tuple(range(2, node.x.tensor.ndim)), "keepdim": True})


def _same(node: Node) -> Value:
    return node.x


def _cast_like(node: Node) -> Call:
    return Call(torch.Tensor.to, (node.x, node.value(1).tensor.dtype))


def _extreme(function: Callable[..., Any]) -> Translator:
    def translate(node: Node) -> Call:
        if node.attr("select_last_index", 0):
            raise node.refusal("asks for the last of equal values")
        return Call(function, (node.x,), {"dim": node.axis(), "keepdim": bool(node.attr("keepdims", 1))})

    return translate


def _top_k(node: Node) -> Call:
    count = int(node.constant(1).item())
    wanted = {"largest": bool(node.attr("largest", 1)), "sorted": bool(node.attr("sorted", 1))}
    return Call(torch.topk, (node.x, count, node.axis(default=-1)), wanted)


def _cumulative_sum(node: Node) -> Call:
    if node.attr("exclusive", 0) or node.attr("reverse", 0):
        raise node.refusal("is exclusive or runs backwards")
    return Call(torch.cumsum, (node.x, int(node.constant(1).item())))


def _trilu(node: Node) -> Call:
    diagonal = int(node.constant(1).item()) if node.has(1) else 0
    return Call(torch.triu if node.attr("upper", 1) else torch.tril, (node.x, diagonal))


def _einsum(node: Node) -> Call:
    return Call(torch.einsum, (node.attr("equation"), *(node.value(i) for i in range(len(node.inputs)))))


def _tile(node: Node) -> Call:
    return Call(torch.tile, (node.x, tuple(int(i) for i in node.constant(1).tolist())))


def _range(node: Node) -> Call:
    bounds = [node.constant(i) for i in range(3)]
    return Call(torch.arange, tuple(bound.item() for bound in bounds), {"dtype": bounds[0].dtype})


def _constant(node: Node) -> Value:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in node.attributes:
            value = node.attr(name)
            return Value("", value if isinstance(value, Tensor) else _small(value))
    raise node.refusal("holds neither numbers nor a dense tensor")


def _small(value: Any) -> Tensor:
    number = value[0] if isinstance(value, (list, tuple)) and value else value
    return torch.tensor(value, dtype=torch.float32 if isinstance(number, float) else torch.int64)


def _resize(node: Node) -> Call:
    """Resize of the spatial axes; which of torch's modes meets ONNX's is proven by the numbers afterwards."""
    x = node.x.tensor
    scales = node.constant(2).tolist() if node.has(2) and node.value(2).tensor.numel() else None
    sizes = (
        node.constant(3).tolist() if node.has(3) else [int(n * s) for n, s in zip(x.shape, scales or [], strict=True)]
    )
    if [int(i) for i in sizes[:2]] != list(x.shape[:2]):
        raise node.refusal(f"resizes {list(x.shape)} to {sizes}, beyond the spatial axes")
    where = node.attr("coordinate_transformation_mode", "half_pixel")
    kind = node.attr("mode", "nearest")
    spatial = [int(i) for i in sizes[2:]]
    if kind == "nearest":
        mode = "nearest" if where == "asymmetric" else "nearest-exact"
        return Call(functional.interpolate, (node.x,), {"size": spatial, "mode": mode})
    names = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}, "cubic": {4: "bicubic"}}
    mode = names.get(kind, {}).get(x.ndim)
    if mode is None or where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise node.refusal(f"of mode {kind} with {where} coordinates has no torch form")
    corners = {"align_corners": where == "align_corners", "antialias": bool(node.attr("antialias", 0))}
    return Call(functional.interpolate, (node.x,), {"size": spatial, "mode": mode, **corners})


ELEMENTWISE: Mapping[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": operator.add,
    "And": torch.logical_and,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": functional.hardswish,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": functional.mish,
    "Mul": operator.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Sub": operator.sub,
    "Tanh": torch.tanh,
    "Xor": torch.logical_xor,
}

COMPARED: Mapping[str, Callable[..., Any]] = {
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Pow": torch.pow,
}

REDUCED: Mapping[str, Callable[..., Any]] = {
    "ReduceL2": torch.linalg.vector_norm,
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceSum": torch.sum,
}

OPS: Mapping[str, Translator] = {
    **{op: plain(function) for op, function in ELEMENTWISE.items()},
    **{op: tensors(function) for op, function in COMPARED.items()},
    **{op: reduced(function) for op, function in REDUCED.items()},
    "ArgMax": _extreme(torch.argmax),
    "ArgMin": _extreme(torch.argmin),
    "AveragePool": windows.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Cast": shapes.cast,
    "CastLike": _cast_like,
    "Celu": with_attributes(functional.celu, alpha=("alpha", 1.0)),
    "Clip": _clip,
    "Concat": shapes.concat,
    "Constant": _constant,
    "ConstantOfShape": shapes.constant_of_shape,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "CumSum": _cumulative_sum,
    "DepthToSpace": shapes.depth_to_space,
    "DequantizeLinear": quantized.dequantize_linear,
    "Div": _divide,
    "Dropout": _same,
    "Einsum": _einsum,
    "Elu": with_attributes(functional.elu, alpha=("alpha", 1.0)),
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Gather": layers.gather,
    "GatherElements": shapes.gather_elements,
    "Gelu": with_attributes(functional.gelu, approximate=("approximate", "none")),
    "Gemm": layers.gemm,
    "GlobalAveragePool": _global_mean,
    "GlobalMaxPool": _global_max,
    "GroupNormalization": layers.group_norm,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _same,
    "InstanceNormalization": layers.instance_norm,
    "LayerNormalization": layers.layer_norm,
    "LeakyRelu": with_attributes(functional.leaky_relu, negative_slope=("alpha", 0.01)),
    "LogSoftmax": along(torch.log_softmax),
    "MatMul": layers.matmul,
    "Max": folded(torch.maximum),
    "MaxPool": windows.max_pool,
    "Min": folded(torch.minimum),
    "Mod": _modulo,
    "PRelu": _prelu,
    "Pad": shapes.pad,
    "QuantizeLinear": quantized.quantize_linear,
    "Range": _range,
    "Reshape": shapes.reshape,
    "Resize": _resize,
    "Selu": with_attributes(functional.selu),
    "Shape": shapes.shape_of,
    "Slice": shapes.slice_,
    "Softmax": along(torch.softmax),
    "Split": shapes.split,
    "Squeeze": shapes.squeeze,
    "Sum": folded(torch.add),
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": shapes.transpose,
    "Trilu": _trilu,
    "Unsqueeze": shapes.unsqueeze,
    "Where": tensors(torch.where),
}
"""Operators of the standard domain, as of opset 18; `lift_graph` raises older graphs to it."""
