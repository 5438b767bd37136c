"""Reads the graphs of ncnn's benchmark (.param files with shape hints) as ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from predictor.graphs import Graph, Shape

FREE = {"Split", "Dropout", "Flatten", "Reshape", "Noop", "PriorBox"}
OUTSIDE = {"DetectionOutput", "Yolov3DetectionOutput", "YoloDetectionOutput"}
"""Post-processing, which no ONNX operator stands for."""

ACTIVATIONS = {"1": "Relu", "2": "LeakyRelu", "3": "Clip", "4": "Sigmoid", "5": "Mish", "6": "HardSwish"}
SINGLE = {"ReLU": "Relu", "HardSwish": "HardSwish", "HardSigmoid": "HardSigmoid", "Softmax": "Softmax"}


def read_ncnn(path: Path, dtype: str) -> onnx.ModelProto | None:
    """The graph in the file; layers without int8 scales stay in float. None where sizes are missing."""
    net, names = Graph((1,), dtype), dict[str, str]()
    quantised = net.quantised
    for line in path.read_text(encoding="utf-8").splitlines()[2:]:
        words = line.split()
        taken, given = int(words[2]), int(words[3])
        outputs = words[4 + taken : 4 + taken + given]
        options = dict(option.split("=", 1) for option in words[4 + taken + given :])
        if words[0] in OUTSIDE | {"Noop"}:
            continue
        shapes = hints(options)
        if not shapes:
            return None
        net.quantised = quantised and "8" in options
        made = layer(net, words[0], [names[name] for name in words[4 : 4 + taken]], shapes, options)
        names |= dict(zip(outputs, made if len(made) == given else made * given))
    used = {name for node in net.nodes for name in node.input}
    return net.model(*(node.output[0] for node in net.nodes if node.output[0] not in used))


def hints(options: Mapping[str, str]) -> list[Shape]:
    """The sizes of what a layer writes, channels first."""
    words = [int(word) for word in options.get("-23330", "").split(",")[1:]]
    shapes = [(1, *words[at + words[at] : at : -1]) for at in range(0, len(words), 4)]
    return [(*shape, 1, 1) if len(shape) == 2 else shape for shape in shapes]  # an image of one pixel, maybe


def layer(net: Graph, kind: str, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """Add one layer; what it writes."""
    if kind == "Input":
        net.shapes["x"] = shapes[0]
        return ["x"]
    if kind in FREE:
        return [*x] if kind in {"Split", "Dropout"} else [viewed(net, x[0], shapes[0])]
    if kind in SINGLE:
        return [net.node(SINGLE[kind], x, shapes[0])]
    if kind in {"Convolution", "ConvolutionDepthWise", "DeconvolutionDepthWise", "InnerProduct"}:
        return [product(net, kind, x[0], shapes[0], options)]
    return OTHERS[kind](net, x, shapes, options)


def viewed(net: Graph, x: str, shape: Shape) -> str:
    """The same data in another shape; of boxes, which follow from shapes alone, nothing is computed."""
    same = math.prod(net.shapes[x]) == math.prod(shape)
    return net.node("Reshape", [x, net.sizes(*shape)], shape) if same else net.weight(*shape)


def product(net: Graph, kind: str, x: str, shape: Shape, options: Mapping[str, str]) -> str:
    """A convolution or a product with a matrix, with its activation."""
    act = ACTIVATIONS.get(options.get("9", ""), "")
    if kind == "InnerProduct":
        return viewed(net, net.act(net.linear(x, int(options["0"])), act), shape)
    kernel, stride, group = int(options["1"]), int(options.get("3", 1)), int(options.get("7", 1))
    if kind.startswith("De"):
        taken = net.shapes[x][1]
        inputs = [x, net.weight(taken, int(options["0"]) // group, kernel, kernel)]
        cut = [(n - 1) * stride + kernel - out for n, out in zip(net.shapes[x][2:], shape[2:])]
        return net.act(
            net.node("ConvTranspose", inputs, shape, strides=[stride] * 2, group=group, pads=[0, 0, *cut]), act
        )
    size = (kernel, int(options.get("11", kernel)))
    y = net.conv(x, int(options["0"]), size, stride, group=group, act="")
    net.shapes[y] = shape  # its padding is not always that which keeps the size
    pads = next(attribute for attribute in net.nodes[-1].attribute if attribute.name == "pads")
    del pads.ints[:]
    pads.ints.extend(padding(net.shapes[x], shape, size, stride))
    return net.act(y, act)


def padding(taken: Shape, given: Shape, size: Sequence[int], stride: int) -> list[int]:
    """The padding, all of it at the end, that makes `given` of `taken`."""
    return [0, 0, *(max(0, (out - 1) * stride + k - n) for n, out, k in zip(taken[2:], given[2:], size))]


def pooling(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """Pooling, over a window or the whole image."""
    average = options.get("0") == "1"
    if options.get("4") == "1":
        return [net.node("GlobalAveragePool" if average else "GlobalMaxPool", x, (*net.shapes[x[0]][:2], 1, 1))]
    kernel, stride = int(options["1"]), int(options.get("2", 1))
    size = (kernel, int(options.get("11", kernel)))
    pads = padding(net.shapes[x[0]], shapes[0], size, stride)
    operator = "AveragePool" if average else "MaxPool"
    return [net.node(operator, x, shapes[0], kernel_shape=list(size), strides=[stride] * 2, pads=pads)]


def binary(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """Two tensors, or one and a number, element by element."""
    operator = {"0": "Add", "1": "Sub", "2": "Mul", "3": "Div"}[options.get("0", "0")]
    return [net.node(operator, [*x, net.weight()][:2], shapes[0])]


def eltwise(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """The sum of tensors (1) or their product (0)."""
    operator, total = ("Add" if options.get("0") == "1" else "Mul"), x[0]
    for other in x[1:]:
        total = net.node(operator, [total, other], shapes[0])
    return [total]


def concat(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """Tensors one after another; ncnn counts axes without the batch."""
    axis = int(options.get("0", 0)) + 1
    return [net.node("Concat", x, shapes[0], axis=axis)]


def permute(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """Channels last, as the heads of detectors have it, or (5) in the place of the rows' pixels."""
    return [net.node("Transpose", x, shapes[0], perm=[0, 3, 2, 1] if options["0"] == "5" else [0, 2, 3, 1])]


def shuffle(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """Channels dealt out anew."""
    return [net.shuffle(x[0], int(options.get("0", 1)))]


def parts(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """Channels in parts."""
    starts = [sum(shape[1] for shape in shapes[:at]) for at in range(len(shapes) + 1)]
    cuts = [(net.sizes(start), net.sizes(end), net.sizes(1)) for start, end in zip(starts, starts[1:])]
    return [net.node("Slice", [x[0], *cut], shape) for cut, shape in zip(cuts, shapes)]


def padded(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """An image with a border, all of it at the end."""
    border = [0] * 4 + [given - taken for taken, given in zip(net.shapes[x[0]], shapes[0])]
    return [net.node("Pad", [x[0], net.sizes(*border)], shapes[0])]


def resized(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """An image of another size."""
    return [net.node("Resize", [x[0], "", "", net.sizes(*shapes[0])], shapes[0])]


def normalised(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """A batch norm on its own."""
    return [net.node("BatchNormalization", [x[0], *(net.weight(shapes[0][1]) for _ in range(4))], shapes[0])]


def local_norm(net: Graph, x: Sequence[str], shapes: Sequence[Shape], options: Mapping[str, str]) -> list[str]:
    """Normalised over neighbouring channels."""
    return [net.node("LRN", x, shapes[0], size=5)]


Layer = Callable[[Graph, Sequence[str], Sequence[Shape], Mapping[str, str]], list[str]]
OTHERS: Mapping[str, Layer] = {
    "Pooling": pooling,
    "BinaryOp": binary,
    "Eltwise": eltwise,
    "Concat": concat,
    "Permute": permute,
    "ShuffleChannel": shuffle,
    "Slice": parts,
    "Padding": padded,
    "Interp": resized,
    "BatchNorm": normalised,
    "LRN": local_norm,
}
