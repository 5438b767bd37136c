"""Anatomy: networks of our own with known parts, what a user may say of them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from edgewright.errors import RefusedError, TaskError
from edgewright.torchkit.anatomy import Attention, Head, Mlp, TokenGrid, examine

torch = pytest.importorskip("torch")

from torch import Tensor, fx, nn  # noqa: E402 - torch is optional
from torch.nn import functional  # noqa: E402

IMAGES = torch.zeros(2, 3, 32, 32)


class FusedAttention(nn.Module):
    """Attention as timm writes it; `fast` calls torch's own operator for it."""

    def __init__(self, width: int, heads: int, fast: bool) -> None:
        super().__init__()
        self.heads, self.fast = heads, fast
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fast:
            x = functional.scaled_dot_product_attention(query, key, value)
        else:
            x = (query @ key.transpose(-2, -1) * 0.5).softmax(-1) @ value
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))


class TwoLayers(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, fast: bool) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), FusedAttention(width, heads, fast)
        self.norm2, self.mlp = nn.LayerNorm(width), TwoLayers(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """With timm's names: patch_embed.proj, cls_token, pos_embed, blocks, norm, head."""

    def __init__(self, *, prefix: int = 1, fast: bool = True, mean: bool = False) -> None:
        super().__init__()
        self.prefix, self.mean = prefix, mean
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, 24, 8, 8)
        self.cls_token = nn.Parameter(torch.randn(1, prefix, 24))
        self.pos_embed = nn.Parameter(torch.randn(1, 16 + prefix, 24))
        self.blocks = nn.Sequential(*[EncoderBlock(24, 3, fast) for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        x = self.norm(self.blocks(x))
        return self.head(x[:, self.prefix :].mean(1) if self.mean else x[:, 0])


class BasicBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        shortcut = [nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)]
        self.shortcut = nn.Sequential(*(shortcut if stride > 1 else []))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        stages = [nn.Sequential(BasicBlock(*w), *(BasicBlock(w[1], w[1], 1) for _ in range(2))) for w in widths]
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(10, 8)
        self.lstm1, self.lstm2 = nn.LSTM(8, 8, batch_first=True), nn.LSTM(8, 12, batch_first=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm2(self.lstm1(self.emb(x))[0])[0][:, -1])


class RawBlock(nn.Module):
    """A block that keeps all its weights to itself, and shares keys and values between heads."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"wq": (16, 16), "wkv": (16, 16), "wo": (16, 16), "w1": (16, 24), "w2": (24, 16)}
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(size)))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        query = (x @ self.wq).view(batch, tokens, 4, 4).transpose(1, 2).reshape(-1, tokens, 4)
        shared = (x @ self.wkv).view(batch, tokens, 2, 2, 4).repeat_interleave(2, 3)
        key, value = shared.permute(2, 0, 3, 1, 4).reshape(2, -1, tokens, 4)
        mixed = torch.bmm(torch.bmm(query, key.transpose(1, 2)).softmax(-1), value)
        x = x + mixed.view(batch, 4, tokens, 4).transpose(1, 2).reshape(batch, tokens, width) @ self.wo
        return x + functional.relu(x @ self.w1) @ self.w2


def vgg(*, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, width in [(3, 8), (8, 8), (8, 16), (16, 16)]:
        layers += [nn.Conv2d(before, width, 3, padding=1), *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU(True)]
        layers += [nn.MaxPool2d(2)] if before == width else []
    head = nn.Sequential(nn.Linear(16 * 8 * 8, 20), nn.ReLU(), nn.Linear(20, 10))
    return nn.Sequential(nn.Sequential(*layers), nn.Flatten(), head)


# ------------------------------------------------------------------ what is found


@pytest.mark.parametrize("fast", [True, False])
def test_a_transformer_with_fused_projections(fast: bool) -> None:
    found = examine(VisionTransformer(fast=fast), (IMAGES,))
    assert [block.path for block in found.blocks] == ["blocks.0", "blocks.1", "blocks.2"]
    block = found.blocks[1]
    qkv = "blocks.1.attn.qkv"
    assert block.attention == Attention("blocks.1.attn", qkv, qkv, qkv, "blocks.1.attn.proj", 3, 3, 8, 8)
    assert block.attention.fused
    assert block.mlp == Mlp("blocks.1.mlp", "blocks.1.mlp.fc1", "blocks.1.mlp.fc2", 96)
    assert block.norms == ("blocks.1.norm1", "blocks.1.norm2")
    assert (block.kind, block.end, block.stage, block.out_shape) == ("transformer", "blocks.1", 0, (2, 17, 24))
    assert found.stem == ("patch_embed.proj",)
    assert found.head == Head(("head",), ("norm",), "token", (0,))
    assert found.tokens == TokenGrid(17, 24, "tokens", 1, (4, 4))


def test_prefix_tokens_are_told_from_the_mean_over_patches() -> None:
    found = examine(VisionTransformer(prefix=3, mean=True), (IMAGES,))
    assert found.tokens == TokenGrid(19, 24, "tokens", 3, (4, 4))
    assert found.head == Head(("head",), ("norm",), "all", tuple(range(3, 19)))


def test_a_resnet_has_one_stage_per_map_size() -> None:
    found = examine(ResNet20(), (IMAGES,))
    assert [block.path for block in found.blocks] == [f"layer{s}.{b}" for s in (1, 2, 3) for b in range(3)]
    assert [block.stage for block in found.blocks] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {block.kind for block in found.blocks} == {"conv"}
    assert found.blocks[3].layers == ("layer2.0.conv1", "layer2.0.conv2", "layer2.0.shortcut.0")
    assert found.blocks[3].norms == ("layer2.0.bn1", "layer2.0.bn2", "layer2.0.shortcut.1")
    assert [(stage.width, stage.grid) for stage in found.stages] == [(16, (32, 32)), (32, (16, 16)), (64, (8, 8))]
    assert found.tokens is None
    assert (found.stem, found.head) == (("conv1", "bn1"), Head(("fc",), (), "all"))


@pytest.mark.parametrize(("norm", "paths"), [(False, "0.0 0.2 0.5 0.7"), (True, "0.0 0.3 0.7 0.10")])
def test_a_plain_chain_of_convolutions(norm: bool, paths: str) -> None:
    found = examine(vgg(norm=norm), (IMAGES,))
    assert [block.path for block in found.blocks] == paths.split()
    ends = [int(block.end.split(".")[1]) - int(block.path.split(".")[1]) for block in found.blocks]
    assert ends == [2 if norm else 1] * 4, "each convolution ends with its activation, before the pooling"
    assert [block.stage for block in found.blocks] == [0, 0, 1, 1]
    assert found.head == Head(("2.2",), ("2.0",), "flatten")


def test_blocks_of_plain_sequences() -> None:
    def part(before: int, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())

    net = nn.Sequential(part(3, 8), part(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    assert [block.path for block in examine(net, (IMAGES,)).blocks] == ["0", "1"]


@pytest.mark.parametrize(("batch_first", "layout"), [(True, "tokens"), (False, "tokens_first")])
def test_torch_encoder_layers(batch_first: bool, layout: str) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=batch_first)
    net = nn.Sequential(nn.Linear(6, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    found = examine(net, (torch.zeros(*((1, 5) if batch_first else (5, 1)), 6),))
    assert found.blocks[0].attention is not None
    assert found.blocks[0].attention.query == "1.layers.0.self_attn.in_proj_weight"
    assert found.blocks[0].attention.output == "1.layers.0.self_attn.out_proj"
    assert found.blocks[0].attention.heads == 4
    assert found.blocks[0].mlp == Mlp("1.layers.0", "1.layers.0.linear1", "1.layers.0.linear2", 32)
    assert found.tokens == TokenGrid(5, 16, layout)
    assert found.head is None


def test_weights_that_no_layer_holds() -> None:
    found = examine(nn.Sequential(RawBlock(), RawBlock()), (torch.randn(2, 5, 16),))
    assert found.blocks[1].attention == Attention("1", "1.wq", "1.wkv", "1.wkv", "1.wo", 4, 2, 4, 4)
    assert found.blocks[1].mlp == Mlp("1", "1.w1", "1.w2", 24)


def test_one_block_that_runs_several_times() -> None:
    class Looped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([EncoderBlock(24, 3, fast=True)])
            self.fc = nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = self.layers[0](x)
            return self.fc(x)

    found = examine(Looped(), (torch.randn(1, 4, 24),))
    assert [(block.path, block.calls) for block in found.blocks] == [("layers.0", 3)]
    assert found.head == Head(("fc",), (), "each")


def test_the_network_is_left_as_it_was() -> None:
    net = VisionTransformer()
    net.norm.eval()
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in net.state_dict().items()}
    examine(net, (IMAGES,))
    assert torch.equal(torch.get_rng_state(), state)
    assert [name for name, each in net.named_modules() if not each.training] == ["norm"]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


# ------------------------------------------------------------------ what is said and refused


@pytest.mark.parametrize(
    ("net", "example"),
    [
        (Recurrent(), torch.ones(2, 5, dtype=torch.long)),
        (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(2, 4)),
    ],
)
def test_what_has_no_blocks_is_refused_with_the_form_of_a_description(net: nn.Module, example: Tensor) -> None:
    with pytest.raises(RefusedError, match=r"cannot be told: looked for .* `anatomy` entry, like \{\"blocks\""):
        examine(net, (example,))


def test_a_flat_graph_is_refused_unless_it_is_a_chain() -> None:
    with pytest.raises(RefusedError, match="flat graph, which calls its layers alone: give the network as a torch"):
        examine(fx.symbolic_trace(ResNet20()), (IMAGES,))
    chain = examine(fx.symbolic_trace(vgg(norm=True)), (IMAGES,))
    assert [block.path for block in chain.blocks] == ["0.0", "0.3", "0.7", "0.10"]


def test_a_description_makes_blocks_of_what_has_none() -> None:
    found = examine(Recurrent(), (torch.ones(2, 5, dtype=torch.long),), {"blocks": ["lstm1", "lstm2"], "head": "fc"})
    assert [(block.path, block.kind, block.out_shape) for block in found.blocks] == [
        ("lstm1", "other", (2, 5, 8)),
        ("lstm2", "other", (2, 5, 12)),
    ]
    assert found.head == Head(("fc",), (), "token", (4,))


def test_a_description_wins_over_what_is_found() -> None:
    said = {
        "blocks": "blocks.*",
        "attention": "attn.proj",
        "qkv": "attn.qkv",
        "heads": 6,
        "mlp": ["mlp.fc2", "mlp.fc1"],
        "norms": "norm2",
        "stem": ["norm"],
        "head": "norm",
        "grid": [2, 8],
        "prefix_tokens": 0,
    }
    found = examine(VisionTransformer(), (IMAGES,), said)
    qkv = "blocks.2.attn.qkv"
    assert found.blocks[2].attention == Attention("blocks.2.attn.proj", qkv, qkv, qkv, "blocks.2.attn.proj", 6, 6, 4, 4)
    assert found.blocks[2].mlp == Mlp("blocks.2.mlp", "blocks.2.mlp.fc2", "blocks.2.mlp.fc1", 24)
    assert found.blocks[2].norms == ("blocks.2.norm2",)
    assert (found.stem, found.head and found.head.outputs) == (("norm",), ("norm",))
    assert found.tokens == TokenGrid(17, 24, "tokens", 0, (2, 8))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"blocks": "block.*"}, r"blocks 'block\.\*'.*no such modules; allowed: .*did you mean 'blocks'"),
        ({"query": "attn.qkv"}, "name all three, or `qkv`"),
        ({"qkv": "attn.q"}, r"query 'blocks\.0\.attn\.q'.*did you mean 'blocks\.0\.attn\.qkv'"),
        ({"mlp": ["mlp.fc1", "mlp.act"]}, r"'blocks\.0\.mlp\.act', where the example used no weight; .*fc2"),
        ({"norms": ["norm3"]}, r"norms 'blocks\.0\.norm3'.*did you mean 'blocks\.0\.norm"),
        ({"head": "heads"}, r"'heads', and the network has no such module; .*did you mean 'head'"),
        ({"hed": "head"}, r"has 'hed'; allowed: .*did you mean 'head'"),
        ({"mlp": ["fc1"]}, r"mlp = \['fc1'\], which has another form there"),
        ({"grid": [0, 3]}, "grid = "),
        ({"heads": "three"}, "heads = 'three'"),
        ({"blocks": "patch_embed"}, "the block 'patch_embed', which the example did not run"),
    ],
)
def test_a_wrong_description_gets_one_clear_sentence(said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TaskError, match=sentence):
        examine(VisionTransformer(), (IMAGES,), said)
