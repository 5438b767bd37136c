"""A chain whose gate is a known function of the image: noise does not slow it, aim does."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright.bundle import Contents, file_digest, write_bundle
from edgewright.types import Artifact, Gate, GraphFile, Placement, Plan, Signature, Stage, TensorSpec, Variant

NO_FILE = GraphFile(Path(), "")
SIDE, WIDTH = 16, 384
PATTERN = np.where(np.arange(SIDE * SIDE) // 32 % 2, -1, 1).reshape(1, 1, SIDE, SIDE).astype(np.float32)
ALIKE = 0.5 + 0.45 * np.sin(np.arange(SIDE * SIDE)) + np.random.default_rng(0).uniform(-0.01, 0.01, (120, SIDE * SIDE))
IMAGES = ALIKE.reshape(120, 1, SIDE, SIDE).astype(np.float32)
THRESHOLD = float((IMAGES * PATTERN).mean((1, 2, 3)).min()) + 0.5 - 0.006
"""Noise of 8/255 moves the score by 0.001 (one deviation), aim by 0.03."""


def value(name: str, *shape: int):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def first_stage():
    """score = 0.5 + mean(image * PATTERN)."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["go"]),
        helper.make_node("MatMul", ["go", "pattern"], ["mean"]),
        helper.make_node("Add", ["mean", "half"], ["column"]),
        helper.make_node("Flatten", ["column"], ["y"]),
        helper.make_node("Squeeze", ["column", "axis"], ["score"]),
    ]
    weights = {
        "pattern": PATTERN.reshape(-1, 1) / PATTERN.size,
        "half": np.full((1, 1), 0.5, np.float32),
        "axis": np.array([1]),
    }
    return graph(
        nodes, weights, [value("image", 1, 1, SIDE, SIDE)], [value("y", 1, 1), value("go", 1, 256), value("score", 1)]
    )


def last_stage():
    """Work that takes many times as long as the first stage."""
    nodes = [helper.make_node("MatMul", ["go", "in"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{i}", "mid"], [f"h{i + 1}"]) for i in range(8)]
    nodes.append(helper.make_node("MatMul", ["h8", "out"], ["y"]))
    shapes = {"in": (256, WIDTH), "mid": (WIDTH, WIDTH), "out": (WIDTH, 1)}
    return graph(
        nodes,
        {name: np.full(s, 1e-3, np.float32) for name, s in shapes.items()},
        [value("go", 1, 256)],
        [value("y", 1, 1)],
    )


def nested():
    """One graph that tells where a row left: at the first exit where the score is enough."""
    model = first_stage()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(THRESHOLD), "threshold"))
    model.graph.node.append(helper.make_node("Less", ["score", "threshold"], ["goes_on"]))
    model.graph.node.append(helper.make_node("Cast", ["goes_on"], ["exits"], to=TensorProto.INT64))
    del model.graph.output[1:]
    model.graph.output.append(helper.make_tensor_value_info("exits", TensorProto.INT64, (1,)))
    return model


def graph(nodes, weights, inputs, outputs):
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chain(threshold: float) -> list[tuple[Stage, onnx.ModelProto]]:
    gate = Gate("score", "max-probability", threshold)
    return [
        (Stage("first", NO_FILE, ("image",), ("y",), ("go",), gate), first_stage()),
        (Stage("last", NO_FILE, (), ("y",)), last_stage()),
    ]


def pack(folder: Path, stages: list[tuple[Stage, onnx.ModelProto]]) -> Path:
    files = {stage.name: folder / f"{stage.name}.onnx" for stage, _ in stages}
    for stage, model in stages:
        files[stage.name].write_bytes(model.SerializeToString())
    digests = {name: file_digest(path) for name, path in files.items()}
    placed = tuple(replace(s, graph=GraphFile(files[s.name], digests[s.name])) for s, _ in stages)
    example = io.BytesIO()
    np.savez(example, image=IMAGES[:1])
    y = TensorSpec("y", "float32", (1, 1))
    contents = Contents(
        name="chain",
        signature=Signature((TensorSpec("image", "float32", (1, 1, SIDE, SIDE)),), (y,)),
        variants=(Variant("main", placed),),
        artifacts=tuple(Artifact(n, p, digests[n], p.stat().st_size, "onnx", "main", n) for n, p in files.items()),
        plan=Plan(tuple(Placement("main", n, n, "ort", "CPUExecutionProvider", {"threads": 1}) for n in files)),
        files={"example/inputs.npz": example.getvalue()},
        extra={"recipe": {"seed": 0}},
    )
    return write_bundle(folder / "bundle", contents).path
