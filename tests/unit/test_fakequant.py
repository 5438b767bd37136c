"""Rounding in training: gradients of the paper, exact folding, and the same integers in the exported graph."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import ModelError
from edgewright.grids import Encoding, Grid

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from edgewright import onnxkit  # noqa: E402
from edgewright.torchkit.fakequant import QuantizedLayer, Quantizer, fake_quantize  # noqa: E402
from edgewright.torchkit.fakequant_prepare import (  # noqa: E402
    calibrate,
    layers_of,
    observe,
    prepare,
    reestimate,
    usual_grids,
)
from edgewright.torchkit.fakequant_settle import loose, settle  # noqa: E402
from edgewright.torchkit.fold import fold, pairs  # noqa: E402
from edgewright_plugins.lower.export import lower_module  # noqa: E402
from edgewright_plugins.lower.rounding import wobble  # noqa: E402


class Net(nn.Module):
    """Norms that fold (conv and linear), and one that cannot: what it reads is added as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv3, self.norm3 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.linear, self.norm4 = nn.Linear(8, 5), nn.BatchNorm1d(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] to [n, 5]."""
        x = torch.relu(self.norm1(self.conv1(x)))
        y = self.conv3(x)
        x = self.norm2(self.conv2(x)) + self.norm3(y) + y
        return self.norm4(self.linear(x.mean((2, 3))))


def net_and_images() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net = Net().eval()
    for norm in (net.norm1, net.norm2, net.norm3, net.norm4):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        norm.running_var.uniform_(0.5, 2)
    return net, torch.randn(16, 3, 8, 8)


def rounding(module: nn.Module, inputs: tuple[torch.Tensor, ...], bits: int, activations: int | None) -> nn.Module:
    """The module with rounding layers, calibrated on the inputs."""
    prepare(module, usual_grids(layers_of(module, [inputs]), bits, activations))
    calibrate(module, [inputs])
    observe(module, [inputs])
    return module.eval()


def codes(module: nn.Module) -> dict[str, np.ndarray]:
    """The integers of every weight."""
    return {
        path: layer.weights.encoding().codes(layer.weight.detach().numpy())
        for path, layer in module.named_modules()
        if isinstance(layer, QuantizedLayer)
    }


@settings(max_examples=40)
@given(
    bits=st.integers(2, 8),
    signed=st.booleans(),
    scale=st.floats(2**-10, 8, width=32),
    zero=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_rounds_to_the_values_of_the_encoding(bits: int, signed: bool, scale: float, zero: int, seed: int) -> None:
    grid = Grid(bits, symmetric=signed, signed=signed, per="tensor")
    zeros = 0 if signed else zero
    x = np.random.default_rng(seed).normal(0, 3 * scale, 50).astype(np.float32)
    encoding = Encoding(grid, np.float32(scale), np.int32(zeros))
    got = fake_quantize(
        torch.from_numpy(x), torch.tensor(scale), torch.tensor(zeros, dtype=torch.int32), 0, grid.low, grid.high
    )
    np.testing.assert_array_equal(got.numpy(), encoding.rounded(x))


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_gradients_are_those_of_equation_3(per: str) -> None:
    quantizer = Quantizer(Grid(3, per=per), channels=2)
    quantizer.start(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    with torch.no_grad():
        quantizer.scale.fill_(0.5)
    x = torch.tensor([[0.6, -9.0], [0.74, 1.76]], requires_grad=True)
    quantizer(x).backward(torch.tensor([[1.0, 1.0], [2.0, 1.0]]))
    # v = x / s = 1.2, -18, 1.48, 3.52; inside: round(v) - v; outside: the end of the grid, -3 and 3.
    each = np.array([[1 - 1.2, -3.0], [2 * (1 - 1.48), 3.0]])
    want = each.sum() / np.sqrt(4 * 3) if per == "tensor" else each.sum(1) / np.sqrt(2 * 3)
    np.testing.assert_allclose(quantizer.scale.grad.numpy(), want, rtol=1e-5)
    np.testing.assert_array_equal(x.grad.numpy(), [[1, 0], [2, 0]])


def test_the_offset_is_learned_from_what_falls_outside() -> None:
    quantizer = Quantizer(Grid(2, symmetric=False, signed=False, per="tensor"), batched=True).train()
    quantizer.start(torch.tensor([-1.0, 2.0]))  # a step of 1, codes 0 to 3, the zero point at 1
    x = torch.tensor([[-5.0, 0.1, 9.0, 8.0]])
    quantizer(x).backward(torch.ones(1, 4))
    np.testing.assert_allclose(float(quantizer.zero.grad), -3 / np.sqrt(4 * 3), rtol=1e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_start_loses_less_than_the_paper_s(bits: int) -> None:
    torch.manual_seed(0)
    weight, grid = torch.randn(64, 300), Grid(bits, per="tensor")
    quantizer = Quantizer(grid).eval()
    quantizer.start(weight)
    ours = (quantizer(weight) - weight).square().mean()
    with torch.no_grad():
        quantizer.scale.copy_(2 * weight.abs().mean() / grid.high**0.5)
    assert ours <= (quantizer(weight) - weight).square().mean() * 1.001


def test_folds_what_only_the_norm_reads() -> None:
    net, images = net_and_images()
    assert pairs(net, (images,)) == [("conv1", "norm1"), ("conv2", "norm2"), ("linear", "norm4")]
    folded = copy.deepcopy(net)
    assert fold(folded, (images,)) == ["norm1", "norm2", "norm4"]
    torch.testing.assert_close(folded(images), net(images), rtol=1e-4, atol=1e-5)


def test_folding_keeps_the_codes_up_to_sign() -> None:
    net, images = net_and_images()
    rounding(net, (images,), 4, 4)
    before = codes(net)
    folded = copy.deepcopy(net)
    fold(folded, (images,))
    after = codes(folded)
    sign = np.where(net.norm1.weight.detach().numpy() < 0, -1, 1).reshape(-1, 1, 1, 1)
    assert sign.min() == -1
    np.testing.assert_array_equal(after["conv1"], before["conv1"] * sign)
    for path in before:
        np.testing.assert_array_equal(np.abs(after[path]), np.abs(before[path]))


def operators_run(data: bytes, file: Path) -> list[str]:
    """What onnxruntime runs for a graph."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(file)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(file).graph.node]


@pytest.mark.parametrize(("bits", "activations"), [(2, 4), (3, 3), (4, None)])
def test_the_exported_graph_holds_the_codes_and_gives_the_outputs(
    tmp_path: Path, bits: int, activations: int | None
) -> None:
    net, images = net_and_images()
    rounding(net, (images,), bits, activations)
    proto = lower_module(net, {"x": images[:1].numpy()}, ["y"])
    onnx.checker.check_model(proto, full_check=True)
    assert {"FakeQuantize", "Abs", "Transpose"}.isdisjoint(onnxkit.operators(proto))
    if activations:
        operators = operators_run(onnxkit.pack(proto), tmp_path / "run.onnx")
        assert (operators.count("QLinearConv"), operators.count("QGemm")) == (3, 1)
        assert {"Conv", "Gemm"}.isdisjoint(operators)
    feeds = [{"x": image[None].numpy()} for image in images]
    got = np.concatenate([outputs[0] for outputs in onnxkit.run(onnxkit.pack(proto), feeds)])
    folded = settle(copy.deepcopy(net), (images,))
    want = folded(images).detach().numpy()
    # A value on the edge between two codes may fall on either side; most images hold none.
    errors = np.abs(got - want).max(1) / np.abs(want).max()
    assert np.median(errors) < 1e-5
    assert errors.max() < 0.05
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    held = [np.asarray(array, np.int32) for name, array in stored.items() if "quantized" in name and array.ndim > 1]
    for path, wanted in codes(folded).items():
        assert any(array.shape == wanted.shape and np.array_equal(array, wanted) for array in held), path


def test_weights_of_4_bits_take_4_bits_in_the_file() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(64, 64) for _ in range(3))).eval()
    x = torch.randn(8, 64)
    rounding(net, (x,), 4, 4)
    proto = lower_module(net, {"x": x[:1].numpy()}, ["y"])
    stored = {tensor.name: tensor.data_type for tensor in proto.graph.initializer if len(tensor.dims) == 2}
    assert sorted(stored.values()) == sorted([onnx.TensorProto.INT8, onnx.TensorProto.INT4, onnx.TensorProto.INT8])
    assert sum(len(t.raw_data) for t in proto.graph.initializer if len(t.dims) == 2) == 64 * 64 * 2.5


def test_a_linear_over_tokens_stores_its_weight_turned_and_is_a_product_of_integers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3)).eval()
    x = torch.randn(4, 5, 8)
    rounding(net, (x,), 4, 4)
    proto = lower_module(net, {"x": x[:1].numpy()}, ["y"])
    assert "Transpose" not in onnxkit.operators(proto)
    operators = operators_run(onnxkit.pack(proto), tmp_path / "run.onnx")
    assert operators.count("QGemm") == 3
    assert {"MatMul", "Gemm"}.isdisjoint(operators)
    got = next(onnxkit.run(onnxkit.pack(proto), [{"x": x[:1].numpy()}]))[0]
    np.testing.assert_allclose(got, settle(net, (x,))(x[:1]).detach().numpy(), atol=1e-5)


def test_biases_become_whole_numbers_and_loose_convolutions_8_bits_and_a_second_time_changes_nothing() -> None:
    net, images = net_and_images()
    rounding(net, (images,), 4, 4)
    plain = net(images)
    settle(net, (images,))
    layers = {path: each for path, each in net.named_modules() if isinstance(each, QuantizedLayer)}
    for layer in layers.values():
        units = layer.bias / (layer.inputs.positive() * layer.weights.positive())
        torch.testing.assert_close(units, units.round(), rtol=2e-7, atol=1e-4)
    # Two layers round what conv1 gives, two others are added; a linear layer gives floats.
    assert {path for path, layer in layers.items() if layer.outputs} == {"conv1", "conv2", "conv3"}
    assert loose(net, (images,)) == []
    once = net(images)
    assert 0 < (once - plain).abs().max() < 0.2 * plain.abs().max()
    assert torch.equal(settle(net, (images,))(images), once)


class Ways(nn.Module):
    """Convolutions whose outputs go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.pooled, self.inplace, self.smooth, self.twice, self.last = (nn.Conv2d(4, 4, 1) for _ in range(5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, 4, h, w] to [n, 4, h / 2, w / 2], twice."""
        x = nn.functional.max_pool2d(torch.relu(self.pooled(x)), 2)
        x = torch.sigmoid(self.smooth(self.inplace(x).relu_()))
        y = self.twice(x)
        return self.last(y), y


def test_an_output_is_loose_unless_it_goes_one_way_to_one_rounding() -> None:
    torch.manual_seed(0)
    net, x = Ways().eval(), torch.randn(2, 4, 6, 6)
    rounding(net, (x,), 4, 4)
    paths = {each: path for path, each in net.named_modules()}
    assert {paths[layer] for layer in loose(net, (x,))} == {"smooth", "twice", "last"}


def test_outputs_that_were_never_observed_stay() -> None:
    net, images = net_and_images()
    prepare(net, usual_grids(layers_of(net, [(images,)]), 4, 4))
    settle(net, (images,))
    assert len(loose(net, (images,))) == 3


def test_layers_whose_inputs_are_floats_give_floats() -> None:
    net, images = net_and_images()
    rounding(net, (images,), 4, None)
    want = net(images)
    torch.testing.assert_close(settle(net, (images,))(images), want, rtol=1e-4, atol=1e-5)


def test_observed_ends_follow_a_folded_norm() -> None:
    net, images = net_and_images()
    rounding(net, (images,), 4, 4)
    fold(net, (images,))
    given = net.conv1(images)
    torch.testing.assert_close(net.conv1.least, given.amin((0, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.conv1.most, given.amax((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_a_bias_that_int32_cannot_hold_widens_the_step_of_its_weights() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 1, 1)).eval(), torch.randn(4, 2, 5, 5)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = 0, 5
    rounding(net, (x,), 4, 4)
    before, width = net(x), net.get_submodule("0").weights.scale.detach()[1].clone()
    layer: Any = settle(net, (x,)).get_submodule("0")
    assert layer.weights.scale[1] > 1000 * width
    assert (layer.bias / layer.inputs.positive() / layer.weights.positive()).abs().max() <= 2**30
    torch.testing.assert_close(net(x), before, rtol=0, atol=0.05 * before.abs().max().item())


def test_inputs_below_zero_get_an_offset_and_the_ends_8_bits() -> None:
    net, images = net_and_images()
    grids = usual_grids(layers_of(net, [(images,)]), 4, 3)
    assert {path: (weights.bits, str(inputs)) for path, (weights, inputs) in grids.items()} == {
        "conv1": (8, "uint8 asymmetric per tensor"),
        "conv3": (4, "uint3 per tensor"),
        "conv2": (4, "uint3 per tensor"),
        "linear": (8, "uint8 asymmetric per tensor"),
    }


def test_names_of_weights_stay_and_a_state_comes_back() -> None:
    net, images = net_and_images()
    names = set(net.state_dict())
    fresh = copy.deepcopy(net)
    rounding(net, (images,), 4, 4)
    assert names < set(net.state_dict())
    prepare(fresh, usual_grids(layers_of(fresh, [(images,)]), 4, 4))
    assert not torch.equal(fresh(images), net(images))
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(images), net(images))


def test_norms_are_averaged_anew() -> None:
    net, images = net_and_images()
    reestimate(net, [(images[:8],), (images[8:],)])
    convolved = net.conv1(images)
    torch.testing.assert_close(net.norm1.running_mean, convolved.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert net.norm1.momentum == 0.1
    assert not net.norm1.training


def test_nothing_wobbles_that_rounds_nothing() -> None:
    net, images = net_and_images()
    feed = {"x": images[:1].numpy()}
    assert wobble(net, feed, [net(images[:1]).detach().numpy()]) == 0
    rounding(net, (images,), 4, 4)
    assert 0 < wobble(net, feed, [net(images[:1]).detach().numpy()]) < 0.05


@pytest.mark.parametrize("grid", [Grid(4, per="group", group=32), Grid(8, per="tensor", dynamic=True)])
def test_a_step_that_cannot_be_learned_is_refused(grid: Grid) -> None:
    with pytest.raises(ModelError, match="a step cannot be learned"):
        Quantizer(grid)


def test_other_layers_are_refused() -> None:
    net: Any = nn.Sequential(nn.ConvTranspose2d(1, 1, 1))
    with pytest.raises(ModelError, match="ConvTranspose2d, not a layer that can round"):
        prepare(net, {"0": (Grid(4), None)})
