"""Measures how large the values inside a graph become."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper

from edgewright import onnxkit
from edgewright.types import Arrays


def measure_peaks(typed: onnx.ModelProto, feeds: Iterable[Arrays]) -> dict[str, float]:
    """The largest magnitude of each float32 tensor of the main graph over `feeds`; NaN where one was seen.

    The maximum is taken inside the graph, so that no activation has to be held.

    Args:
        typed: a graph in which the type of every value is noted.
    """
    watched = _watched(typed)
    probe = onnx.ModelProto()
    probe.CopyFrom(typed)
    del probe.graph.output[:]
    for name in watched:
        probe.graph.node.append(helper.make_node("Abs", [name], [f"{name}/magnitude"]))
        probe.graph.node.append(helper.make_node("ReduceMax", [f"{name}/magnitude"], [f"{name}/peak"], keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(f"{name}/peak", onnx.TensorProto.FLOAT, []))
    peaks = np.zeros(len(watched))
    for outputs in onnxkit.run(onnxkit.pack(probe), feeds):
        peaks = np.maximum(peaks, [float(output) for output in outputs])
    return dict(zip(watched, peaks.tolist(), strict=True))


def _watched(typed: onnx.ModelProto) -> list[str]:
    values = (*typed.graph.input, *typed.graph.value_info, *typed.graph.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    given = [value.name for value in typed.graph.input]
    made = [name for node in typed.graph.node for name in node.output]
    return [name for name in (*given, *made) if name in floats]
