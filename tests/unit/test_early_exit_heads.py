"""Heads of early exits: every layout, what trains, what is exported, and that they learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from edgewright import onnxkit  # noqa: E402
from edgewright.errors import RefusedError  # noqa: E402
from edgewright.torchkit.anatomy import TokenGrid, examine  # noqa: E402
from edgewright_plugins.early_exit.heads import lgvit, perceiver  # noqa: E402
from edgewright_plugins.early_exit.heads.latent import MOST_SIDE, Places, Write, window  # noqa: E402
from edgewright_plugins.early_exit.heads.linear import LinearHead  # noqa: E402
from edgewright_plugins.early_exit.net import MultiExit  # noqa: E402
from edgewright_plugins.lower.export import lower_module  # noqa: E402
from edgewright_plugins.simplify.graph import simplify  # noqa: E402

KINDS = ("linear", "local3", "local1", "global2", "global3")
ROWS, WIDTH = 2, 12
GRIDS = {
    "map": (ROWS, WIDTH, 5, 7),
    "map_last": (ROWS, 5, 7, WIDTH),
    "tokens": (ROWS, 37, WIDTH),
    "tokens_first": (37, ROWS, WIDTH),
}


def grid_of(layout: str, width: int = WIDTH) -> TokenGrid:
    """A grid of 5 by 7, with two tokens before it where there can be some."""
    prefix = 2 if layout.startswith("tokens") else 0
    return TokenGrid(35 + prefix, width, layout, prefix, (5, 7))


def head_of(kind: str, grid: TokenGrid, classes: int = 3, reads: tuple[int, ...] = ()) -> Any:
    torch.manual_seed(0)
    return LinearHead(grid, classes, reads) if kind == "linear" else lgvit.head(kind, grid, classes, reads)


def stirred(module: nn.Module) -> nn.Module:
    """With batch norms and zero weights that do something."""
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.running_mean, -0.5, 0.5)
            nn.init.uniform_(each.running_var, 0.5, 2)
            nn.init.uniform_(each.weight, -1, 1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.where(parameter == 0, torch.randn_like(parameter) * 0.1, parameter))
    return module.eval()


class Residual(nn.Module):
    """A block of a small convolutional network."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(narrow, wide, 3, stride, 1)
        self.skip = nn.Conv2d(narrow, wide, 1, stride)

    def forward(self, x: Any) -> Any:
        return torch.relu(self.conv(x) + self.skip(x))


def convolutional(widths: tuple[int, ...] = (8, 16, 24)) -> nn.Sequential:
    """One residual block at each width; every one after the first halves the image."""
    torch.manual_seed(0)
    blocks = [Residual(n, w, 1 if i == 0 else 2) for i, (n, w) in enumerate(zip((8, *widths), widths, strict=False))]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4)
    )


def perceiving(backbone: nn.Module, size: int = 12) -> MultiExit:
    anatomy = examine(backbone.eval(), [torch.zeros(1, 3, size, size)])
    torch.manual_seed(1)
    sides = perceiver.sides(anatomy, 4, tokens=8)
    return MultiExit(backbone, perceiver.cuts(anatomy), sides, last=anatomy.blocks[-1].end, final=True)


# ------------------------------------------------------------------ kinds and shapes


def test_kinds_go_from_local_to_global() -> None:
    assert lgvit.kinds(1) == ("local3",)
    assert lgvit.kinds(2) == ("local3", "global2")
    assert lgvit.kinds(4) == ("local3", "local1", "global2", "global3")
    assert lgvit.kinds(8) == (*["local3"] * 2, *["local1"] * 2, *["global2"] * 2, *["global3"] * 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", GRIDS)
def test_every_layout_gives_the_same_logits(layout: str, kind: str) -> None:
    """The same numbers in another order are the same picture; the two tokens before it are not read here."""
    torch.manual_seed(3)
    image = torch.randn(GRIDS["map"])
    tokens = torch.cat([torch.randn(ROWS, 2, WIDTH), image.flatten(2).transpose(1, 2)], 1)
    forms = {
        "map": image, "map_last": image.permute(0, 2, 3, 1), "tokens": tokens, "tokens_first": tokens.transpose(0, 1),
    }  # fmt: skip
    for training in (False, True):
        logits = [head_of(kind, grid_of(each)).train(training)(forms[each], ())[2] for each in ("map", layout)]
        assert logits[0].shape == (ROWS, 3)
        torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_heads_pass_on_what_they_see(kind: str) -> None:
    x, state = torch.randn(GRIDS["tokens"]), (torch.ones(1),)
    head = head_of(kind, grid_of("tokens"))
    given_x, given_state, _ = head.train()(x, state)
    assert given_x is x
    assert given_state is state
    counts = {"linear": None, "local3": 35, "local1": 35, "global2": 12, "global3": 6}
    assert (head.features.shape[1] if head.features is not None else None) == counts[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_class_tokens_are_read_where_the_network_reads_them(kind: str) -> None:
    x = torch.randn(GRIDS["tokens"])
    changed = x.clone()
    changed[:, 1] += 1
    for reads, differs in (((), False), ((0,), False), ((0, 1), True), ((0, *range(1, 37)), True)):
        head = head_of(kind, grid_of("tokens"), reads=reads).eval()
        assert bool((head(x, ())[2] != head(changed, ())[2]).any()) is differs


@pytest.mark.parametrize("kind", KINDS[1:])
def test_evaluation_takes_a_shorter_way_to_the_same_logits(kind: str) -> None:
    head = stirred(head_of(kind, grid_of("map")))
    x = torch.randn(GRIDS["map"])
    short = head(x, ())[2]
    head.training = True  # the batch norms inside stay in evaluation
    torch.testing.assert_close(short, head(x, ())[2], rtol=1e-4, atol=1e-5)


def test_any_width_has_heads_that_divide_it() -> None:
    for width in (1, 7, 12, 20, 96):
        grid = TokenGrid(9, width, "tokens", 0, (3, 3))
        assert head_of("global2", grid)(torch.randn(1, 9, width), ())[2].shape == (1, 3)


def test_text_has_no_grid_for_lgvit() -> None:
    assert lgvit.takes(grid_of("map"))
    assert not lgvit.takes(TokenGrid(6, 8, "tokens"))
    assert not lgvit.takes(TokenGrid(6, 8, "map", 0, (6,)))


# ------------------------------------------------------------------ Dynamic Perceiver


def test_a_latent_that_is_new_changes_nothing() -> None:
    backbone = convolutional()
    x = torch.randn(2, 3, 12, 12)
    net = perceiving(backbone).eval()
    with torch.no_grad():
        seen, own = net(x), backbone(x)
        assert torch.equal(seen.own, own)
        assert [tuple(each.shape) for each in seen.logits] == [(2, 4)] * 3
        stirred(net)
        assert not torch.allclose(net(x).own, own)


def test_a_latent_goes_along_with_the_last_two_stages() -> None:
    net = perceiving(convolutional((8, 16, 24, 32)), size=17)
    seen = net(torch.randn(1, 3, 17, 17))
    assert [tuple(each.shape) for each in seen.logits] == [(1, 4)] * 3
    assert [cut.path for cut in net.cuts] == ["2", "3", "4"]


def test_all_of_a_perceiver_learns_from_its_answer_and_exits() -> None:
    net = stirred(perceiving(convolutional())).train()
    sum(each.square().sum() for each in net(torch.randn(4, 3, 12, 12)).logits).backward()
    assert [name for name, each in net.named_parameters() if each.grad is None] == [
        "backbone.6.weight",
        "backbone.6.bias",
    ]


def test_two_resolutions_are_too_few() -> None:
    with pytest.raises(RefusedError, match="has 2 stages; choose heads=linear"):
        perceiving(convolutional((8, 16)))


@given(st.integers(1, 300))
def test_windows_cover_every_pixel(size: int) -> None:
    kernel, stride, count = window(size)
    assert count == min(size, count) <= MOST_SIDE
    assert (count - 1) * stride + kernel == size
    assert 1 <= stride <= kernel


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40))
def test_maps_of_any_size_become_at_most_64_places(height: int, width: int) -> None:
    places = Places(2, (height, width))
    assert places(torch.randn(3, 2, height, width)).shape == (3, places.count, 2)
    assert places.count == window(height)[2] * window(width)[2] <= 64


def test_a_place_starts_near_the_mean_of_its_window() -> None:
    torch.manual_seed(0)
    places = Places(1, (32, 32)).requires_grad_(requires_grad=False)
    x = torch.randn(8, 1, 32, 32).cumsum(2).cumsum(3)
    found = torch.stack([places.pool(x).flatten(), nn.functional.avg_pool2d(x, 4).flatten()])
    assert float(torch.corrcoef(found)[0, 1]) > 0.95


def test_the_mean_pixel_needs_no_written_map() -> None:
    torch.manual_seed(0)
    write, x, z = stirred(Write(6, 4)), torch.randn(2, 6, 5, 3), torch.randn(2, 7, 4)
    with torch.no_grad():
        torch.testing.assert_close(write.mean(x, z), write.added(x, z).flatten(2).mean(2))
        assert not torch.allclose(write.added(x, z), x)


# ------------------------------------------------------------------ export


@pytest.mark.parametrize(("kind", "layout"), [*((kind, "tokens") for kind in KINDS[1:]), ("global2", "map_last")])
def test_heads_export_without_batch_norms(kind: str, layout: str) -> None:
    x = np.random.default_rng(0).standard_normal(GRIDS[layout]).astype(np.float32)
    check_export(Logits(stirred(head_of(kind, grid_of(layout), reads=(0,)))), x)


def test_a_perceiver_exports_without_batch_norms() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    check_export(Logits(stirred(perceiving(convolutional()))), x)


class Logits(nn.Module):
    """The logits alone, of a head or a net."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> tuple[Any, ...]:
        return self.inner(x).logits if isinstance(self.inner, MultiExit) else (self.inner(x, ())[2],)


def check_export(module: nn.Module, x: Any) -> None:
    with torch.no_grad():
        wanted = module.eval()(torch.tensor(x))
    names = [f"logits{number}" for number in range(len(wanted))]
    proto, remarks = simplify(lower_module(module, {"x": x}, names))
    assert not remarks
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    found = next(iter(onnxkit.run(onnxkit.pack(proto), [{"x": x}])))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-4 * float(other.abs().max()))


# ------------------------------------------------------------------ learning


@pytest.mark.parametrize("kind", KINDS)
def test_heads_learn(kind: str) -> None:
    """Two classes that differ by the sign of one channel on one side of the picture."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    x = torch.randn(64, WIDTH, 5, 7)
    x[:, 3, :, :4] += (labels * 2.0 - 1)[:, None, None]
    head = head_of(kind, grid_of("map"), classes=2)
    optimizer = torch.optim.AdamW(head.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head.train()(x[:32], ())[2], labels[:32]).backward()
        optimizer.step()
    right = head.eval()(x[32:], ())[2].argmax(1) == labels[32:]
    assert float(right.float().mean()) > 0.85
