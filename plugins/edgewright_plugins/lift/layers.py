"""Operators with weights become layers of torch.nn, so that methods can prune and train them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from edgewright_plugins.lift import shapes
from edgewright_plugins.lift.node import Call, Node, Value
from edgewright_plugins.lift.windows import padded, pads, per_axis, symmetric

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def filled(kind: Callable[..., nn.Module], *args: Any, tensors: Mapping[str, Tensor], **kwargs: Any) -> nn.Module:
    """A layer without random initialisation, its parameters and buffers set to `tensors`, in evaluation mode."""
    layer = skip_init(kind, *args, dtype=tensors["weight"].dtype, **kwargs)
    layer.load_state_dict({**layer.state_dict(), **tensors})
    return layer.eval()


def call(node: Node, layer: nn.Module, x: Value | Call | None = None) -> Call:
    """The layer on the node's first input, called as its weights are."""
    return Call(layer, (node.x if x is None else x,), paths=layer_paths(node), weight=node.value(1).name)


def layer_paths(node: Node) -> tuple[str, ...]:
    """`blocks.0.fc` when the weight is called `blocks.0.fc.weight`, or the bias so, then the name of the node."""
    given = ((1, ".weight"), (2, ".bias"))
    names = [(node.value(i).name, ending) for i, ending in given if node.has(i)]
    return (*(name.removesuffix(ending) for name, ending in names if name.endswith(ending)), node.name)


def biased(node: Node, weight: Tensor, index: int = 2) -> dict[str, Tensor]:
    """Weight, and bias when the node has one."""
    return {"weight": weight, "bias": node.constant(index)} if node.has(index) else {"weight": weight}


def conv(node: Node) -> Call:
    """Conv with a constant kernel; uneven padding is done before it."""
    weight = node.constant(1)
    kernel = list(weight.shape[2:])
    x, padding = symmetric(node, kernel)
    groups = int(node.attr("group", 1))
    layer = filled(
        CONVS[len(kernel) - 1],
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        stride=per_axis(node, "strides", len(kernel)),
        padding=padding,
        dilation=per_axis(node, "dilations", len(kernel)),
        groups=groups,
        bias=node.has(2),
        tensors=biased(node, weight),
    )
    return call(node, layer, x)


def conv_transpose(node: Node) -> Call:
    """ConvTranspose with a constant kernel; uneven cropping is done after it."""
    weight = node.constant(1)
    kernel = list(weight.shape[2:])
    if node.attr("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        raise node.refusal("leaves its padding to the runtime; write it out as pads")
    before, after = pads(node, kernel)
    groups = int(node.attr("group", 1))
    even = before == after
    layer = filled(
        TRANSPOSED[len(kernel) - 1],
        weight.shape[0],
        weight.shape[1] * groups,
        kernel,
        stride=per_axis(node, "strides", len(kernel)),
        padding=before if even else 0,
        output_padding=[int(i) for i in node.attr("output_padding", [0] * len(kernel))],
        groups=groups,
        bias=node.has(2),
        dilation=per_axis(node, "dilations", len(kernel)),
        tensors=biased(node, weight),
    )
    result = call(node, layer)
    if even:
        return result
    cropped = padded(node.x, [-size for size in before], [-size for size in after])
    assert isinstance(cropped, Call)
    return Call(cropped.target, (result, *cropped.args[1:]), cropped.kwargs)


def batch_norm(node: Node) -> Call:
    """BatchNormalization as it infers, with the statistics it was trained to."""
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: node.constant(i) for i, name in enumerate(names, 1)}
    layer = filled(
        NORMS[max(node.x.tensor.ndim - 3, 0)],
        len(tensors["weight"]),
        eps=node.attr("epsilon", 1e-5),
        momentum=1 - node.attr("momentum", 0.9),
        tensors={**tensors, "num_batches_tracked": torch.tensor(0)},
    )
    return call(node, layer)


def layer_norm(node: Node) -> Call:
    """LayerNormalization over the trailing axes."""
    scale = node.constant(1)
    layer = filled(
        nn.LayerNorm,
        list(node.x.tensor.shape[node.axis(default=-1) :]),
        eps=node.attr("epsilon", 1e-5),
        bias=node.has(2),
        tensors=biased(node, scale),
    )
    return call(node, layer)


def instance_norm(node: Node) -> Call:
    """InstanceNormalization: a group norm with one channel to a group."""
    return _grouped(node, len(node.constant(1)))


def group_norm(node: Node) -> Call:
    """GroupNormalization; before opset 21 its scale was per group."""
    return _grouped(node, int(node.attr("num_groups")))


def _grouped(node: Node, groups: int) -> Call:
    channels = node.x.tensor.shape[1]
    tensors = {
        name: node.constant(i).repeat_interleave(channels // len(node.constant(i)))
        for i, name in ((1, "weight"), (2, "bias"))
    }
    layer = filled(nn.GroupNorm, groups, channels, eps=node.attr("epsilon", 1e-5), tensors=tensors)
    return call(node, layer)


def matmul(node: Node) -> Call:
    """MatMul: a Linear when the right side is a constant matrix (input 2 is then a bias that follows it)."""
    if not node.value(1).constant or node.value(1).tensor.ndim != 2 or node.x.constant:
        return Call(torch.matmul, (node.x, node.value(1)))
    return call(node, _linear(node.constant(1).T, node.constant(2) if node.has(2) else None))


def gemm(node: Node) -> Call:
    """Gemm: a Linear when its matrix and its bias per column are constant."""
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    right = node.value(1)
    columns = right.tensor.shape[0 if node.attr("transB", 0) else 1]
    bias = node.constant(2).reshape(-1) * beta if node.has(2) and node.value(2).constant else None
    whole = not node.has(2) or (bias is not None and len(bias) == columns)
    if not right.constant or not whole or node.attr("transA", 0):
        return _free_gemm(node, alpha, beta)
    weight = right.tensor if node.attr("transB", 0) else right.tensor.T
    return call(node, _linear(weight * alpha, bias))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    tensors = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    return filled(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None, tensors=tensors)


def _free_gemm(node: Node, alpha: float, beta: float) -> Call:
    left, right = (
        Call(torch.t, (node.value(i),)) if node.attr(name, 0) else node.value(i)
        for i, name in ((0, "transA"), (1, "transB"))
    )
    product = Call(torch.mul, (Call(torch.matmul, (left, right)), alpha))
    return Call(torch.add, (product, node.value(2)), {"alpha": beta}) if node.has(2) else product


def gather(node: Node) -> Call | Value:
    """Gather: an Embedding when data looks up rows of a constant table of floats."""
    table, indices = node.x, node.value(1)
    looked_up = table.constant and not indices.constant and table.tensor.is_floating_point()
    if not looked_up or node.axis() != 0 or table.tensor.ndim != 2:
        return shapes.gather(node)
    layer = filled(nn.Embedding, *table.tensor.shape, tensors={"weight": table.tensor})
    paths = (table.name.removesuffix(".weight"), node.name)
    return Call(layer, (indices,), paths=paths, weight=table.name)
