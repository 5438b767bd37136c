"""The loader `onnx` on the files people have: old ones, split ones, open sizes, damaged ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgewright import onnxkit
from edgewright.errors import ModelError
from edgewright.protocols import LoadRequest
from edgewright.store import Store
from edgewright_plugins.loaders.onnx_file import ONNX_FILE, STATE_KEY

NET = """<ir_version: 8, opset_import: ["": 17]>
net (float[{image}] image) => (float[{logits}] logits) {{
    relu = Relu(image)
    pooled = GlobalAveragePool(relu)
    logits = Flatten(pooled)
}}"""


def net(image: str = "batch, 3, 8, 8", logits: str = "batch, 3") -> onnx.ModelProto:
    return onnx.parser.parse_model(NET.format(image=image, logits=logits))


def write(folder: Path, proto: onnx.ModelProto, name: str = "net.onnx") -> str:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return str(path)


def request(folder: Path, **options: Any) -> LoadRequest:
    return dataclasses.replace(LoadRequest(Store(folder / "cache"), {}), **options)


def load(folder: Path, proto: onnx.ModelProto, **options: Any):
    return ONNX_FILE.load(write(folder, proto), request(folder, **options))


def refusal(folder: Path, proto: onnx.ModelProto, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder, proto, **options)
    return str(caught.value)


def linear(weight: np.ndarray, **model: Any) -> onnx.ModelProto:
    """`y = x @ w`, with the weight as an initializer."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, **{"opset_imports": [helper.make_opsetid("", 17)], "ir_version": 8, **model})


# ------------------------------------------------------------------ what comes out


def test_model_describes_the_graph_and_its_example_runs(tmp_path: Path):
    model = load(tmp_path, net(), batch=2)
    assert [spec.describe() for spec in model.signature.inputs] == ["image float32 [2, 3, 8, 8]"]
    assert [spec.describe() for spec in model.signature.outputs] == ["logits float32 [2, 3]"]
    assert (model.name, model.format, model.stages[0].inputs) == ("net", "onnx", ("image",))
    (outputs,) = onnxkit.run(model.graph.path, [model.example])
    assert outputs[0].shape == (2, 3)


def test_same_file_gives_same_bytes_and_same_example(tmp_path: Path):
    first, second = load(tmp_path, net(), seed=3), load(tmp_path, net(), seed=3)
    assert first.digest == second.digest
    np.testing.assert_array_equal(first.example["image"], second.example["image"])
    other = load(tmp_path, net(), seed=4)
    assert not np.array_equal(first.example["image"], other.example["image"])


def test_file_is_written_at_the_lowest_versions(tmp_path: Path):
    proto = net()
    proto.ir_version = 14
    assert onnxkit.read(load(tmp_path, proto).graph).ir_version == 8


def runs(opset: int) -> bool:
    proto = net()
    proto.opset_import[0].version = opset
    try:
        onnxkit.session(proto.SerializeToString())
    except Exception:  # noqa: BLE001 - onnxruntime's own exceptions share no narrower parent
        return False
    return True


def test_newer_opset_is_converted_down_as_far_as_the_runtime_needs(tmp_path: Path):
    proto = net()
    proto.opset_import[0].version, proto.ir_version = onnx.defs.onnx_opset_version(), 14
    held = onnxkit.read(load(tmp_path, proto).graph)
    newest = max(opset for opset in range(17, onnx.defs.onnx_opset_version() + 1) if runs(opset))
    assert onnxkit.opsets(held)["ai.onnx"] == newest


def test_opset_that_nobody_knows_is_refused(tmp_path: Path):
    proto = net()
    proto.opset_import[0].version = 99
    said = refusal(tmp_path, proto)
    assert "uses opset 99, but onnxruntime" in said
    assert "convert.h" not in said


@pytest.mark.parametrize(("scale", "about"), [((3,), {"axis": 1}), ((2, 3), {"axis": 0, "block_size": 4})])
def test_int8_weights_with_several_scales_run_without_stated_zero_points(
    tmp_path: Path, scale: tuple[int, ...], about: dict[str, int]
):
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (8, 3)).astype(np.int8)
    scales = rng.uniform(0.001, 0.01, scale).astype(np.float32)
    proto = linear(np.zeros((8, 3), np.float32), opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    proto.graph.node.insert(0, helper.make_node("DequantizeLinear", ["codes", "scales"], ["real"], **about))
    proto.graph.node[1].input[1] = "real"
    del proto.graph.initializer[:]
    proto.graph.initializer.extend([numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scales, "scales")])
    model = load(tmp_path, proto)
    [[found]] = onnxkit.run(model.graph.path, [model.example])
    want = model.example["x"] @ (codes * (scales if len(scale) == 1 else np.repeat(scales, 4, axis=0)))
    np.testing.assert_allclose(found, want, atol=0.01 * np.abs(want).max())


def test_initializers_among_the_inputs_are_no_inputs(tmp_path: Path):
    proto = linear(np.eye(3, dtype=np.float32), ir_version=3)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 3]))
    model = load(tmp_path, proto)
    assert model.stages[0].inputs == ("x",)
    assert model.example.keys() == {"x"}


def test_example_values_suit_their_dtypes(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["": 17]>
    net (int64[1, 50] ids, bool[1, 50] mask, uint8[1, 500] bytes) => (int64[1, 50] a, bool[1, 50] b, uint8[1, 500] c)
    { a = Identity(ids)  b = Identity(mask)  c = Identity(bytes) }"""
    example = load(tmp_path, onnx.parser.parse_model(text)).example
    assert set(np.unique(example["ids"])) == {0, 1}
    assert example["mask"].dtype == np.bool_
    assert example["bytes"].dtype == np.uint8
    assert example["bytes"].max() > 200


def test_function_of_the_file_is_kept(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["": 17, "acme": 1]>
    net (float[1, 4] x) => (float[1, 4] y) { y = acme.Twice(x) }
    <domain: "acme", opset_import: ["": 17]> Twice (a) => (b) { b = Add(a, a) }"""
    model = load(tmp_path, onnx.parser.parse_model(text))
    (outputs,) = onnxkit.run(model.graph.path, [model.example])
    np.testing.assert_allclose(outputs[0], 2 * model.example["x"])


# ------------------------------------------------------------------ sizes


def test_shape_gives_every_free_dimension(tmp_path: Path):
    model = load(tmp_path, net("batch, 3, height, width", "batch, 3"), shapes={"image": (2, 3, 16, 12)})
    assert model.signature.inputs[0].shape == (2, 3, 16, 12)
    assert model.signature.outputs[0].shape == (2, 3)


def test_open_size_is_refused_with_the_flag_to_add(tmp_path: Path):
    message = refusal(tmp_path, net("batch, 3, height, width", "batch, 3"))
    assert "leaves height, width of its input image float32 [1, 3, height, width] open" in message
    assert "--shape image:1x3xheightxwidth" in message


def test_dimension_named_once_is_the_same_everywhere(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["": 17]>
    net (float[n, tokens] a, float[n, tokens] b) => (float[n, tokens] y) { y = Add(a, b) }"""
    model = load(tmp_path, onnx.parser.parse_model(text), shapes={"a": (2, 7)})
    assert [spec.shape for spec in model.signature.inputs] == [(2, 7), (2, 7)]


@pytest.mark.parametrize(
    ("shapes", "batch", "words"),
    [
        ({"imagge": (1, 3, 8, 8)}, 1, "'imagge', which is no input of"),
        ({"imagge": (1, 3, 8, 8)}, 1, "did you mean 'image'?"),
        ({"image": (1, 3, 8)}, 1, "has 3 sizes, but input image float32 [1, 3, 8, 8]"),
        ({"image": (1, 4, 8, 8)}, 1, "contradicts input image float32 [1, 3, 8, 8]"),
        ({"image": (1, 3, 0, 8)}, 1, "sizes are 1 or more"),
        ({}, 4, "--batch 4 does not fit"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path: Path, shapes: dict[str, Any], batch: int, words: str):
    assert words in refusal(tmp_path, net("1, 3, 8, 8", "1, 3"), shapes=shapes, batch=batch)


def test_one_name_cannot_have_two_sizes(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["": 17]>
    net (float[1, tokens] a, float[1, tokens] b) => (float[1, tokens] y) { y = Add(a, b) }"""
    message = refusal(tmp_path, onnx.parser.parse_model(text), shapes={"a": (1, 7), "b": (1, 8)})
    assert "makes tokens of" in message
    assert "both 7 and 8" in message


def test_sizes_the_graph_cannot_take_are_refused(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["": 17]>
    net (float[n, k] a) => (float[n, 2] y) <float[5, 2] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}> { y = MatMul(a, w) }"""
    assert "does not fit its input sizes" in refusal(tmp_path, onnx.parser.parse_model(text), shapes={"a": (1, 4)})


@given(batch=st.integers(1, 5), height=st.integers(1, 9), width=st.integers(1, 9))
def test_any_size_that_fits_is_taken(tmp_path_factory: pytest.TempPathFactory, batch: int, height: int, width: int):
    folder = tmp_path_factory.mktemp("sizes")
    model = load(folder, net("batch, 3, height, width", "batch, 3"), shapes={"image": (batch, 3, height, width)})
    assert model.example["image"].shape == (batch, 3, height, width)
    assert model.signature.outputs[0].shape == (batch, 3)


def test_output_shape_that_inference_does_not_know_is_taken_from_a_run(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
    net (float[1, 4] x) => (float y) { y = com.microsoft.Gelu(x) }"""
    assert load(tmp_path, onnx.parser.parse_model(text)).signature.outputs[0].shape == (1, 4)


# ------------------------------------------------------------------ external data


def split_model(folder: Path, shape: tuple[int, int] = (40, 40)) -> Path:
    path = folder / "split.onnx"
    weight = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    onnx.save(linear(weight), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data_is_merged(tmp_path: Path):
    model = ONNX_FILE.load(str(split_model(tmp_path)), request(tmp_path))
    (tensor,) = onnxkit.read(model.graph).graph.initializer
    assert tensor.data_location == TensorProto.DEFAULT
    assert numpy_helper.to_array(tensor)[-1, -1] == 1599


def test_missing_data_file_is_named(tmp_path: Path):
    path = split_model(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"keeps its weights in 'weights.bin', which is not there"):
        ONNX_FILE.load(str(path), request(tmp_path))


def test_short_data_file_is_refused(tmp_path: Path):
    path = split_model(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match=r"split\.onnx"):
        ONNX_FILE.load(str(path), request(tmp_path))


def test_data_outside_the_folder_is_refused(tmp_path: Path):
    proto = linear(np.eye(4, dtype=np.float32))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secrets.bin")
    assert "outside its own folder" in refusal(tmp_path, proto)


# ------------------------------------------------------------------ files that are no models


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no graph with outputs"),
        (b"this is no model at all, but a text", "is not an ONNX file, or was cut short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (net().SerializeToString()[:-20], "is not an ONNX file, or was cut short"),
    ],
)
def test_damaged_file_is_one_sentence(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        ONNX_FILE.load(str(path), request(tmp_path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@given(cut=st.integers(0, 150), noise=st.binary(max_size=20))
def test_any_damage_is_a_model_error_or_a_model(tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes):
    folder = tmp_path_factory.mktemp("damage")
    whole = net("1, 3, 8, 8", "1, 3").SerializeToString()
    path = folder / "net.onnx"
    path.write_bytes(whole[:cut] + noise + whole[cut + len(noise) :])
    try:
        model = ONNX_FILE.load(str(path), request(folder))
    except ModelError:
        return
    assert model.signature.outputs


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ModelError, match=r"no file at .*gone\.onnx"):
        ONNX_FILE.load(str(tmp_path / "gone.onnx"), request(tmp_path))


def test_operator_of_an_unknown_domain_is_named(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["": 17, "acme": 1]>
    net (float[1, 4] x) => (float[1, 4] y) { y = acme.Twice(x) }"""
    assert "uses acme::Twice, which neither onnxruntime nor the file defines" in refusal(
        tmp_path, onnx.parser.parse_model(text)
    )


def test_operator_nobody_knows_is_named(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["": 17]>
    net (float[1, 4] x) => (float[1, 4] y) { y = Frobnicate(x) }"""
    assert "Frobnicate" in refusal(tmp_path, onnx.parser.parse_model(text))


def test_text_inputs_are_refused(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["": 17]>
    net (string[1, 4] x) => (string[1, 4] y) { y = Identity(x) }"""
    assert "is no tensor of numbers" in refusal(tmp_path, onnx.parser.parse_model(text))


@pytest.mark.parametrize(("source", "taken"), [("a/b.onnx", True), ("NET.ONNX", True), ("net.py:model", False)])
def test_accepts_judges_by_the_name(source: str, taken: bool):
    assert ONNX_FILE.accepts(source) is taken


# ------------------------------------------------------------------ recurrent state


def recurrent(pairs: str) -> onnx.ModelProto:
    text = """<ir_version: 8, opset_import: ["": 17]>
    net (float[1, 4] x, float[1, 4] before, float[1, 5] other) => (float[1, 4] after, float[1, 5] rest)
    { after = Add(x, before)  rest = Identity(other) }"""
    proto = onnx.parser.parse_model(text)
    helper.set_model_props(proto, {STATE_KEY: pairs})
    return proto


def test_state_is_read_and_starts_at_zero(tmp_path: Path):
    model = load(tmp_path, recurrent('[["after", "before"]]'))
    assert [(link.output, link.input) for link in model.signature.state] == [("after", "before")]
    assert [spec.name for spec in model.signature.fed] == ["x", "other"]
    assert not model.example["before"].any()
    assert model.example["x"].any()


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ('[["after", "befor"]]', "did you mean 'before'?"),
        ('[["aftr", "before"]]', "which is no output"),
        ('[["after", "other"]]', "both need the same dtype and shape"),
        ('{"after": "before"}', "must be JSON like"),
        ("after->before", "must be JSON like"),
        ("[[1, 2]]", "must be JSON like"),
    ],
)
def test_state_that_does_not_fit_is_refused(tmp_path: Path, pairs: str, words: str):
    assert words in refusal(tmp_path, recurrent(pairs))
