"""Writes networks as chains of layers, in float32 or with the quantise/dequantise pairs of an int8 network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

Shape = tuple[int, ...]

STEP = 0.05
"""What codes of activations are apart by."""

MIDDLE = 128
"""The code of 0 where values lie on both sides of it."""


class Chain:
    """A graph that grows at its end; NCHW images or (1, tokens, width) sequences.

    An int8 network has the form that quantisers write: every result rounded to 8 bits once, from 0 up where an
    activation cut it off there, weights on a grid per output channel, biases in int32.
    """

    def __init__(self, shape: Shape, rng: np.random.Generator, *, quantised: bool) -> None:
        self.shape, self.rng, self.quantised = shape, rng, quantised
        self.taken = shape
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.scales: Any = None
        self.at = self.rounded("x")

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; the name of what it writes."""
        from onnx import helper

        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def settled(self, operator: str, *inputs: str, zero: int = MIDDLE, **attributes: Any) -> str:
        """Add a node whose result has 8 bits in an int8 network; the name of what others read."""
        return self.rounded(self.node(operator, *inputs, **attributes), zero)

    def rounded(self, name: str, zero: int = MIDDLE) -> str:
        """In an int8 network what a tensor is after 8 bits, else itself."""
        import numpy as np

        if not self.quantised:
            return name
        grid = (self.constant(np.float32(STEP)), self.constant(np.uint8(zero)))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", name, *grid), *grid)

    def constant(self, values: Any) -> str:
        """An array of the graph's own."""
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def weight(self, *shape: int, axis: int = 0) -> str:
        """Drawn weights: floats, or codes of 7 bits and the node that restores them, channel by channel of `axis`."""
        import numpy as np

        values = self.rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:]) + 1))
        if not self.quantised:
            return self.constant(values)
        others = tuple(each for each in range(len(shape)) if each != axis)
        scales = np.abs(values).max(axis=others, keepdims=True) / np.float32(63)
        self.scales = scales.reshape(-1)
        codes = self.constant(np.round(values / scales).astype(np.int8))
        grid = (self.constant(self.scales), self.constant(np.zeros(shape[axis], np.int8)))
        return self.node("DequantizeLinear", codes, *grid, axis=axis)

    def bias(self, channels: int) -> str:
        """Drawn biases of the convolution whose weights were drawn last, in steps of its sums."""
        import numpy as np

        values = self.rng.standard_normal(channels).astype(np.float32)
        if not self.quantised:
            return self.constant(values)
        steps = np.float32(STEP) * self.scales
        codes = self.constant(np.round(values / steps).astype(np.int32))
        grid = (self.constant(steps), self.constant(np.zeros(channels, np.int32)))
        return self.node("DequantizeLinear", codes, *grid, axis=0)

    def conv(self, given: int, kernel: int = 3, stride: int = 1, *, groups: int = 1, act: str = "Relu") -> str:
        """A convolution with its activation."""
        _, taken, *size = self.shape
        w, b = self.weight(given, taken // groups, kernel, kernel), self.bias(given)
        found = self.node("Conv", self.at, w, b, strides=[stride] * 2, pads=[kernel // 2] * 4, group=groups)
        self.shape = (1, given, *((pixels - 1) // stride + 1 for pixels in size))
        self.at = self.settled(act, found, zero=0) if act else self.rounded(found)
        return self.at

    def dense(self, given: int, act: str = "") -> str:
        """A product of the last axis with weights, and a bias."""
        import numpy as np

        product = self.settled("MatMul", self.at, self.weight(self.shape[-1], given, axis=1))
        offset = self.rounded(self.constant(self.rng.standard_normal(given).astype(np.float32)))
        found = self.node("Add", product, offset)
        self.shape = (*self.shape[:-1], given)
        self.at = self.settled(act, found, zero=0) if act else self.rounded(found)
        return self.at

    def add(self, other: str, act: str = "") -> None:
        """The sum with an earlier tensor of the same shape, and its activation."""
        found = self.node("Add", self.at, other)
        self.at = self.settled(act, found, zero=0) if act else self.rounded(found)

    def normalise(self) -> None:
        """Layer normalisation over the last axis."""
        import numpy as np

        width = np.ones(self.shape[-1], np.float32)
        constants = (self.constant(width), self.constant(0 * width))
        self.at = self.settled("LayerNormalization", self.at, *constants, axis=-1)

    def model(self) -> onnx.ModelProto:
        """The finished network."""
        from onnx import TensorProto, helper

        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.taken)
        y = helper.make_tensor_value_info(self.at, TensorProto.FLOAT, self.shape)
        graph = helper.make_graph(self.nodes, "probe", [x], [y], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
