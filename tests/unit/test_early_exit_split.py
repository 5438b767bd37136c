"""Chains cut from networks of all kinds compute what the networks do, and their stages hold only what is theirs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edgewright.errors import RefusedError
from edgewright.types import Model, Signature, Stage, TensorSpec, TorchGraph, Variant

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from edgewright import onnxkit  # noqa: E402
from edgewright.deploying.trained import shelved  # noqa: E402
from edgewright.store import Store  # noqa: E402
from edgewright.torchkit.anatomy import Anatomy, examine  # noqa: E402
from edgewright_plugins.early_exit import Params  # noqa: E402
from edgewright_plugins.early_exit.build import example_of, module_of  # noqa: E402
from edgewright_plugins.early_exit.choice import Choice, family_of, to_json  # noqa: E402
from edgewright_plugins.early_exit.heads import lgvit, perceiver  # noqa: E402
from edgewright_plugins.early_exit.job import rewrite  # noqa: E402
from edgewright_plugins.early_exit.net import MultiExit, Seen  # noqa: E402
from edgewright_plugins.early_exit.side import Cut  # noqa: E402
from edgewright_plugins.lower.stages import lower_stages, with_free_rows  # noqa: E402


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Residual(nn.Module):
    """A block that changes its input in place, as many do, and may give its result in a tuple."""

    def __init__(self, narrow: int, wide: int, *, pair: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, 1 if narrow == wide else 2, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(wide), nn.ReLU(inplace=True)
        self.conv2, self.pair = nn.Conv2d(wide, wide, 3, 1, 1), pair

    def forward(self, x: Any) -> Any:
        x = self.relu(x[0] if self.pair and isinstance(x, tuple) else x)
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        if y.shape == x.shape:
            y += x
        return (y, x.mean()) if self.pair else y


class ResNet(nn.Module):
    """Three resolutions of two blocks; `soft` ends in probabilities."""

    def __init__(self, *, pair: bool = False, soft: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        widths = [8, 8, 8, 16, 16, 24, 24]
        self.blocks = nn.ModuleList(Residual(*each, pair=pair) for each in pairwise(widths))
        self.fc, self.pair, self.soft = nn.Linear(24, 5), pair, soft

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits = self.fc((x[0] if self.pair else x).mean((2, 3)))
        return logits.softmax(1) if self.soft else logits


class Masked(nn.Module):
    """Every block looks at the model's input; the head of a `dense` one also sees what all blocks gave."""

    def __init__(self, *, dense: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12)) for _ in range(4))
        self.head, self.dense = nn.Linear(12, 5), dense

    def forward(self, x: Any) -> Any:
        mask, total = (x[..., :1] > 0).float(), torch.zeros_like(x)
        for block in self.blocks:
            x = block(x + mask)
            total = total + x
        return self.head((total if self.dense else x).mean(1))


def plain_chain() -> nn.Module:
    """Convolutions alone, with ReLUs in place."""
    layers: list[nn.Module] = []
    for narrow, wide in pairwise((3, 8, 16, 16, 24)):
        layers += [nn.Conv2d(narrow, wide, 3, 1, 1), nn.BatchNorm2d(wide), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 5))


def transformers_net(kind: str) -> nn.Module:
    """A small one with random weights."""
    transformers = pytest.importorskip("transformers")
    common: dict[str, Any] = {"image_size": 16, "num_labels": 5}
    if kind == "Swin":
        config = transformers.SwinConfig(
            patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, **common
        )
    else:
        config = getattr(transformers, f"{kind}Config")(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, patch_size=4, **common
        )
    return getattr(transformers, f"{kind}ForImageClassification")(config)


def model_of(net: nn.Module, *shape: int, output: str = "logits") -> Model:
    """The network as a model that has not been changed yet; batch norms have seen something."""
    example = torch.randn(*shape)
    net.train()
    with torch.no_grad():
        net(torch.randn(8, *shape[1:]))
    net.eval()
    taken, given = TensorSpec("x", "float32", shape), TensorSpec(output, "float32", (shape[0], 5))
    stage = Stage("main", TorchGraph(net, "net"), ("x",), (output,))
    return Model("net", Signature((taken,), (given,)), (Variant("main", (stage,)),), {"x": example.numpy()})


def anatomy_of(model: Model) -> Anatomy:
    return examine(module_of(model), example_of(model))


def chain_of(model: Model, family: str, blocks: tuple[int, ...] = (), **asked: Any) -> Model:
    """The model, cut behind these blocks."""
    anatomy = anatomy_of(model)
    cuts = tuple(Cut(anatomy.blocks[number - 1].end) for number in blocks) or perceiver.cuts(anatomy)
    kinds = lgvit.kinds(len(blocks)) if family == "lgvit" else ()
    return rewrite(model, to_json(Choice(Params(**asked), family, cuts, kinds, blocks)))


def run(model: Model, x: Any) -> list[tuple[Any, ...]]:
    """What each stage returns, in torch."""
    returned: list[tuple[Any, ...]] = []
    carried: tuple[Any, ...] = ()
    for stage in model.stages:
        with torch.no_grad():
            returned.append(stage.graph.module(*((x,) if stage.inputs else ()), *carried))
        assert len(returned[-1]) == len(stage.returns)
        carried = returned[-1][len(stage.outputs) : len(stage.outputs) + len(stage.carry)]
    return returned


def seen_by(model: Model, x: Any) -> Seen:
    with torch.no_grad():
        return model.stages[0].graph.module.chain.net(x)


@pytest.mark.parametrize(
    ("net", "shape", "family", "blocks"),
    [
        (lambda: transformers_net("ViT"), (1, 3, 16, 16), "lgvit", (1, 3)),
        (lambda: transformers_net("DeiT"), (2, 3, 16, 16), "lgvit", (1, 2, 3)),
        (lambda: transformers_net("Swin"), (1, 3, 16, 16), "lgvit", (1, 2, 3)),
        (ResNet, (2, 3, 16, 16), "linear", (2, 4, 5)),
        (ResNet, (1, 3, 16, 16), "perceiver", ()),
        (lambda: ResNet(pair=True), (1, 3, 16, 16), "linear", (1, 4)),
        (plain_chain, (1, 3, 16, 16), "linear", (1, 2, 3)),
    ],
    ids=["vit", "deit", "swin", "resnet", "perceiver", "tuples", "convolutions"],
)
def test_the_stages_answer_what_the_net_does(net, shape, family, blocks):
    model = model_of(net(), *shape)
    chain = chain_of(model, family, blocks)
    assert [stage.name for stage in chain.stages] == [*(f"exit{k + 1}" for k in range(len(chain.stages) - 1)), "final"]
    assert [stage.inputs for stage in chain.stages] == [("x",), *[()] * (len(chain.stages) - 1)]
    x = torch.randn(*shape)
    seen, returned = seen_by(chain, x), run(chain, x)
    for found, wanted in zip(returned, seen.logits, strict=True):
        torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        own = module_of(model)(x)
    torch.testing.assert_close(seen.own, own if isinstance(own, torch.Tensor) else own.logits, rtol=1e-5, atol=1e-6)
    assert len({stage.graph.digest for stage in chain.stages}) == len(chain.stages)


def test_lowered_stages_hold_their_own_weights_and_the_store_keeps_one_file(tmp_path):
    model = model_of(ResNet(), 1, 3, 16, 16)
    chain = chain_of(model, "linear", (2, 4), gate="patience")
    store = Store(tmp_path)
    assert len({stage.graph.digest for stage in shelved(chain, store).stages}) == 1
    (variant,), worst = lower_stages(chain, store.keep)
    assert worst.max_rel < 1e-4
    protos = [onnxkit.read(stage.graph) for stage in variant.stages]
    for stage, proto, before in zip(variant.stages, protos, [(), *(s.carry for s in variant.stages)], strict=False):
        assert tuple(value.name for value in proto.graph.input) == (*stage.inputs, *before)
        assert tuple(value.name for value in proto.graph.output) == stage.returns
    held = [sum(int(np.prod(i.dims)) for i in proto.graph.initializer) for proto in protos]
    weights = sum(p.numel() for p in chain.stages[0].graph.module.chain.parameters())
    assert weights * 0.95 < sum(held) < weights * 1.05
    assert [sum(node.op_type == "Conv" for node in proto.graph.node) for proto in protos] == [5, 4, 4]
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    (found,) = onnxkit.run_stages(variant, [{"x": x}])
    np.testing.assert_allclose(found["logits"], seen_by(chain, torch.from_numpy(x)).own.numpy(), rtol=1e-4, atol=1e-5)
    assert found["score"] in (1.0, 2.0)


def test_later_stages_are_given_the_inputs_that_they_need():
    chain = chain_of(model_of(Masked(), 1, 6, 12), "linear", (1, 3))
    assert [stage.inputs for stage in chain.stages] == [("x",)] * 3
    x = torch.randn(1, 6, 12)
    torch.testing.assert_close(run(chain, x)[-1][0], seen_by(chain, x).own)


def test_a_network_that_hands_on_more_than_its_blocks_give_is_refused():
    model = model_of(Masked(dense=True), 1, 6, 12)
    for example in (model.example, {"x": np.zeros((1, 6, 12), np.float32)}):
        with pytest.raises(RefusedError, match="cannot be cut after its blocks"):
            chain_of(replace(model, example=example), "linear", (2,))


def test_names_of_the_model_are_not_taken_again():
    chain = chain_of(model_of(ResNet(), 1, 3, 16, 16, output="score"), "linear", (2,))
    assert chain.stages[0].returns == ("score", "hidden_1", "score_")
    assert chain.stages[0].gate.score == "score_"


def test_exits_of_a_network_that_gives_probabilities_give_them_too():
    chain = chain_of(model_of(ResNet(soft=True), 1, 3, 16, 16), "linear", (2,))
    answer, _, score = run(chain, torch.randn(1, 3, 16, 16))[0]
    assert float(answer.sum()) == pytest.approx(1)
    assert float(score) == pytest.approx(float(answer.max()))


def test_a_frozen_backbone_stays_as_it_is():
    net = chain_of(model_of(ResNet(), 1, 3, 16, 16), "linear", (2, 4)).stages[0].graph.module.chain.net
    net.freeze()
    net.train()
    before = {name: tensor.clone() for name, tensor in net.backbone.state_dict().items()}
    torch.stack([logits.square().mean() for logits in net(torch.randn(4, 3, 16, 16)).logits[:-1]]).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.backbone.state_dict().items())
    assert all(p.grad is None for p in net.backbone.parameters())
    assert all(p.grad is not None for p in net.sides.parameters())
    assert net.sides.training
    assert not net.backbone.training


@pytest.mark.parametrize("last", [nn.Linear(4, 1), nn.Unflatten(1, (2, 2))])
def test_what_is_no_classifier_is_refused(last):
    backbone = nn.Sequential(nn.Linear(4, 4), last)
    with pytest.raises(RefusedError, match=r"one output \[n, classes\]"):
        MultiExit(backbone, [], [], last="0")(torch.randn(2, 4))


def test_a_cut_that_the_network_does_not_come_by_is_refused():
    backbone = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 5))
    with pytest.raises(RefusedError, match=r"no module 'blocks\.7' to cut at"):
        MultiExit(backbone, [Cut("blocks.7")], [nn.Identity()], last="0")(torch.randn(2, 4))
    with pytest.raises(RefusedError, match="1 cuts for 0 heads"):
        MultiExit(backbone, [Cut("0")], [], last="0")


def test_the_heads_that_fit_are_chosen_and_others_refused():
    vit = anatomy_of(model_of(transformers_net("ViT"), 1, 3, 16, 16))
    resnet, masked = anatomy_of(model_of(ResNet(), 1, 3, 16, 16)), anatomy_of(model_of(Masked(), 1, 6, 12))
    assert [family_of(Params(), each) for each in (vit, resnet, masked)] == ["lgvit", "linear", "linear"]
    assert family_of(Params(heads="perceiver"), resnet) == "perceiver"
    assert family_of(Params(heads="lgvit"), resnet) == "lgvit"
    assert family_of(Params(at=(2,)), resnet) == "linear"
    with pytest.raises(RefusedError, match=r"heads=perceiver needs .* choose heads=lgvit or heads=linear"):
        family_of(Params(heads="perceiver"), vit)
    with pytest.raises(RefusedError, match=r"heads=perceiver .*leave out exits and at"):
        family_of(Params(heads="perceiver", exits=2), resnet)
    with pytest.raises(RefusedError, match=r"heads=lgvit needs .* choose heads=linear"):
        family_of(Params(heads="lgvit"), masked)


class Reshaped(nn.Module):
    """Counts its rows in Python."""

    def forward(self, x: Any) -> Any:
        return x.reshape(3, 2, -1).sum(1)


def test_later_stages_take_any_number_of_rows_where_they_can():
    chain = chain_of(model_of(plain_chain(), 3, 3, 16, 16), "linear", (3,))
    (_, hidden, _), (wanted,) = run(chain, torch.randn(3, 3, 16, 16))
    proto = with_free_rows(chain.stages[1].graph.module, {"hidden": hidden.numpy()}, ["logits"])
    assert onnxkit.tensor_spec(proto.graph.input[0]).shape == ("rows", 16, 4, 4)
    for rows in (1, 2, 3):
        ((found,),) = onnxkit.run(onnxkit.pack(proto), [{"hidden": hidden[:rows].numpy()}])
        np.testing.assert_allclose(found, wanted[:rows].numpy(), rtol=1e-4, atol=1e-5)
    assert with_free_rows(Reshaped(), {"x": np.zeros((3, 4), np.float32)}, ["y"]) is None
