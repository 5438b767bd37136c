"""The micro-networks of `engine calibrate`: drawn once by a seed, so that every device runs the same ones.

Each is a short chain of blocks of one kind (convolutions, depthwise, grouped, dense, attention, joins), at sizes drawn
from ranges that networks for edge devices use, in float32 and as quantise/dequantise pairs around int8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

Shape = tuple[int, ...]
SEED = 20_000
EACH = 4
"""Networks of each kind and width of numbers."""


def write_probes(folder: Path) -> list[Path]:
    """Write the networks into `folder`; their paths in a fixed order."""
    import numpy as np
    import onnx

    paths = []
    for kind, blocks in enumerate(KINDS):
        for at in range(EACH):
            for quantised in (False, True):
                rng = np.random.default_rng((SEED, kind, at))
                path = folder / f"{blocks.__name__}-{at}-{'int8' if quantised else 'float32'}.onnx"
                onnx.save(blocks(rng, quantised), str(path))
                paths.append(path)
    return paths


class Chain:
    """A graph that grows at its end; NCHW images or (1, tokens, width) sequences."""

    def __init__(self, shape: Shape, rng: np.random.Generator, *, quantised: bool) -> None:
        self.shape, self.rng, self.quantised = shape, rng, quantised
        self.taken, self.at = shape, "x"
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; the name of what it writes."""
        from onnx import helper

        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: Any) -> str:
        """An array of the graph's own."""
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def weight(self, *shape: int) -> str:
        """Drawn weights: floats, or codes of 7 bits and the node that restores them."""
        import numpy as np

        values = self.rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:]) + 1))
        if not self.quantised:
            return self.constant(values)
        scale = float(np.abs(values).max()) / 63
        codes = self.constant(np.round(values / scale).astype(np.int8))
        grid = (self.constant(np.float32(scale)), self.constant(np.int8(0)))
        return self.node("DequantizeLinear", codes, *grid)

    def rounded(self, name: str) -> str:
        """In an int8 network what a tensor is after 8 bits, else itself."""
        import numpy as np

        if not self.quantised:
            return name
        grid = (self.constant(np.float32(0.05)), self.constant(np.uint8(128)))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", name, *grid), *grid)

    def conv(self, given: int, kernel: int = 3, stride: int = 1, *, groups: int = 1, act: str = "Relu") -> str:
        """A convolution with its activation."""
        _, taken, *size = self.shape
        w = self.weight(given, taken // groups, kernel, kernel)
        pads = [kernel // 2] * 4
        self.at = self.node("Conv", self.rounded(self.at), w, strides=[stride] * 2, pads=pads, group=groups)
        self.shape = (1, given, *((pixels - 1) // stride + 1 for pixels in size))
        if act:
            self.at = self.node(act, self.at)
        return self.at

    def dense(self, given: int, act: str = "") -> str:
        """A product of the last axis with weights."""
        self.at = self.node("MatMul", self.rounded(self.at), self.weight(self.shape[-1], given))
        self.shape = (*self.shape[:-1], given)
        if act:
            self.at = self.node(act, self.at)
        return self.at

    def add(self, other: str) -> None:
        """The sum with an earlier tensor of the same shape."""
        self.at = self.node("Add", self.rounded(self.at), self.rounded(other))

    def normalise(self) -> None:
        """Layer normalisation over the last axis."""
        import numpy as np

        width = np.ones(self.shape[-1], np.float32)
        self.at = self.node("LayerNormalization", self.at, self.constant(width), self.constant(0 * width), axis=-1)

    def model(self) -> onnx.ModelProto:
        """The finished network."""
        from onnx import TensorProto, helper

        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.taken)
        y = helper.make_tensor_value_info(self.at, TensorProto.FLOAT, self.shape)
        graph = helper.make_graph(self.nodes, "probe", [x], [y], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _pick(rng: np.random.Generator, options: Sequence[int]) -> int:
    return int(rng.choice(list(options)))


def convolutions(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """Windows of 3 and 5, some at stride 2, and a sum."""
    channels, size = _pick(rng, (16, 32, 64, 96, 128)), _pick(rng, (8, 16, 32, 56))
    net = Chain((1, 3, 2 * size, 2 * size), rng, quantised=quantised)
    before = net.conv(channels, _pick(rng, (3, 7)), 2)
    for _ in range(_pick(rng, (1, 2, 3))):
        net.conv(channels)
        net.conv(channels, act="")
        net.add(before)
        before = net.at = net.node("Relu", net.at)
    net.conv(2 * channels, _pick(rng, (3, 5)), 2)
    return net.model()


def separable(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """Depthwise convolutions between ones of 1x1, as phones' networks have them."""
    channels = _pick(rng, (16, 24, 40, 80, 112))
    size = _pick(rng, [pixels for pixels in (7, 14, 28, 56) if pixels * channels < 1500])
    net = Chain((1, channels, size, size), rng, quantised=quantised)
    for _ in range(_pick(rng, (2, 3, 5))):
        before, inner = net.at, channels * _pick(rng, (2, 3, 6))
        net.conv(inner, 1)
        net.conv(inner, _pick(rng, (3, 5)), groups=inner)
        net.conv(channels, 1, act="")
        net.add(before)
    return net.model()


def grouped(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """Grouped convolutions, joined channels, pooling and a head."""
    channels, size = _pick(rng, (32, 64, 128)), _pick(rng, (7, 14, 28))
    net = Chain((1, channels, size, size), rng, quantised=quantised)
    first = net.conv(channels, 3, groups=_pick(rng, (2, 4, 8)))
    net.conv(channels, 1)
    net.at = net.node("Concat", net.rounded(first), net.rounded(net.at), axis=1)
    net.shape = (1, 2 * channels, size, size)
    net.conv(channels, 1)
    net.at = net.node("MaxPool", net.rounded(net.at), kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    net.at = net.node("Flatten", net.node("GlobalAveragePool", net.rounded(net.at)))
    net.shape = (1, channels)
    net.dense(_pick(rng, (10, 100, 1000)))
    return net.model()


def perceptron(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """Products with large matrices, for one row or many."""
    width, tokens = _pick(rng, (128, 256, 512)), _pick(rng, (1, 16, 64, 196))
    net = Chain((1, tokens, width), rng, quantised=quantised)
    for _ in range(_pick(rng, (1, 2, 4))):
        before = net.at
        net.dense(width * _pick(rng, (2, 4)), "Relu")
        net.dense(width)
        net.add(before)
        net.normalise()
    return net.model()


def attention(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """Blocks of a vision transformer."""
    heads, each, tokens = _pick(rng, (2, 3, 4, 6)), _pick(rng, (32, 64)), _pick(rng, (16, 64, 128, 197))
    width = heads * each
    net = Chain((1, tokens, width), rng, quantised=quantised)
    for _ in range(_pick(rng, (1, 2))):
        attend(net, heads, each)
        before = net.at
        net.normalise()
        net.dense(4 * width)
        net.at = gelu(net)
        net.dense(width)
        net.add(before)
    return net.model()


def attend(net: Chain, heads: int, each: int) -> None:
    """Multi-head attention over the tokens, added to what it read."""
    import numpy as np

    before, (_, tokens, width) = net.at, net.shape
    net.normalise()
    start, parts = net.at, list[str]()
    for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        net.at, net.shape = start, (1, tokens, width)
        split = net.constant(np.array([1, tokens, heads, each], np.int64))
        parts.append(net.node("Transpose", net.node("Reshape", net.dense(width), split), perm=list(perm)))
    scores = net.node("MatMul", net.rounded(parts[0]), net.rounded(parts[1]))
    scores = net.node("Mul", scores, net.constant(np.float32(each**-0.5)))
    mixed = net.node("MatMul", net.rounded(net.node("Softmax", scores, axis=-1)), net.rounded(parts[2]))
    whole = net.constant(np.array([1, tokens, width], np.int64))
    net.at = net.node("Reshape", net.node("Transpose", mixed, perm=[0, 2, 1, 3]), whole)
    net.shape = (1, tokens, width)
    net.dense(width)
    net.add(before)


def gelu(net: Chain) -> str:
    """The exact GELU as exporters write it; the name of its result."""
    import numpy as np

    half, root, one = (net.constant(np.float32(value)) for value in (0.5, 2**0.5, 1.0))
    inner = net.node("Add", net.node("Erf", net.node("Div", net.at, root)), one)
    return net.node("Mul", net.node("Mul", net.at, inner), half)


KINDS: Sequence[Callable[[Any, bool], Any]] = (convolutions, separable, grouped, perceptron, attention)
