"""How well a calibrated profile predicts whole networks on this machine: CNNs and ViTs drawn from a seed.

engine calibrate -o mine.toml --threads 1
python -m predictor.this_cpu --graphs DIR                           (in benchmarks/: draws them)
python -m predictor.this_cpu --graphs DIR --profile mine.toml       (measures them, on a quiet machine)
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx

from edgewright import onnxkit
from edgewright.agents.agent import LOCAL
from edgewright.asking.request import Request
from edgewright.asking.targetfile import read_profile
from edgewright.cli.console import Console, open_environment
from edgewright.deploying.opening import open_agent
from edgewright.grids import Grid, encode
from edgewright.types import Target
from edgewright.verbs.calibrating import measure_all
from edgewright_devices.predictor.chain import Chain
from edgewright_devices.predictor.predict import KERNELS, SURE
from edgewright_devices.predictor.probes import gelu
from edgewright_plugins.qdq.calibrate import find_ranges
from edgewright_plugins.qdq.layers import constant, layers_of
from edgewright_plugins.qdq.place import Scheme, activations, quantised_nodes
from edgewright_plugins.qdq.prepare import prepare
from edgewright_plugins.qdq.write import write


def residual(rng: np.random.Generator) -> onnx.ModelProto:
    """A residual network of three stages, some with bottlenecks."""
    width, size, depth = int(rng.choice([16, 24, 32])), int(rng.choice([32, 48, 64, 96])), int(rng.integers(1, 4))
    narrow = bool(rng.integers(2))
    net = Chain((1, 3, size, size), rng, quantised=False)
    net.conv(width)
    for stage in range(3):
        channels = width << stage
        for block in range(depth):
            stride = 2 if stage and not block else 1
            before = shortcut(net, channels, stride)
            if narrow:
                net.conv(channels // 2, 1)
                net.conv(channels // 2, 3, stride)
                net.conv(channels, 1, act="")
            else:
                net.conv(channels, 3, stride)
                net.conv(channels, act="")
            net.add(before, "Relu")
    return headed(net)


def shortcut(net: Chain, channels: int, stride: int) -> str:
    """What is added to a block's result: its input, or a 1x1 convolution of it where sizes differ."""
    start, shape = net.at, net.shape
    if (shape[1], stride) == (channels, 1):
        return start
    found = net.conv(channels, 1, stride, act="")
    net.at, net.shape = start, shape
    return found


def inverted(rng: np.random.Generator) -> onnx.ModelProto:
    """A network of inverted residuals."""
    width, size = int(rng.choice([8, 16, 24])), int(rng.choice([64, 96, 128, 160]))
    net = Chain((1, 3, size, size), rng, quantised=False)
    net.conv(width, stride=2)
    for stage in range(4):
        for block in range(int(rng.integers(1, 4))):
            before, inner = net.at, net.shape[1] * int(rng.integers(3, 7))
            net.conv(inner, 1)
            net.conv(inner, int(rng.choice([3, 5])), 1 if block else 2, groups=inner)
            net.conv(width * (stage + 2), 1, act="")
            if block:
                net.add(before)
    net.conv(8 * width, 1)
    return headed(net)


def transformer(rng: np.random.Generator) -> onnx.ModelProto:
    """A vision transformer on patches: one product for queries, keys and values, mean of all tokens."""
    heads, each = int(rng.choice([2, 3, 4, 5])), int(rng.choice([24, 48, 64]))
    patch, side = int(rng.choice([8, 12, 16])), int(rng.choice([6, 8, 10, 12, 14]))
    width, tokens, wider = heads * each, side * side, int(rng.choice([2, 3, 4]))
    net = Chain((1, 3, side * patch, side * patch), rng, quantised=False)
    w = net.weight(width, 3, patch, patch)
    patches = net.node("Conv", "x", w, net.bias(width), strides=[patch] * 2)
    flat = net.node("Reshape", patches, net.constant(np.array([1, width, tokens])))
    net.at, net.shape = net.node("Transpose", flat, perm=[0, 2, 1]), (1, tokens, width)
    for _ in range(int(rng.integers(2, 9))):
        before = net.at
        net.normalise()
        attend(net, heads, each)
        net.add(before)
        before = net.at
        net.normalise()
        net.dense(wider * width)
        net.at = gelu(net)
        net.dense(width)
        net.add(before)
    net.normalise()
    net.at = net.node("ReduceMean", net.at, axes=[1], keepdims=0)
    net.shape = (1, width)
    net.dense(10)
    return net.model()


def attend(net: Chain, heads: int, each: int) -> None:
    """Multi-head attention, the scale on the queries."""
    _, tokens, width = net.shape
    whole = net.node("Reshape", net.dense(3 * width), net.constant(np.array([1, tokens, 3, heads, each])))
    apart = net.node("Transpose", whole, perm=[2, 0, 3, 1, 4])
    q, k, v = (net.node("Gather", apart, net.constant(np.int64(at)), axis=0) for at in range(3))
    q = net.node("Mul", q, net.constant(np.float32(each**-0.5)))
    scores = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = net.node("MatMul", net.node("Softmax", scores, axis=-1), v)
    back = net.node("Transpose", mixed, perm=[0, 2, 1, 3])
    net.at, net.shape = net.node("Reshape", back, net.constant(np.array([1, tokens, width]))), (1, tokens, width)
    net.dense(width)


def headed(net: Chain) -> onnx.ModelProto:
    """The mean over all pixels and ten classes."""
    net.at = net.node("Flatten", net.node("GlobalAveragePool", net.at))
    net.shape = (1, net.shape[1])
    net.dense(10)
    return net.model()


STATIC = Scheme("static")
BUILDERS = (residual, inverted, transformer)


def quantised(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """The graph as `quantize` writes it for CPUs without VNNI: all that has an int8 form, weights of 7 bits."""
    graph = prepare(proto)
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    images = [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(2)]
    ranges = find_ranges(graph, activations(graph), lambda: images, ["min-max"])["min-max"]
    layers = [layer for layer in layers_of(graph) if layer.name in quantised_nodes(graph, STATIC)]
    encodings = {each.weight: encode(Grid(7), constant(graph, each.weight), each.axis) for each in layers}
    return write(graph, STATIC.narrowed({layer.name: 7 for layer in layers}), ranges, encodings)


def write_graphs(folder: Path, count: int, seed: int) -> list[Path]:
    """Every graph that is not there yet, three in turn in float32, and the next three in int8."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for at in range(count):
        build, narrow, rng = BUILDERS[at % 3], bool(at // 3 % 2), np.random.default_rng((seed, at))
        path = folder / f"{at:02}-{build.__name__}-{'int8' if narrow else 'float32'}.onnx"
        paths.append(path)
        if path.exists():
            continue
        proto = build(rng)
        path.write_bytes(onnxkit.pack(quantised(proto, rng) if narrow else proto))
    return paths


def main() -> None:
    """Draw, measure, predict, compare."""
    parser = argparse.ArgumentParser(description="Predict and measure networks on this machine.")
    parser.add_argument("--graphs", type=Path, required=True, help="folder for the graphs; those in it are kept")
    parser.add_argument("--profile", type=Path, help="what engine calibrate wrote; without it graphs are only written")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    paths = write_graphs(asked.graphs, asked.count, asked.seed)
    if asked.profile:
        compare(paths, read_profile(asked.profile))


def compare(paths: list[Path], target: Target) -> None:
    """Measure each graph as `engine calibrate` measures, and print how far the prediction is off."""
    errors, covered = [], []
    with ExitStack() as stack:
        env = open_environment(Console(quiet=True), (), None)
        agent = open_agent(LOCAL, env, stack)
        for path, case in zip(paths, measure_all(paths, Request(threads=1), target, agent, env)):
            found = KERNELS.predict(case.model, target, "latency")
            assert found.value is not None
            assert found.interval is not None
            errors.append(found.value / case.latency_ms - 1)
            sd = np.log(found.interval[1] / found.value) / SURE
            covered.append(abs(np.log(found.value / case.latency_ms)) < 1.645 * sd)
            print(
                f"{path.stem:24} measured {case.latency_ms:8.3f} ms  predicted {found.value:8.3f}  {errors[-1]:+6.1%}",
                flush=True,
            )
    print(f"MAPE {np.mean(np.abs(errors)):.1%}, median {np.median(np.abs(errors)):.1%}, covered {np.mean(covered):.1%}")


if __name__ == "__main__":
    main()
