"""Settings of a training run: what is refused, the rate at every step, groups of parameters, precision."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import RecipeError

torch = pytest.importorskip("torch")

from edgewright.torchkit.training import Training, computing, optimizer_of, takes_bf16  # noqa: E402

CPU = torch.device("cpu")


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch", 0),
        ("rate", 0.0),
        ("rate", math.nan),
        ("rate", math.inf),
        ("ema", 1.0),
        ("momentum", 1.0),
        ("warm_up", -0.1),
        ("final_rate", 1.5),
        ("clip", 0.0),
        ("budget_s", -1.0),
    ],
)
def test_a_number_that_means_nothing_is_refused_with_what_is_allowed(field, value):
    with pytest.raises(RecipeError, match=rf"training takes {field} from .+ to .+, not {value}"):
        Training(**{field: value})


def test_a_misspelt_optimizer_gets_the_nearest_name():
    with pytest.raises(RecipeError, match="no optimizer 'adam'; allowed: adamw, sgd; did you mean 'adamw'"):
        Training(optimizer="adam")


rates = st.builds(Training, warm_up=st.just(0.0) | st.floats(0.01, 0.9), final_rate=st.floats(0, 1))


@given(rates, st.floats(0, 1.5))
def test_the_rate_stays_between_its_bounds_and_never_jumps(training, progress):
    rate = training.rate_at(progress)
    assert min(training.final_rate, 1e-3) <= rate <= 1
    steepest = max(1 / training.warm_up if training.warm_up else 0, math.pi / 2 / (1 - training.warm_up))
    assert abs(training.rate_at(progress + 1e-6) - rate) <= 1e-6 * steepest + 1e-12


@given(rates)
def test_the_rate_peaks_after_the_warm_up_and_ends_at_its_final_value(training):
    assert training.rate_at(training.warm_up) == pytest.approx(1)
    assert training.rate_at(1) == pytest.approx(training.final_rate)
    assert training.rate_at(2) == pytest.approx(training.final_rate)


def test_the_rate_is_linear_then_a_cosine():
    training = Training(warm_up=0.2, final_rate=0.1)
    assert training.rate_at(0) == 1e-3
    assert training.rate_at(0.1) == pytest.approx(0.5)
    assert training.rate_at(0.6) == pytest.approx((1 + 0.1) / 2)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_matrices_decay_and_vectors_do_not(name):
    module = net()
    optimizer = optimizer_of(module, Training(optimizer=name, weight_decay=0.3), None)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {p.ndim: decay[id(p)] for p in module.parameters()} == {2: 0.3, 1: 0.0}
    assert len(decay) == 6


def test_groups_keep_their_options_and_share_of_the_rate():
    module = net()
    given_groups = [{"params": module[0].parameters(), "lr": 0.1, "weight_decay": 0.0}, {"params": [module[2].weight]}]
    optimizer = optimizer_of(module, Training(rate=2e-3, weight_decay=0.3), lambda _: given_groups)
    found = [(g["share"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [(0.1, 2e-3, 0.0), (1.0, 2e-3, 0.3)]
    assert given_groups[0]["lr"] == 0.1


def test_sgd_without_momentum_and_a_frozen_network():
    assert optimizer_of(net(), Training(optimizer="sgd", momentum=0.0), None).defaults["nesterov"] is False
    with pytest.raises(RecipeError, match="nothing to train"):
        optimizer_of(net().requires_grad_(False), Training(), None)


def test_bf16_is_used_when_asked_for_and_is_close_to_fp32():
    module, x = net(), torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    outputs = {}
    for precision in ("bf16", "fp32"):
        with computing(Training(precision=precision), CPU):
            outputs[precision] = module(x)
    assert (outputs["bf16"].dtype, outputs["fp32"].dtype) == (torch.bfloat16, torch.float32)
    assert torch.allclose(outputs["bf16"].float(), outputs["fp32"], atol=0.03)


def test_auto_takes_bf16_on_a_cpu_only_with_amx(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": False})
    assert takes_bf16(Training(), CPU) is False
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": True})
    assert takes_bf16(Training(), CPU) is True


def test_auto_takes_bf16_only_where_it_is_quick():
    assert takes_bf16(Training(), torch.device("meta")) is False
    assert takes_bf16(Training(precision="bf16"), CPU) is True
    assert takes_bf16(Training(precision="fp32"), CPU) is False


def test_settings_are_values():
    assert dataclasses.replace(Training(), rate=0.1) == Training(rate=0.1)
