"""The micro-networks of `engine calibrate`: drawn once by a seed, so that every device runs the same ones.

Each is a short chain of blocks of one kind (convolutions, depthwise, 1x1, grouped, dense, the halves of a transformer),
at sizes drawn from ranges that networks for edge devices use, in float32 and as quantise/dequantise pairs around int8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright_devices.predictor.chain import Chain

if TYPE_CHECKING:
    import numpy as np
    import onnx

SEED = 20_000
EACH = 5
"""Networks of each kind and width of numbers."""


def write_probes(folder: Path) -> list[Path]:
    """Write the networks into `folder`; their paths in a fixed order."""
    import numpy as np
    import onnx

    paths = []
    for kind, blocks in enumerate(KINDS):
        for at in range(EACH):
            for quantised in (False, True):
                rng = np.random.default_rng((SEED, kind, at))
                path = folder / f"{blocks.__name__}-{at}-{'int8' if quantised else 'float32'}.onnx"
                onnx.save(blocks(rng, quantised), str(path))
                paths.append(path)
    return paths


def _pick(rng: np.random.Generator, options: Sequence[int]) -> int:
    return int(rng.choice(list(options)))


def convolutions(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """Windows of 3 and 5, some at stride 2, and a sum."""
    channels, size = _pick(rng, (16, 24, 32, 64, 96, 128)), _pick(rng, (8, 14, 16, 28, 32, 56))
    net = Chain((1, 3, 2 * size, 2 * size), rng, quantised=quantised)
    before = net.conv(channels, _pick(rng, (3, 7)), 2)
    for _ in range(_pick(rng, (1, 2, 3))):
        net.conv(channels)
        net.conv(channels, act="")
        net.add(before, "Relu")
        before = net.at
    net.conv(2 * channels, _pick(rng, (3, 5)), 2)
    return net.model()


def separable(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """Depthwise convolutions between ones of 1x1, as phones' networks have them; the first may halve the image."""
    channels = _pick(rng, (16, 24, 40, 80, 112))
    size = _pick(rng, [pixels for pixels in (7, 14, 28, 56) if pixels * channels < 1500])
    net = Chain((1, 3, size, size), rng, quantised=quantised)
    net.conv(channels)
    for _ in range(_pick(rng, (2, 3, 5))):
        before, inner = net.at, channels * _pick(rng, (2, 3, 6))
        net.conv(inner, 1)
        net.conv(inner, _pick(rng, (3, 5)), groups=inner)
        net.conv(channels, 1, act="")
        net.add(before)
    net.conv(channels, 3, 2, groups=channels)
    return net.model()


def points(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """Convolutions of 1x1 and of 3x3 at stride 2 alone: few channels or many, few pixels or many."""
    size = _pick(rng, (7, 14, 28, 56))
    widths = [width for width in (16, 32, 64, 128, 256, 512) if width * size < 4000]
    net = Chain((1, _pick(rng, widths), size, size), rng, quantised=quantised)
    for _ in range(_pick(rng, (2, 4))):
        net.conv(_pick(rng, widths), 1)
    net.conv(_pick(rng, widths), 3, 2)
    net.conv(_pick(rng, widths), 1)
    return net.model()


def grouped(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """Grouped convolutions, joined channels, pooling and a head."""
    channels, size = _pick(rng, (32, 64, 128)), _pick(rng, (7, 14, 28))
    net = Chain((1, channels, size, size), rng, quantised=quantised)
    first = net.conv(channels, 3, groups=_pick(rng, (2, 4, 8)))
    net.conv(channels, 1)
    net.at = net.settled("Concat", first, net.at, zero=0, axis=1)
    net.shape = (1, 2 * channels, size, size)
    net.conv(channels, 1)
    net.at = net.settled("MaxPool", net.at, zero=0, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    net.at = net.settled("GlobalAveragePool", net.at)
    net.at = net.settled("Flatten", net.at)
    net.shape = (1, channels)
    net.dense(_pick(rng, (10, 100, 1000)))
    return net.model()


def perceptron(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """Products with large matrices, for one row or many."""
    width, tokens = _pick(rng, (64, 128, 192, 256, 384, 512)), _pick(rng, (1, 16, 64, 196))
    net = Chain((1, tokens, width), rng, quantised=quantised)
    for _ in range(_pick(rng, (1, 2, 4))):
        before = net.at
        net.dense(width * _pick(rng, (2, 4)), "Relu")
        net.dense(width)
        net.add(before)
    return net.model()


def mixer(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """The second half of a transformer's block, over and over: layer normalisation, GELU, two products."""
    width, tokens = _pick(rng, (64, 128, 192, 256)), _pick(rng, (16, 49, 64, 128, 196))
    net = Chain((1, tokens, width), rng, quantised=quantised)
    for _ in range(_pick(rng, (1, 2, 3))):
        before = net.at
        net.normalise()
        net.dense(width * _pick(rng, (1, 2, 4)))
        net.at = gelu(net)
        net.dense(width)
        net.add(before)
    return net.model()


def attention(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """The first half of a transformer's block: few or many heads and tokens."""
    heads, each, tokens = _pick(rng, (2, 3, 4, 6, 8)), _pick(rng, (16, 32, 64)), _pick(rng, (16, 64, 100, 128, 197))
    net = Chain((1, tokens, heads * each), rng, quantised=quantised)
    for _ in range(_pick(rng, (1, 2))):
        attend(net, heads, each)
    return net.model()


def attend(net: Chain, heads: int, each: int) -> None:
    """Multi-head attention over the tokens, added to what it read."""
    import numpy as np

    before, (_, tokens, width) = net.at, net.shape
    net.normalise()
    start, parts = net.at, list[str]()
    for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        net.at, net.shape = start, (1, tokens, width)
        split = net.constant(np.array([1, tokens, heads, each], np.int64))
        parts.append(net.settled("Transpose", net.settled("Reshape", net.dense(width), split), perm=list(perm)))
    scale = net.rounded(net.constant(np.float32(each**-0.5)))
    scores = net.settled("Mul", net.settled("MatMul", parts[0], parts[1]), scale)
    mixed = net.settled("MatMul", net.settled("Softmax", scores, zero=0, axis=-1), parts[2])
    whole = net.constant(np.array([1, tokens, width], np.int64))
    net.at = net.settled("Reshape", net.settled("Transpose", mixed, perm=[0, 2, 1, 3]), whole)
    net.shape = (1, tokens, width)
    net.dense(width)
    net.add(before)


def gelu(net: Chain) -> str:
    """The exact GELU as exporters write it; the name of its result."""
    import numpy as np

    half, root, one = (net.constant(np.float32(value)) for value in (0.5, 2**0.5, 1.0))
    inner = net.node("Add", net.node("Erf", net.node("Div", net.at, root)), one)
    return net.settled("Mul", net.node("Mul", net.at, inner), half)


KINDS: Sequence[Callable[[Any, bool], Any]] = (
    convolutions, separable, points, grouped, perceptron, mixer, attention,
)  # fmt: skip
