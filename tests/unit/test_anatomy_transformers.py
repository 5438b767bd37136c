"""Anatomy: networks of the transformers library, small and with random weights, their parts by name and number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from edgewright.torchkit.anatomy import Anatomy, Attention, TokenGrid, examine

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SEPARATE = "attention attention.q_proj attention.k_proj attention.v_proj attention.o_proj"
NESTED = "attention attention.self.query attention.self.key attention.self.value attention.output.dense"
SELF = "self_attn self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj"
CLIP = "self_attn self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj"
GATED = "mlp mlp.up_proj mlp.down_proj mlp.gate_proj"
BERT_MLP = " intermediate.dense output.dense"

VISION: Mapping[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
TEXT: Mapping[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT: Mapping[str, Any] = {"vocab_size": 40, "hidden_size": 16, "bos_token_id": 1, "eos_token_id": 2}


def tokens(count: int, prefix: int = 0, grid: tuple[int, ...] | None = None, width: int = 16) -> TokenGrid:
    return TokenGrid(count, width, "tokens", prefix, grid)


def map_of(size: int, width: int) -> TokenGrid:
    return TokenGrid(size * size, width, "map", 0, (size, size))


@dataclass(frozen=True)
class Case:
    """A network and its parts: paths of the blocks, and of the last block's attention and MLP from the block on."""

    model: str
    config: str
    settings: Mapping[str, Any]
    blocks: tuple[str, ...]
    attention: str
    mlp: str
    head: tuple[Any, ...]
    stages: tuple[TokenGrid, ...]
    heads: tuple[int, int, int, int] = (2, 2, 8, 8)
    hidden: int = 32
    image: int = 32
    norms: int = 2


def under(path: str, count: int = 2) -> tuple[str, ...]:
    return tuple(f"{path}.{index}" for index in range(count))


def staged(path: str, depths: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(path.format(stage, block) for stage, depth in enumerate(depths) for block in range(depth))


PLAIN_GRID = (tokens(17, 1, (4, 4)),)
FIRST = ("token", (0,))
PATCHES = ("all", tuple(range(1, 17)))
TAUGHT = ("cls_classifier distillation_classifier", "token", (0, 1))
DINO = "dinov2_with_registers.encoder.layer"
REGISTERED = ("classifier", "all", (0, *range(5, 21)))
LM = ("lm_head", "each", ())
CLASSIFY = "ForSequenceClassification"
SHARED = {**TEXT, "num_key_value_heads": 2}
PYRAMID = (tokens(256, 0, (16, 16), 8), tokens(64, 0, (8, 8)), tokens(16, 0, (4, 4)))
SIZES = {"hidden_sizes": [8, 16, 16, 16], "depths": [2, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2]}


def vision(name: str, task: str, blocks: str, head: tuple[Any, ...], *stages: TokenGrid, **settings: Any) -> Case:
    """A plain vision transformer as the library writes most of them."""
    config = {**VISION, **settings}
    return Case(name + task, f"{name}Config", config, under(blocks), SEPARATE, "mlp mlp.fc1 mlp.fc2", head, stages)


def text(
    name: str, task: str, blocks: str, attention: str, mlp: str, head: tuple[Any, ...], *heads: int, **settings: Any
) -> Case:
    """A network on six tokens of text; `hidden` among the settings is the width within its MLP."""
    hidden = settings.pop("hidden", 32)
    model, config = name + task, f"{name}Config"
    sizes: Any = heads or (4, 4, 4, 4)
    return Case(model, config, settings, under(blocks), attention, mlp, head, (tokens(6),), sizes, hidden, image=0)


CASES = [
    vision("ViT", "ForImageClassification", "vit.layers", ("classifier", *FIRST), *PLAIN_GRID),
    vision("DeiT", "ForImageClassificationWithTeacher", "deit.layers", TAUGHT, tokens(18, 2, (4, 4))),
    vision("Beit", "ForImageClassification", "beit.layers", ("classifier", *PATCHES), *PLAIN_GRID),
    vision("Dinov2WithRegisters", "ForImageClassification", DINO, REGISTERED, tokens(21, 5, (4, 4)), mlp_ratio=2),
    vision("ViTMAE", "Model", "layers", (), tokens(5, 1)),
    Case(
        "SwinForImageClassification",
        "SwinConfig",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        staged("swin.encoder.layers.{}.blocks.{}", (2, 2)),
        SEPARATE,
        "mlp mlp.fc1 mlp.fc2",
        ("classifier", "all", tuple(range(64))),
        (tokens(256, 0, (16, 16)), tokens(64, 0, (8, 8), 32)),
        heads=(4, 4, 8, 8),
        hidden=128,
    ),
    Case(
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        VISION,
        under("data2vec_vision.encoder.layer"),
        NESTED.replace("self", "attention"),
        BERT_MLP,
        ("classifier", *PATCHES),
        PLAIN_GRID,
    ),
    Case(
        "CLIPVisionModel",
        "CLIPVisionConfig",
        VISION,
        under("encoder.layers"),
        CLIP,
        "mlp mlp.fc1 mlp.fc2",
        (),
        PLAIN_GRID,
    ),
    Case(
        "PvtForImageClassification",
        "PvtConfig",
        {**SIZES, "image_size": 64},
        staged("pvt.encoder.block.{}.{}", (2, 1, 1, 1)),
        NESTED,
        "mlp mlp.dense1 mlp.dense2",
        ("classifier", *FIRST),
        (*PYRAMID, tokens(5, 1, (2, 2))),
        hidden=64,
        image=64,
    ),
    Case(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {**SIZES, "decoder_hidden_size": 16},
        staged("segformer.stages.{}.blocks.{}", (2, 1, 1, 1)),
        SEPARATE,
        "mlp mlp.fc1 mlp.fc2",
        ("decode_head.classifier", "each", ()),
        (*PYRAMID, tokens(4, 0, (2, 2))),
        hidden=64,
        image=64,
    ),
    Case(
        "LevitForImageClassification",
        "LevitConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 32],
            "num_attention_heads": [2, 4, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        (*staged("levit.encoder.stages.{}.layers.{}", (4, 4)), *under("levit.encoder.stages.2.layers")),
        "",
        "module module.linear_up.linear module.linear_down.linear",
        ("classifier.linear", "all", ()),
        (tokens(16, 0, (4, 4)), tokens(4, 0, (2, 2), 32), tokens(1, 0, (1, 1), 32)),
        hidden=64,
        image=64,
    ),
    Case(
        "MobileViTForImageClassification",
        "MobileViTConfig",
        {
            "image_size": 64,
            "hidden_sizes": [16, 20, 24],
            "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32],
            "num_attention_heads": 2,
        },
        (
            "mobilevit.encoder.layer.0.layer.0",
            *under("mobilevit.encoder.layer.1.layer", 3),
            "mobilevit.encoder.layer.2.downsampling_layer",
            *under("mobilevit.encoder.layer.2.transformer.layer"),
            "mobilevit.encoder.layer.3.downsampling_layer",
            *under("mobilevit.encoder.layer.3.transformer.layer", 4),
            "mobilevit.encoder.layer.4.downsampling_layer",
            *under("mobilevit.encoder.layer.4.transformer.layer", 3),
        ),
        NESTED.replace("self", "attention"),
        BERT_MLP,
        ("classifier", "all", ()),
        (
            map_of(32, 8),
            map_of(16, 16),
            map_of(8, 16),
            tokens(16, 0, (4, 4)),
            map_of(4, 16),
            tokens(4, 0, (2, 2), 20),
            map_of(2, 16),
            tokens(1, 0, (1, 1), 24),
        ),
        heads=(2, 2, 12, 12),
        hidden=48,
        image=64,
    ),
    Case(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16], "depths": [2, 3], "num_stages": 2},
        staged("convnext.encoder.stages.{}.layers.{}", (2, 3)),
        "",
        " pwconv1 pwconv2",
        ("classifier", "all", ()),
        (map_of(8, 8), map_of(4, 16)),
        hidden=64,
        norms=1,
    ),
    Case(
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "layer_type": "basic"},
        staged("resnet.encoder.stages.{}.layers.{}", (2, 2)),
        "",
        "",
        ("classifier.1", "all", ()),
        (map_of(8, 8), map_of(4, 16)),
    ),
    Case(
        "RegNetForImageClassification",
        "RegNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 2, 1, 1], "groups_width": 4},
        staged("regnet.encoder.stages.{}.layers.{}", (1, 2, 1, 1)),
        "",
        "",
        ("classifier.1", "all", ()),
        (map_of(16, 8), map_of(8, 16), map_of(4, 16), map_of(2, 32)),
        image=64,
        norms=4,
    ),
    Case(
        "PoolFormerForImageClassification",
        "PoolFormerConfig",
        {"hidden_sizes": [8, 8, 16, 16], "depths": [2, 1, 1, 1]},
        staged("poolformer.encoder.block.{}.{}", (2, 1, 1, 1)),
        "",
        "output output.conv1 output.conv2",
        ("classifier", "all", ()),
        (map_of(16, 8), map_of(8, 8), map_of(4, 16), map_of(2, 16)),
        hidden=64,
        image=64,
    ),
    Case(
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        {"depth_multiplier": 0.25},
        under("mobilenet_v2.layer", 16),
        "",
        " expand_1x1.convolution reduce_1x1.convolution",
        ("classifier", "all", ()),
        (map_of(16, 8), map_of(8, 8), map_of(4, 16), map_of(4, 24), map_of(2, 40), map_of(2, 80)),
        hidden=240,
        image=64,
        norms=3,
    ),
    text("Bert", CLASSIFY, "bert.encoder.layer", NESTED, BERT_MLP, ("classifier", *FIRST), **TEXT),
    text("Roberta", CLASSIFY, "roberta.encoder.layer", NESTED, BERT_MLP, ("classifier.out_proj", *FIRST), **TEXT),
    text("Electra", CLASSIFY, "electra.encoder.layer", NESTED, BERT_MLP, ("classifier.out_proj", *FIRST), **TEXT),
    text("Llama", "ForCausalLM", "model.layers", SELF, GATED, LM, 4, 2, 4, 4, **SHARED),
    text("Qwen2", CLASSIFY, "model.layers", SELF, GATED, ("score", "each", ()), 4, 2, 4, 4, **SHARED),
    text(
        *("Phi3", "ForCausalLM", "model.layers"),
        "self_attn self_attn.qkv_proj self_attn.qkv_proj self_attn.qkv_proj self_attn.o_proj",
        "mlp mlp.gate_up_proj mlp.down_proj mlp.gate_up_proj",
        *(LM, 4, 2, 4, 4),
        **SHARED,
    ),
    text(
        *("DistilBert", CLASSIFY, "distilbert.transformer.layer"),
        "attention attention.q_lin attention.k_lin attention.v_lin attention.out_lin",
        "ffn ffn.lin1 ffn.lin2",
        *(("classifier", *FIRST), 2, 2, 8, 8),
        **{"vocab_size": 40, "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 32},
    ),
    text(
        *("GPT2", "LMHeadModel", "transformer.h"),
        "attn attn.c_attn attn.c_attn attn.c_attn attn.c_proj",
        "mlp mlp.c_fc mlp.c_proj",
        *(LM, 2, 2, 8, 8),
        **{**GPT, "n_layer": 2, "n_head": 2, "n_positions": 32, "hidden": 64},
    ),
    text(
        *("Bloom", "ForCausalLM", "transformer.h"),
        " ".join(["self_attention", *["self_attention.query_key_value"] * 3, "self_attention.dense"]),
        "mlp mlp.dense_h_to_4h mlp.dense_4h_to_h",
        *(LM, 2, 2, 8, 8),
        **{**GPT, "n_layer": 2, "n_head": 2, "hidden": 64},
    ),
    text(
        *("T5", "EncoderModel", "encoder.block"),
        " ".join(["layer.0.SelfAttention", *(f"layer.0.SelfAttention.{name}" for name in "qkvo")]),
        "layer.1.DenseReluDense layer.1.DenseReluDense.wi layer.1.DenseReluDense.wo",
        *((), 2, 2, 8, 8),
        **{"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
    ),
]


def examined(case: Case) -> Anatomy:
    torch.manual_seed(0)
    net = getattr(transformers, case.model)(getattr(transformers, case.config)(**case.settings))
    example = torch.zeros(1, 3, case.image, case.image) if case.image else torch.ones(1, 6, dtype=torch.long)
    return examine(net, (example,))


def joined(block: str, paths: str) -> list[str]:
    return [f"{block}.{path}".rstrip(".") for path in paths.split(" ")]


@pytest.mark.parametrize("case", CASES, ids=[case.model for case in CASES])
def test_the_parts_of_a_network(case: Case) -> None:
    found = examined(case)
    assert tuple(block.path for block in found.blocks) == case.blocks
    last = found.blocks[-1]
    assert last.end == last.path
    assert len(last.norms) == case.norms
    assert found.stages == case.stages
    attention = Attention(*joined(last.path, case.attention), *case.heads) if case.attention else None
    assert last.attention == attention
    if case.mlp:
        assert last.mlp is not None
        path, up, down, gate = [*joined(last.path, case.mlp), ""][:4]
        assert (last.mlp.path, last.mlp.up, last.mlp.down, last.mlp.gate) == (path, up, down, gate)
        assert last.mlp.hidden == case.hidden
    else:
        assert last.mlp is None
    if case.head:
        assert found.head is not None
        assert (" ".join(found.head.outputs), found.head.pooling, found.head.reads) == case.head
    else:
        assert found.head is None


def test_a_net_between_attention_and_convolution() -> None:
    found = examined(next(case for case in CASES if case.model.startswith("Levit")))
    kinds = [block.kind for block in found.blocks]
    assert kinds == ["attention", "mlp"] * 5
    reducing = found.blocks[2].attention
    fused = "levit.encoder.stages.0.layers.2.keys_values.linear"
    assert reducing is not None
    assert (reducing.key, reducing.value) == (fused, fused)
    assert (reducing.heads, reducing.kv_heads, reducing.head_dim, reducing.value_dim) == (2, 2, 8, 32)


def test_shared_layers_are_one_block() -> None:
    net = transformers.AlbertForSequenceClassification(transformers.AlbertConfig(**TEXT, embedding_size=8))
    found = examine(net, (torch.ones(1, 6, dtype=torch.long),))
    path = "albert.encoder.albert_layer_groups.0.albert_layers.0"
    assert [(block.path, block.calls) for block in found.blocks] == [(path, 2)]
    assert found.head is not None
    assert found.head.before == ("albert.pooler",)
