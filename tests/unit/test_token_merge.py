"""Token merging: what is joined, what attention is told, which networks it takes, and what its graph computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgewright.deploying.trained import revived, sealed, shelved
from edgewright.errors import RecipeError, RefusedError
from edgewright.testing import Rig
from vit import rig_with

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402

from edgewright import onnxkit  # noqa: E402
from edgewright_plugins.lower.export import lower_module  # noqa: E402
from edgewright_plugins.token_merge import TOKEN_MERGE, Params  # noqa: E402
from edgewright_plugins.token_merge.merging import joined, merged  # noqa: E402
from edgewright_plugins.token_merge.proportional import Flow  # noqa: E402
from edgewright_plugins.tokens.schedule import Schedule, halving, said, steady  # noqa: E402
from edgewright_plugins.tokens.shape import checked, shape_of  # noqa: E402
from networks_to_train import Logits  # noqa: E402
from vit import ViT  # noqa: E402

IMAGE = {"image_size": 16, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
         "intermediate_size": 32, "num_labels": 5}  # fmt: skip


def of_transformers(name: str, **settings: Any) -> nn.Module:
    family = name.partition("For")[0]
    torch.manual_seed(0)
    net = getattr(transformers, name)(getattr(transformers, f"{family}Config")(**{**IMAGE, **settings})).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return Logits(net)


def small(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return ViT(**settings).eval()


def doubled(net: nn.Module, size: int) -> Any:
    """Images whose patches come in pairs, for a network whose positions do as well."""
    for name, parameter in net.named_parameters():
        if "position" in name:
            nn.init.zeros_(parameter.data)
        if name == "stem.weight":  # it shall see one pixel
            centre = parameter.data[:, :, 1:2, 1:2].clone()
            parameter.data.zero_()[:, :, 1:2, 1:2] = centre
    torch.manual_seed(1)
    patches = torch.randn(2, 3, size, size // 8, 1, 4) if size == 16 else torch.randn(2, 3, size, size // 2, 1, 1)
    return patches.expand(-1, -1, -1, -1, 2, -1).reshape(2, 3, size, size)


@pytest.mark.parametrize("tokens", [8, 9])
def test_joining_is_what_the_paper_says(tokens: int) -> None:
    """Against loops over tokens: the most alike pairs between even and odd ones, means weighted by sizes."""
    torch.manual_seed(0)
    x, like, size = torch.randn(2, tokens, 3), torch.randn(2, tokens, 5), torch.randint(1, 4, (2, tokens)).float()
    flow = Flow(size=size, origin=torch.arange(tokens).expand(2, -1))
    got, _ = joined(flow, x, like, 3)
    for row in range(2):
        unit = like[row] / like[row].norm(dim=1, keepdim=True)
        mates = {i: max(range(1, tokens, 2), key=lambda j, i=i: float(unit[i] @ unit[j])) for i in range(0, tokens, 2)}
        gone = sorted(mates, key=lambda i: -float(unit[i] @ unit[mates[i]]))[:3]
        for token in range(tokens):
            end = mates[token] if token in gone else token
            members = [end, *(i for i in gone if mates[i] == end)]
            weight = size[row, members]
            want = (x[row, members] * weight[:, None]).sum(0) / weight.sum()
            place = int(flow.origin[row, token])
            torch.testing.assert_close(got[row, place], want)
            assert float(flow.size[row, place]) == float(weight.sum())


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: small(cls=True), 8),
        (small, 8),
        (lambda: of_transformers("ViTForImageClassification"), 16),
        (lambda: of_transformers("ViTForImageClassification", attn_implementation="eager"), 16),
        (lambda: of_transformers("DeiTForImageClassification"), 16),
    ],
    ids=["class token", "mean", "vit", "vit, eager", "deit"],
)
def test_equal_tokens_are_joined_without_any_loss(make: Callable[[], nn.Module], size: int) -> None:
    """Only if every attention is told that a token stands for two, and a mean counts it twice."""
    net = make()
    images = doubled(net, size)
    shape = shape_of(net, [images[:1]], {}, "net")
    fewer = merged(net, shape, Schedule((1,), (shape.tokens // 2,)))
    with torch.no_grad():
        want = net(images)
        got, told = fewer.told(images)
        assert told == len(shape.blocks) - 1
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
        other = images + torch.randn_like(images)
        assert (fewer(other) - net(other)).abs().max() > 1e-3 * want.abs().max()


@pytest.mark.parametrize(
    ("make", "size"),
    [(lambda: small(whole=True), 8), (lambda: of_transformers("DeiTForImageClassification"), 16)],
    ids=["each token", "deit"],
)
def test_its_graph_computes_the_same_with_fixed_shapes(make: Callable[[], nn.Module], size: int) -> None:
    net, images = make(), torch.randn(4, 3, size, size)
    shape = shape_of(net, [images[:1]], {}, "net")
    fewer = merged(net, shape, Schedule((1, 2), (9, 5))).eval()
    proto = lower_module(fewer, {"x": images[:1].numpy()}, ["y"])
    assert not {"Loop", "If", "NonZero", "Scan"} & {node.op_type for node in proto.graph.node}
    got = np.concatenate([out[0] for out in onnxkit.run(onnxkit.pack(proto), [{"x": i[None].numpy()} for i in images])])
    with torch.no_grad():
        want = fewer(images).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_networks_that_need_every_token_are_refused_with_what_would_help() -> None:
    swin = of_transformers("SwinForImageClassification", image_size=32, patch_size=2, embed_dim=16, depths=[2, 2],
                           num_heads=[2, 4], num_attention_heads=[2, 4], window_size=4)  # fmt: skip
    with pytest.raises(RefusedError, match=r"grids of several sizes .* as in Swin; stvit takes such"):
        shape_of(swin, [torch.zeros(1, 3, 32, 32)], {}, "swin")
    flat = of_transformers("SwinForImageClassification", image_size=32, patch_size=2, embed_dim=16, depths=[2],
                           num_heads=[2], num_attention_heads=[2], window_size=4)  # fmt: skip
    example = [torch.zeros(1, 3, 32, 32)]
    shape = shape_of(flat, example, {}, "swin")
    with pytest.raises(RefusedError, match=r"swin does not take fewer tokens than it was built for \(.*\); windows"):
        checked(merged(flat, shape, Schedule((1,), (100,))), flat, example, "swin")


def test_schedules_are_checked_and_completed() -> None:
    assert said((), (32, 16), 64, 6, "m") == Schedule((2, 4), (32, 16))
    assert said((1, 5), (), 64, 6, "m") == Schedule((1, 5), (32, 16))
    assert Schedule((2, 4), (32, 16)).counts(64, 6) == [64, 64, 32, 32, 16, 16]
    for at, keep, reason in (
        ((1,), (32, 16), "at names 1 blocks and keep 2 counts"),
        ((6,), (32,), r"at=6 does not fit; .* 6 blocks, .* after 1 to 5"),
        ((4, 2), (32, 16), "in rising order"),
        ((2,), (64,), r"keep=64 does not fit; the network has 64 tokens"),
        ((2, 4), (16, 32), "fewer must stay each time"),
    ):
        with pytest.raises(RecipeError, match=reason):
            said(at, keep, 64, 6, "m")
    for family in (halving(64, 6), steady(64, 6)):
        assert len(family) > 10
        assert all(said(each.at, each.keep, 64, 6, "m") == each for each in family)


def test_it_says_what_it_did_and_what_it_could_not_tell(rig: Rig) -> None:
    vits = rig_with(rig, small())
    model, context = vits.models("torch")["vit"], vits.context("vit", "told")
    decision = TOKEN_MERGE.decide(model, Params(keep=(32, 16), at=(1, 2)), context)
    assert json.loads(json.dumps(decision)) == decision
    fitted = TOKEN_MERGE.fit(TOKEN_MERGE.rewrite(model, decision), decision, context)
    again = revived(shelved(fitted, context), TOKEN_MERGE.rewrite(model, decision), "key")
    assert again.digest == sealed(fitted, "key").digest
    assert fitted.history[-1].notes == (
        "64 tokens, 32 after block 1, 16 after block 2",
        "alike by their keys; 3 of 3 attentions weigh tokens by how many they stand for",
    )
    assert TOKEN_MERGE.check(model, rig.target) is None
    conv = replace(model, variants=rig.models("torch")["torch"].variants)
    assert "has no attention" in TOKEN_MERGE.check(conv, rig.target).reason
