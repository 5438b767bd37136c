"""The small models, data and report that conformance checks work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright import onnxkit
from edgewright.types import (
    Array,
    Arrays,
    Gate,
    GraphFile,
    Judgement,
    Measurement,
    Model,
    Report,
    Row,
    Signature,
    Stage,
    Step,
    TensorSpec,
    Variant,
    Verdict,
    unknown,
)

CLASSES = 5

TORCH_NET = '''"""A small network for conformance checks."""

import torch
from torch import nn


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
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


def chain(keep: Callable[[bytes], GraphFile]) -> Model:
    """Three convolutions, each with a way out: `image` float32 [rows, 3, 8, 8] to `logits` [rows, 5].

    The gates score by the largest probability and have no thresholds; any number of rows runs.
    """
    graphs = [keep(onnxkit.pack(_link(*link))) for link in (("image", 3, "h1"), ("h1", 8, "h2"), ("h2", 8, ""))]
    gate = Gate("sure", "max-probability")
    stages = (
        Stage("front", graphs[0], ("image",), ("logits",), ("h1",), gate, free_rows=True),
        Stage("middle", graphs[1], (), ("logits",), ("h2",), gate, free_rows=True),
        Stage("back", graphs[2], (), ("logits",), free_rows=True),
    )
    signature = Signature(
        (TensorSpec("image", "float32", ("rows", 3, 8, 8)),), (TensorSpec("logits", "float32", ("rows", CLASSES)),)
    )
    return Model("chain", signature, (Variant("main", stages),), {"image": np.zeros((1, 3, 8, 8), np.float32)})


def _link(taken: str, channels: int, carried: str) -> onnx.ModelProto:
    """A stage: a convolution whose result it hands on, and a head with its score; the last one only answers."""
    made = carried or "last"
    rng, shared = np.random.default_rng(len(made)), np.random.default_rng(3)
    head = _weights(shared, 32, CLASSES)
    weights = {
        # Near to what comes in, and one head for all: early answers are like the last one.
        "w": _weights(rng, 8, channels, 3, 3) * 0.05 + _centre(channels),
        "b": _weights(rng, 8) * 0.1,
        "head": head - head.mean(0),
        "shift": _weights(shared, CLASSES) * 0.1,
    }
    nodes = [
        helper.make_node("Conv", [taken, "w", "b"], ["convolved"], f"conv_{made}", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["convolved"], [made], "relu"),
        helper.make_node("MaxPool", [made], ["pooled"], "pool", kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "head", "shift"], ["logits"], f"classify_{made}"),
    ]
    given = [("logits", ["rows", CLASSES])]
    if carried:
        nodes.append(helper.make_node("Softmax", ["logits"], ["shares"], "softmax", axis=-1))
        nodes.append(helper.make_node("ReduceMax", ["shares"], ["sure"], "largest", axes=[-1], keepdims=0))
        given += [(carried, ["rows", 8, 8, 8]), ("sure", ["rows"])]
    return _model(nodes, weights, (taken, ["rows", channels, 8, 8]), *given)


def _centre(channels: int) -> Array:
    """The kernel [8, channels, 3, 3] that hands on what it is given, in turns where there are fewer channels."""
    kernel = np.zeros((8, channels, 3, 3), np.float32)
    kernel[np.arange(8), np.arange(8) % channels, 1, 1] = 1.0
    return kernel


def write_program(path: Path) -> Path:
    """A program that torch exported: one linear layer. Needs torch."""
    import torch

    torch.manual_seed(0)
    torch.export.save(torch.export.export(torch.nn.Linear(4, CLASSES).eval(), (torch.zeros(1, 4),)), path)
    return path


def write_task(path: Path, proto: onnx.ModelProto, count: int = 200) -> None:
    """A labelled data set on which `proto` is always right: noise, and the model's own answers."""
    spec = onnxkit.tensor_spec(proto.graph.input[0])
    noise = _noise(spec, count)
    _write(path, noise, [outputs[0] for outputs in onnxkit.run(proto.SerializeToString(), _rows(spec, noise))])


def write_chain_task(path: Path, model: Model, count: int = 200) -> None:
    """The same for a chain: its last stage is always right."""
    [spec] = model.signature.inputs
    noise = _noise(spec, count)
    _write(path, noise, [found["logits"] for found in onnxkit.run_stages(model.variants[0], _rows(spec, noise))])


def _noise(spec: TensorSpec, count: int) -> Array:
    shape = [int(size) for size in spec.shape[1:]]
    return np.random.default_rng(2).standard_normal((count, *shape)).astype(np.float32)


def _rows(spec: TensorSpec, noise: Array) -> list[Arrays]:
    return [{spec.name: row[None]} for row in noise]


def _write(path: Path, noise: Array, answers: Sequence[Array]) -> None:
    labels = np.array([int(np.argmax(answer)) for answer in answers])
    half = len(noise) // 2
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
    nodes: list[onnx.NodeProto],
    weights: Arrays,
    taken: tuple[str, Sequence[int | str]],
    *given: tuple[str, Sequence[int | str]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(taken[0], TensorProto.FLOAT, taken[1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = onnxkit.lowest_ir(model)
    return model
