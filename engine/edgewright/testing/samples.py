"""The small models, data and report that conformance checks work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright import onnxkit
from edgewright.types import Array, Arrays, Judgement, Measurement, Report, Row, Step, Verdict, unknown

CLASSES = 5

TORCH_NET = '''"""A small network for conformance checks."""

import torch
from torch import nn


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()


def example_inputs():
    return torch.zeros(1, 3, 8, 8)
'''


def conv_net() -> onnx.ModelProto:
    """Two convolutions, pooling and a linear layer: `image` float32 [1, 3, 8, 8] to `logits` [1, 5]."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": _weights(rng, 8, 3, 3, 3),
        "b1": _weights(rng, 8),
        "w2": _weights(rng, 8, 8, 3, 3),
        "b2": _weights(rng, 8),
        "w3": _weights(rng, 8, CLASSES),
        "b3": _weights(rng, CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], "head"),
    ]
    return _model(nodes, weights, ("image", [1, 3, 8, 8]), ("logits", [1, CLASSES]))


def attention_net() -> onnx.ModelProto:
    """One attention block over eight tokens: `tokens` float32 [1, 8, 16] to `logits` [1, 5]."""
    rng = np.random.default_rng(1)
    weights = {name: _weights(rng, 16, 16) for name in ("wq", "wk", "wv", "wo")}
    weights |= {"scale": np.ones(16, np.float32), "shift": np.zeros(16, np.float32)}
    weights["head"] = _weights(rng, 16, CLASSES)
    nodes = [
        helper.make_node("LayerNormalization", ["tokens", "scale", "shift"], ["normed"], "norm"),
        helper.make_node("MatMul", ["normed", "wq"], ["q"], "query"),
        helper.make_node("MatMul", ["normed", "wk"], ["k"], "key"),
        helper.make_node("MatMul", ["normed", "wv"], ["v"], "value"),
        helper.make_node("Transpose", ["k"], ["kt"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"], "scores"),
        helper.make_node("Softmax", ["scores"], ["shares"], "softmax"),
        helper.make_node("MatMul", ["shares", "v"], ["mixed"], "mix"),
        helper.make_node("MatMul", ["mixed", "wo"], ["out"], "project"),
        helper.make_node("Add", ["out", "tokens"], ["added"], "residual"),
        helper.make_node("ReduceMean", ["added"], ["mean"], "mean", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"], "classify"),
    ]
    return _model(nodes, weights, ("tokens", [1, 8, 16]), ("logits", [1, CLASSES]))


def write_program(path: Path) -> Path:
    """A program that torch exported: one linear layer. Needs torch."""
    import torch

    torch.manual_seed(0)
    torch.export.save(torch.export.export(torch.nn.Linear(4, CLASSES).eval(), (torch.zeros(1, 4),)), path)
    return path


def write_task(path: Path, proto: onnx.ModelProto, count: int = 200) -> None:
    """A labelled data set on which `proto` is always right: noise, and the model's own answers."""
    spec = onnxkit.tensor_spec(proto.graph.input[0])
    shape = [int(size) for size in spec.shape[1:]]
    noise = np.random.default_rng(2).standard_normal((count, *shape)).astype(np.float32)
    outputs = onnxkit.run(proto.SerializeToString(), [{spec.name: row[None]} for row in noise])
    labels = np.array([int(np.argmax(answer[0])) for answer in outputs])
    half = count // 2
    parts: Arrays = {
        "x_train": noise[:half],
        "y_train": labels[:half],
        "x_test": noise[half:],
        "y_test": labels[half:],
    }
    np.savez(path, allow_pickle=False, **parts)


def report() -> Report:
    """A report with everything that can be in one: intervals, a prediction, a value that is not known."""
    fast = Measurement("latency", 0.71, "ms", n=100, interval=(0.69, 0.74), statistic="p50", instrument="clock")
    slow = Measurement("latency", 1.02, "ms", n=100, interval=(1.0, 1.05), statistic="p50", instrument="clock")
    ratio = Measurement("latency ratio", 1.44, "", n=100, interval=(1.4, 1.48))
    energy = unknown("energy", "mJ", "no meter on this device")
    guess = Measurement("memory", 3.0, "MB", interval=(2.0, 5.0), kind="predicted")
    return Report(
        model="net",
        target="cpu",
        device="this host",
        rows=(Row("latency", slow, fast, ratio), Row("energy", energy, energy), Row("memory", guess, guess)),
        verdict=Verdict("met", "quantize", (Judgement("max-drop", True, True, "0.2 % lost of 1 %"),), test_reads=2),
        steps=(Step("quantize", "edgewright 0.1.0", {"mode": "auto"}, ("static u8 is 1.44x",)),),
        candidates=(),
        skipped=("half: the device has no fp16",),
        settings={"seed": 0, "threads": 1},
    )


def _weights(rng: np.random.Generator, *shape: int) -> Array:
    return (rng.standard_normal(shape) * 0.4).astype(np.float32)


def _model(
    nodes: list[onnx.NodeProto], weights: Arrays, taken: tuple[str, list[int]], given: tuple[str, list[int]]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(taken[0], TensorProto.FLOAT, taken[1])],
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = onnxkit.lowest_ir(model)
    return model
