"""How well a calibrated profile predicts whole networks on this machine: CNNs and ViTs drawn from a seed.

engine calibrate -o mine.toml --threads 1
python -m predictor.this_cpu --profile mine.toml [--count 40] [--seed 1]     (in benchmarks/)
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx

from edgewright.agent import LOCAL
from edgewright.cli.console import Console, open_environment
from edgewright.pipeline import open_agent
from edgewright.recipe import Request
from edgewright.targetfile import read_profile
from edgewright.verbs.calibrating import measure_all
from edgewright_devices.predictor.predict import KERNELS, SURE
from edgewright_devices.predictor.probes import Chain, attend, gelu


def residual(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """A residual network of three stages."""
    width, size, depth = int(rng.choice([16, 24, 32])), int(rng.choice([32, 64, 96])), int(rng.integers(1, 4))
    net = Chain((1, 3, size, size), rng, quantised=quantised)
    net.conv(width)
    for stage in range(3):
        for _ in range(depth):
            before = net.at
            net.conv(width << stage)
            net.conv(width << stage, act="")
            if before != "x" and net.shape[1] == width << stage and stage == 0:
                net.add(before)
            net.at = net.node("Relu", net.at)
        net.conv(width << (stage + 1), stride=2)
    return headed(net)


def inverted(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """A network of inverted residuals."""
    width, size = int(rng.choice([8, 16, 24])), int(rng.choice([64, 96, 128]))
    net = Chain((1, 3, size, size), rng, quantised=quantised)
    net.conv(width, stride=2)
    for stage in range(4):
        inner = net.shape[1] * int(rng.integers(3, 7))
        net.conv(inner, 1)
        net.conv(inner, 3, 2, groups=inner)
        net.conv(width * (stage + 2), 1, act="")
        for _ in range(int(rng.integers(0, 3))):
            before, inner = net.at, net.shape[1] * 4
            net.conv(inner, 1)
            net.conv(inner, groups=inner)
            net.conv(width * (stage + 2), 1, act="")
            net.add(before)
    return headed(net)


def transformer(rng: np.random.Generator, quantised: bool) -> onnx.ModelProto:
    """A vision transformer behind its patches."""
    heads, patch, side = int(rng.choice([2, 3, 4])), int(rng.choice([8, 16])), int(rng.choice([6, 8, 12]))
    net = Chain((1, side * side, 3 * patch * patch), rng, quantised=quantised)
    net.dense(heads * 48)
    for _ in range(int(rng.integers(2, 7))):
        attend(net, heads, 48)
        before = net.at
        net.normalise()
        net.dense(heads * 192)
        net.at = gelu(net)
        net.dense(heads * 48)
        net.add(before)
    net.normalise()
    return net.model()


def headed(net: Chain) -> onnx.ModelProto:
    """The mean over all pixels and ten classes."""
    net.at = net.node("Flatten", net.node("GlobalAveragePool", net.at))
    net.shape = (1, net.shape[1])
    net.dense(10)
    return net.model()


def main() -> None:
    """Draw, measure, predict, compare."""
    parser = argparse.ArgumentParser(description="Predict and measure networks on this machine.")
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    target = read_profile(asked.profile)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = []
        for at in range(asked.count):
            build = (residual, inverted, transformer)[at % 3]
            quantised = bool(at // 3 % 2)
            path = Path(folder) / f"{at:02}-{build.__name__}-{'int8' if quantised else 'float32'}.onnx"
            onnx.save(build(np.random.default_rng((asked.seed, at)), quantised), str(path))
            paths.append(path)
        env = open_environment(Console(quiet=True), (), None)
        agent = open_agent(LOCAL, env, stack)
        errors, covered = [], []
        for path, case in zip(paths, measure_all(paths, Request(threads=1), target, agent, env)):
            found = KERNELS.predict(case.model, target, "latency")
            assert found.value is not None
            assert found.interval is not None
            errors.append(found.value / case.latency_ms - 1)
            sd = np.log(found.interval[1] / found.value) / SURE
            covered.append(abs(np.log(found.value / case.latency_ms)) < 1.645 * sd)
            print(f"{path.stem:28} measured {case.latency_ms:8.3f} ms  predicted {found.value:8.3f}  {errors[-1]:+.1%}")
    print(f"MAPE {np.mean(np.abs(errors)):.1%}, median {np.median(np.abs(errors)):.1%}, covered {np.mean(covered):.1%}")


if __name__ == "__main__":
    main()
