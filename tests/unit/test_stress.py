"""`engine stress`: a chain whose gate is a known function of the image, slowed by aim and not by noise."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright.bundle import Contents, file_digest, write_bundle
from edgewright.types import Artifact, Gate, GraphFile, Placement, Plan, Signature, Stage, TensorSpec, Variant
from edgewright_runtime import load

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


def test_aim_slows_the_chain_and_noise_of_its_size_does_not(engine, tmp_path):
    pack(tmp_path, chain(THRESHOLD))
    np.savez(tmp_path / "data.npz", image=IMAGES)
    asked = ("--task", "data.npz", "--examples", "12", "--queries", "120", "--deadline", "500ms", "--json")
    code, out, _ = engine("stress", "bundle", *asked)
    assert code == 0
    found = json.loads(out)
    cases = {case["name"]: case for case in found["cases"]}
    assert found["cases"][0]["name"] == "real inputs"
    assert (cases["real inputs"]["depth"], cases["jitter"]["depth"]) == (1.0, 1.0)
    assert cases["slowdown"]["depth"] > 1.9
    assert cases["slowdown"]["through"] > 0.9
    least = quickest_ms(tmp_path / "bundle", (1 - PATTERN) / 2) / 2
    assert cases["slowdown"]["latency"][0]["value"] > least, "it was timed to the end, which takes so long on any day"
    assert cases["slowdown"]["runs"] == 60
    assert len(cases["slowdown"]["capped"]) == 3
    assert 0 <= cases["slowdown"]["idle_misses"] <= 60
    assert found["whole"]["value"] > least
    assert found["energy"]["value"] is None
    assert "no energy meter" in found["energy"]["reason"]
    assert found["advice"].startswith("worst: ")
    assert "with a deadline of 500 ms" in found["advice"]


def quickest_ms(bundle: Path, image) -> float:
    """What the quickest of many runs of an image takes that goes to the end."""
    loaded = load(bundle, cache=False)
    results = [loaded.run(image) for _ in range(300)]
    assert {result.exits for result in results} == {(1,)}
    return min(result.spent_ms for result in results)


def test_without_a_task_the_inputs_are_noise_and_the_table_says_so(engine, tmp_path):
    pack(tmp_path, chain(0.0))
    code, out, _ = engine("stress", "bundle", "--examples", "4", "--queries", "2")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["inputs", "exit", "to", "the", "end", "mean", "p99", "worst"]
    assert lines[1].startswith("seeded noise")
    assert "only how they compare with one another means much" in out
    assert "cap every run with `engine run --deadline " in lines[-1]


def test_a_bundle_without_exits_cannot_be_slowed(engine, tmp_path):
    (first, model), _ = chain(0.0)
    del model.graph.output[1:]
    pack(tmp_path, [(replace(first, carry=(), gate=None), model)])
    assert engine("stress", "bundle")[:2] == (
        0,
        "inputs cannot slow it: every run takes the same way through the model\n",
    )


def test_a_graph_that_decides_inside_is_slowed_by_its_depth_alone_and_cannot_be_stopped(engine, tmp_path):
    pack(tmp_path, [(Stage("all", NO_FILE, ("image",), ("y",), exits="exits"), nested())])
    np.savez(tmp_path / "data.npz", image=IMAGES)
    code, out, _ = engine("stress", "bundle", "--task", "data.npz", "--examples", "4", "--queries", "10", "--json")
    assert code == 0
    found = json.loads(out)
    depths = {case["name"]: case["depth"] for case in found["cases"]}
    assert depths["real inputs"] == depths["jitter"] == 1.0
    assert depths["noise-uniform"] > 1.0
    assert "deploy it in stages" in found["advice"]
    assert "decides inside" in found["whole"]["reason"]


def test_a_bad_deadline_is_one_sentence(engine, tmp_path):
    pack(tmp_path, chain(0.0))
    code, _, err = engine("stress", "bundle", "--deadline", "soon")
    assert code == 2
    assert err.startswith("error: --deadline 'soon'")
