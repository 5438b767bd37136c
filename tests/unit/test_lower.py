"""Lower: names, shapes and numbers of the exported graph, and refusals in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgewright.errors import RefusedError
from edgewright.protocols import NoParams
from edgewright.store import Store
from edgewright.types import Model, Signature, Stage, TensorSpec, TorchGraph, Variant

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - torch is optional

from edgewright import onnxkit  # noqa: E402
from edgewright.numerics import difference, worst  # noqa: E402
from edgewright_plugins.lower import LOWER  # noqa: E402
from edgewright_plugins.lower.export import lower_module, run_module  # noqa: E402
from edgewright_plugins.lower.stages import check_numerics, lower_stages  # noqa: E402


class Two(nn.Module):
    """Two inputs, two outputs, tokens through a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, tokens: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, T, 4] and [B, 3] to [B, T, 3] and [B, 3]."""
        y = self.fc(tokens) + shift[:, None]
        return y, y.mean(1)


class Split(nn.Module):
    """Branches on a value, which no export can follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return x if x.sum() > 0 else -x


class Bessel(nn.Module):
    """An operator that ONNX has not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return torch.special.bessel_j0(x)


@pytest.fixture(scope="module")
def two() -> tuple[nn.Module, dict[str, np.ndarray], onnx.ModelProto]:
    torch.manual_seed(0)
    net = Two().eval()
    rng = np.random.default_rng(0)
    inputs = {"tok:ens": rng.standard_normal((2, 5, 4), np.float32), "shift": rng.standard_normal((2, 3), np.float32)}
    return net, inputs, lower_module(net, inputs, ["per token", "mean"])


def test_names_and_shapes_are_those_of_the_signature(two: Any) -> None:
    _, inputs, proto = two
    onnx.checker.check_model(proto)
    assert [onnxkit.tensor_spec(value) for value in proto.graph.input] == [
        TensorSpec(name, "float32", array.shape) for name, array in inputs.items()
    ]
    assert [onnxkit.tensor_spec(value) for value in proto.graph.output] == [
        TensorSpec("per token", "float32", (2, 5, 3)),
        TensorSpec("mean", "float32", (2, 3)),
    ]


def test_a_linear_over_tokens_is_matmul_and_add(two: Any) -> None:
    assert {"MatMul", "Add"} <= set(onnxkit.operators(two[2]))


def test_the_graph_tells_nothing_of_this_host_and_is_the_same_twice(two: Any) -> None:
    net, inputs, proto = two
    data = onnxkit.pack(proto)
    assert __file__.encode() not in data
    assert not proto.graph.value_info
    assert data == onnxkit.pack(lower_module(net, inputs, ["per token", "mean"]))


def test_exporting_writes_nothing(two: Any, capfd: pytest.CaptureFixture[str]) -> None:
    lower_module(two[0], two[1], ["per token", "mean"])
    assert capfd.readouterr() == ("", "")


def test_numbers_are_the_modules(two: Any) -> None:
    net, inputs, proto = two
    want = [tensor.numpy() for tensor in run_module(net, inputs)]
    assert check_numerics(proto, inputs, ["per token", "mean"], want).max_rel < 1e-6


def test_numbers_that_differ_are_refused_by_output(two: Any) -> None:
    net, inputs, proto = two
    want = [tensor.numpy() for tensor in run_module(net, inputs)]
    want[1] = want[1] * 1.01
    with pytest.raises(RefusedError, match="the lowered output 'mean' differs"):
        check_numerics(proto, inputs, ["per token", "mean"], want)


def test_an_operator_without_onnx_form_is_named() -> None:
    with pytest.raises(RefusedError, match=r"no form of the operator prims\.bessel_j0"):
        lower_module(Bessel().eval(), {"x": np.ones((2, 2), np.float32)}, ["y"])


def test_control_flow_on_data_is_refused_with_a_way_out(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RefusedError, match=r"data-dependent .*torch\.where or torch\.cond") as caught:
        lower_module(Split().eval(), {"x": np.ones((2, 2), np.float32)}, ["y"])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_difference_is_exact_about_what_is_not_finite() -> None:
    nan, inf = np.float32("nan"), np.float32("inf")
    same = np.array([nan, inf, 1], np.float32)
    assert difference("y", same, same).max_abs == 0
    assert difference("y", same, np.array([0, inf, 1], np.float32)).max_rel == inf
    assert difference("y", np.ones(2), np.ones(3)).max_rel == inf
    assert difference("y", np.zeros(2), np.full(2, 1e-9)).max_rel == inf
    assert difference("y", np.array([4.0, 1.0]), np.array([4.0, 2.0])).max_rel == 0.25
    assert worst(["a", "b"], [np.ones(1)] * 2, [np.ones(1), np.zeros(1)]).name == "b"


class Front(nn.Module):
    """The first stage of an early exit: an output and a carry."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, 4] to [B] and [B, 4]."""
        return x.sum(1), x * 2


class Back(nn.Module):
    """The second stage: takes the input, then the carry."""

    def forward(self, x: torch.Tensor, carry: torch.Tensor) -> torch.Tensor:
        """[B, 4] twice to [B]."""
        return (x - carry).sum(1)


def staged(graphs: list[nn.Module]) -> Model:
    stages = (
        Stage("front", TorchGraph(graphs[0].eval(), "a"), ("x",), ("y",), carry=("middle",)),
        Stage("back", TorchGraph(graphs[1].eval(), "b"), ("x",), ("y",)),
    )
    signature = Signature((TensorSpec("x", "float32", (1, 4)),), (TensorSpec("y", "float32", (1,)),))
    return Model("staged", signature, (Variant("main", stages),), {"x": np.ones((1, 4), np.float32)})


def test_every_stage_is_lowered_on_what_the_one_before_carries(tmp_path: Path) -> None:
    (variant,), found = lower_stages(staged([Front(), Back()]), Store(tmp_path).keep)
    assert found.max_abs == 0
    back = onnxkit.read(variant.stages[1].graph)
    assert [value.name for value in back.graph.input] == ["x", "middle"]
    feed = {"x": np.ones((1, 4), np.float32), "middle": np.full((1, 4), 2, np.float32)}
    assert next(onnxkit.run(onnxkit.pack(back), [feed]))[0] == -4


def test_the_transform_keeps_the_model_and_adds_a_step(tmp_path: Path) -> None:
    model = staged([Front(), Back()])
    lowered = LOWER.apply(model, NoParams(), Store(tmp_path))
    assert (lowered.format, lowered.signature) == ("onnx", model.signature)
    assert [step.name for step in lowered.history] == ["lower"]
    assert lowered.history[0].details["max_abs"] == 0
    assert LOWER.check(model, None) is None
    refusal = LOWER.check(lowered, None)
    assert refusal is not None
    assert "leave lower out" in refusal.reason


def test_more_than_an_onnx_file_holds_is_refused_before_any_work() -> None:
    with torch.device("meta"):
        huge = nn.Linear(2**15, 2**14)
    refusal = LOWER.check(staged([huge, Back()]), None)
    assert refusal is not None
    assert "front has 2.0 GiB of weights" in refusal.reason
