"""Builds ONNX graphs whose weights have sizes and no values: all that a predictor looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

Shape = tuple[int, ...]


class Graph:
    """A graph under construction. Tensors are named by the node that writes them; shapes are NCHW."""

    def __init__(self, shape: Shape, dtype: str = "float32") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shapes: dict[str, Shape] = {"x": shape}
        self.quantised = dtype == "int8"
        self.float = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT

    def node(self, operator: str, inputs: Sequence[str], shape: Shape, **attributes: object) -> str:
        """Add a node that writes a tensor of `shape`; returns the tensor's name."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        self.shapes[name] = shape
        return name

    def weight(self, *dims: int, elem_type: int | None = None) -> str:
        """A weight without values: its data is said to lie in a file that nobody opens."""
        name = f"w{len(self.weights)}"
        tensor = TensorProto(name=name, dims=dims, data_type=elem_type or self.float)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="none")
        self.weights.append(tensor)
        self.shapes[name] = dims
        return name

    def sizes(self, *values: int) -> str:
        """A constant of integers."""
        name = f"c{len(self.weights)}"
        self.weights.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def zero(self) -> str:
        """The number 0."""
        name = f"c{len(self.weights)}"
        self.weights.append(helper.make_tensor(name, self.float, [], [0.0]))
        return name

    def conv(
        self, x: str, given: int, kernel: int | tuple[int, int], stride: int = 1, *, group: int = 1, act: str = "Relu"
    ) -> str:
        """A convolution padded to keep the size at stride 1, with its activation (empty for none)."""
        batch, taken, *size = self.shapes[x]
        window = (kernel, kernel) if isinstance(kernel, int) else kernel
        out = [math.ceil(pixels / stride) for pixels in size]
        elem_type = TensorProto.INT8 if self.quantised else None
        w = self.weight(given, taken // group, *window, elem_type=elem_type)
        y = self.node(
            "Conv",
            [self.rounded(x), self.restored(w) if self.quantised else w],
            (batch, given, *out),
            kernel_shape=list(window),
            strides=[stride] * 2,
            group=group,
            pads=around(size, out, window, stride),
        )
        return self.act(y, act)

    def act(self, x: str, operator: str) -> str:
        """An activation."""
        return self.node(operator, [x], self.shapes[x]) if operator else x

    def linear(self, x: str, given: int) -> str:
        """A product with a matrix, over what is left of `x` after its batch."""
        batch, taken = self.shapes[x][0], math.prod(self.shapes[x][1:])
        flat = x if len(self.shapes[x]) == 2 else self.node("Flatten", [x], (batch, taken))
        elem_type = TensorProto.INT8 if self.quantised else None
        w = self.weight(taken, given, elem_type=elem_type)
        return self.node("Gemm", [self.rounded(flat), self.restored(w) if self.quantised else w], (batch, given))

    def add(self, *inputs: str) -> str:
        """The sum of tensors, two at a time."""
        total = inputs[0]
        for other in inputs[1:]:
            total = self.node("Add", [self.rounded(total), self.rounded(other)], self.shapes[total])
        return total

    def concat(self, *inputs: str) -> str:
        """Tensors one after another along the channels."""
        batch, _, *size = self.shapes[inputs[0]]
        channels = sum(self.shapes[name][1] for name in inputs)
        return self.node("Concat", [self.rounded(name) for name in inputs], (batch, channels, *size), axis=1)

    def shuffle(self, x: str, groups: int) -> str:
        """Channels dealt out anew, so that each group of the next convolution takes some of every group."""
        batch, channels, *size = self.shapes[x]
        apart, dealt = (batch, groups, channels // groups, *size), (batch, channels // groups, groups, *size)
        y = self.node("Reshape", [x, self.sizes(*apart)], apart)
        y = self.node("Transpose", [y], dealt, perm=[0, 2, 1, 3, 4])
        return self.node("Reshape", [y, self.sizes(*self.shapes[x])], self.shapes[x])

    def pool(self, x: str, kernel: int, stride: int = 1, *, operator: str = "AveragePool") -> str:
        """Pooling that keeps the size at stride 1."""
        batch, channels, *size = self.shapes[x]
        out = [math.ceil(pixels / stride) for pixels in size]
        return self.node(
            operator,
            [self.rounded(x)],
            (batch, channels, *out),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=around(size, out, (kernel, kernel), stride),
        )

    def mean(self, x: str) -> str:
        """The mean over all pixels."""
        return self.node("GlobalAveragePool", [self.rounded(x)], (*self.shapes[x][:2], 1, 1))

    def rounded(self, x: str) -> str:
        """In an int8 network the tensor quantised and restored, else itself."""
        if not self.quantised:
            return x
        codes = self.node("QuantizeLinear", [x, *self._grid()], self.shapes[x])
        return self.restored(codes, self.shapes[x])

    def restored(self, codes: str, shape: Shape = ()) -> str:
        """Codes as floats again."""
        return self.node("DequantizeLinear", [codes, *self._grid()], shape)

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The finished model."""
        outputs = tuple(self.rounded(name) for name in outputs)
        graph = helper.make_graph(
            self.nodes,
            "built",
            [helper.make_tensor_value_info("x", self.float, self.shapes["x"])],
            [helper.make_tensor_value_info(name, self.float, None) for name in outputs],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def _grid(self) -> tuple[str, str]:
        return self.weight(elem_type=TensorProto.FLOAT), self.weight(elem_type=TensorProto.INT8)


def around(size: Sequence[int], out: Sequence[int], window: Sequence[int], stride: int) -> list[int]:
    """The padding, all of it at the end, that makes `out` pixels of `size`; costs depend on its sum alone."""
    return [0, 0, *(max(0, (given - 1) * stride + k - taken) for taken, given, k in zip(size, out, window))]
