"""A vision transformer as transformers has it: every heavy node becomes a kernel."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest

from edgewright_exporters.onnx_kernels.choose import first_guess
from edgewright_exporters.onnx_kernels.rewrite import rewrite
from edgewright_exporters.tir.isa import isa_named
from edgewright_plugins.qdq.calibrate import find_ranges
from edgewright_plugins.qdq.place import Scheme, activations, build
from edgewright_plugins.qdq.prepare import prepare

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class Logits(torch.nn.Module):
    """The network with nothing but its logits."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Any) -> Any:
        return self.net(image).logits


def exported(attention: str) -> onnx.ModelProto:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.ViTConfig(image_size=32, patch_size=16, num_labels=3, attn_implementation=attention, **shape)
    net = Logits(transformers.ViTForImageClassification(config)).eval()
    program = torch.onnx.export(net, (torch.zeros(1, 3, 32, 32),), dynamo=True, optimize=True, verbose=False)
    buffer = io.BytesIO()
    program.save(buffer)
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_heavy_node_is_a_kernel(attention: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and transformers deprecate parts of each other
        proto = exported(attention)
    result = rewrite(proto, isa_named("x86-64-v3"), first_guess)
    assert result.replaced == {"attention": 2, "conv": 1, "gemm": 13, "norm": 5, "reorder": 1}
    assert result.notes == ()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_is_a_kernel_in_static_int8_too(attention: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and transformers deprecate parts of each other
        proto = prepare(exported(attention))
    images = [{"image": np.random.default_rng(seed).standard_normal((1, 3, 32, 32), np.float32)} for seed in range(4)]
    ranges = find_ranges(proto, activations(proto), lambda: images, ("min-max",))["min-max"]
    result = rewrite(build(proto, Scheme("static"), ranges), isa_named("x86-64-v3"), first_guess)
    assert result.replaced["attention"] == 2
    assert result.replaced["qgemm"] == 13
