"""Mixtures of products and shifts: the loss, the router's gradient, static routing, the graph, shares of tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.registry import Registry
from edgewright.testing import open_rig

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from edgewright import onnxkit  # noqa: E402
from edgewright.torchkit.data import TaskData  # noqa: E402
from edgewright.torchkit.fakequant_prepare import calibrate, layers_of, observe, usual_grids  # noqa: E402
from edgewright.torchkit.fit import fit  # noqa: E402
from edgewright.torchkit.losses import distilled  # noqa: E402
from edgewright.torchkit.training import Training  # noqa: E402
from edgewright_plugins.lower.export import lower_module, settled  # noqa: E402
from edgewright_plugins.lower.rounding import wobble  # noqa: E402
from edgewright_plugins.shiftadd import Params  # noqa: E402
from edgewright_plugins.shiftadd.job import chosen, groups, shifting  # noqa: E402
from edgewright_plugins.shiftadd.mixture import balance, balanced, implied_share, mixtures  # noqa: E402
from edgewright_plugins.shiftadd.prices import measured  # noqa: E402
from networks_to_train import digits, first_digits, vit  # noqa: E402


def mixed(net: nn.Module, images: Any) -> nn.Module:
    """The network with mixtures in its MLPs."""
    module, first = copy.deepcopy(net), (images[:1],)
    layers = layers_of(module, [(images,)])
    paths = chosen(module, [layer.path for layer in layers], "mlp", first, {})
    shifting(
        module, {path: pair for path, pair in usual_grids(layers, 8, 8).items() if path in paths}, paths, mixed=True
    )
    calibrate(module, [(images,)])
    return module.eval()


@pytest.mark.parametrize("latencies", [(6.0, 4.0), (4.0, 6.0), (1.0, 3.0)])
def test_the_loss_is_least_where_tokens_go_by_one_over_the_latency(latencies: Sequence[float]) -> None:
    margins = torch.linspace(-3, 3, 601)
    losses = [float(balance(torch.stack((-m / 2, m / 2)).expand(50, 2), latencies)) for m in margins]
    best = margins[int(np.argmin(losses))]
    by_gates, by_load = torch.sigmoid(best), torch.special.ndtr(best / (0.5 * 2**0.5))
    low, high = sorted((float(by_gates), float(by_load)))
    assert low - 0.02 <= implied_share(latencies) <= high + 0.02
    swapped = balance(torch.stack((-best / 2, best / 2)).expand(50, 2), latencies[::-1])
    assert float(swapped) > min(losses)


def test_the_router_learns_from_the_task_alone() -> None:
    net, images = vit(), torch.randn(8, 3, 8, 8)
    module = mixed(net, images).train()
    torch.manual_seed(0)
    module(images).square().sum().backward()
    assert all(float(each.router.weight.grad.abs().sum()) > 0 for each in mixtures(module))


def test_each_token_goes_through_one_expert_in_its_place_and_as_many_shift_as_are_said() -> None:
    net, images = vit(), torch.randn(4, 3, 8, 8)
    for mixture in mixtures(mixed(net, images)):
        x = torch.randn(2, 5, mixture.multiply.weight.shape[1])
        for share, count in ((0.0, 0), (0.42, 2), (1.0, 5)):
            mixture.share = share
            with torch.no_grad():
                got, scores = mixture(x), mixture.router(x)
                ways = torch.stack((mixture.multiply(x), mixture.shift(x)))
            order = (scores[..., 1] - scores[..., 0]).argsort(-1, descending=True)
            shifts = torch.zeros(2, 5).scatter(1, order[:, :count], 1.0).bool()
            assert torch.allclose(got, torch.where(shifts[..., None], ways[1], ways[0]), atol=1e-6)


def test_the_graph_routes_fixed_numbers_of_tokens_and_gives_the_same() -> None:
    net, images = vit(), torch.randn(4, 3, 8, 8)
    module = mixed(net, images)
    for mixture in mixtures(module):
        mixture.share = 0.6
    observe(module, [(images,)])
    feed = {"x": images[:1].numpy()}
    proto = lower_module(module, feed, ["y"])
    with torch.no_grad():
        want = settled(module, feed)(images[:1]).numpy()
    (got,) = next(iter(onnxkit.run(onnxkit.pack(proto), [feed])))
    assert np.abs(got - want).max() <= max(1e-4, 2 * wobble(module, feed, [want])) * np.abs(want).max()
    assert {node.op_type for node in proto.graph.node} & {"NonZero", "If", "Loop"} == set()
    copied = mixed(net, images)
    copied.load_state_dict(module.state_dict())
    assert [each.share for each in mixtures(copied)] == [0.6, 0.6]


@pytest.mark.slow
@pytest.mark.parametrize("latencies", [(6.0, 4.0), (4.0, 6.0)], ids=["shifts are quicker", "shifts are slower"])
def test_shares_come_within_five_points_of_what_latencies_imply(latencies: Sequence[float]) -> None:
    """Digits, 3 epochs: 60.9 and 61.9 % where 60 are implied, 38.8 and 37.6 % where 40 are."""
    task, _, _ = digits()
    (images,) = first_digits()
    net = vit(
        patch_size=2, num_channels=1, num_labels=10, hidden_size=16, intermediate_size=32, hidden_dropout_prob=0.0,
        initializer_range=0.15,
    )  # fmt: skip
    module = mixed(net, images)
    training = Training(epochs=3, batch=32, rate=1e-4)
    objective = balanced(distilled(net), latencies, Params().balance)
    fit(module, TaskData(task, ("image",), 32), training, objective, groups=groups)
    copy.deepcopy(module)  # torch refuses where something of a step is still held
    shares = [each.share for each in mixtures(module)]
    assert np.abs(np.array(shares) - implied_share(latencies)).max() < 0.05


def test_latencies_are_those_of_one_layer_on_the_target(tmp_path: Path) -> None:
    net, images = vit(), torch.randn(2, 3, 8, 8)
    with open_rig(tmp_path, Registry()) as rig:
        found = measured(net, "net.vit.layers.0.mlp.fc1", (images,), rig.context("torch", "latencies"))
    assert len(found) == 2
    assert min(found) > 0
