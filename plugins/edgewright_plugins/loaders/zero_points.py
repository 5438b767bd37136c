"""Zero points that a file leaves out, written down."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def state_zero_points(graph: onnx.GraphProto) -> None:
    """Give int8 weights with several scales zero points of 0 where they have none, which is what that means.

    On x86 without VNNI onnxruntime makes such weights unsigned (see `onnxkit.EXACT_PRODUCTS`); where no zero point is
    stated, versions up to 1.32 invent a single one, and then refuse to run it beside several scales.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or any(node.input[2:]):
            continue
        weight, scale = (constants.get(name) for name in node.input[:2])
        if weight is None or scale is None or weight.data_type != onnx.TensorProto.INT8 or not scale.dims:
            continue
        zeros = numpy_helper.from_array(np.zeros(scale.dims, np.int8), f"{node.output[0]}_zero_point")
        graph.initializer.append(zeros)
        node.input[:] = [*node.input[:2], zeros.name]
