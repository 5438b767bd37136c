"""Fewer than 8 bits: which layers get them, and what a file with them weighs and scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import onnx
import pytest

from edgewright import onnxkit
from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.deploying.opening import open_bench
from edgewright.deploying.pipeline import prepare
from edgewright.environment import Environment
from edgewright.grids import Grid, encode_closest
from edgewright.registry import TARGETS, Registry
from edgewright.store import Store, key_of
from edgewright.types import Array, Model
from edgewright_plugins.qdq.layers import constant, layers_of
from edgewright_plugins.qdq.place import Scheme
from edgewright_plugins.qdq.prepare import prepare as prepared
from edgewright_plugins.qdq.sensitivity import rank_weights
from edgewright_plugins.quantize import QUANTIZE, Params
from edgewright_plugins.quantize.accuracy import fewest
from edgewright_plugins.quantize.job import Job, start
from edgewright_plugins.quantize.speed import quick_bits
from edgewright_plugins.quantize.widths import by_worth

NAMES = ("one", "two", "three")


def network() -> onnx.ModelProto:
    """Three layers, the middle one with single weights far larger than the rest: few bits lose all others."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1, 32] x) => (float[1, 8] y) {
            [one] a = Gemm(x, w0, b0)
            [relu0] r = Relu(a)
            [two] b = Gemm(r, w1, b1)
            [relu1] s = Relu(b)
            [three] y = Gemm(s, w2, b2)
        }"""
    )
    rng = np.random.default_rng(0)
    sizes = {"w0": (32, 64), "b0": (64,), "w1": (64, 64), "b1": (64,), "w2": (64, 8), "b2": (8,)}
    values = {name: (rng.standard_normal(size) / 6).astype(np.float32) for name, size in sizes.items()}
    values["w1"][rng.integers(0, 64, 64), np.arange(64)] *= 12
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(each, name) for name, each in values.items())
    return proto


def answers(proto: onnx.ModelProto, x: Array) -> Array:
    """What the graph itself says of each row."""
    return np.concatenate([y[0] for y in onnxkit.run(onnxkit.pack(proto), [{"x": row[None]} for row in x])]).argmax(1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The network with noise that it has labelled itself; costs are predicted, for a CPU with VNNI."""
    folder, registry = tmp_path_factory.mktemp("widths"), Registry()
    proto = network()
    onnx.save(proto, folder / "net.onnx")
    x = np.random.default_rng(1).standard_normal((400, 32)).astype(np.float32)
    np.savez(folder / "net.npz", x_train=x, y_train=answers(proto, x), x_test=x[:20], y_test=answers(proto, x[:20]))
    request = Request(
        str(folder / "net.onnx"), task=str(folder / "net.npz"), apply=(), on="local", out=str(folder / "out")
    )
    env = Environment(registry, Store(folder / "cache"), lambda message, done, total: None)
    target = replace(registry.get(TARGETS, "cpu").value, isa="x86_64", features=("avx_vnni",))
    with ExitStack() as stack:
        yield replace(open_bench(prepare(request, target, env), env, stack), device=None)


def work(bench: Bench, name: str) -> tuple[Model, Workbench]:
    return bench.original, Workbench(bench, key_of("widths", name))


def weighs(model: Model) -> int:
    return onnxkit.read(model.graph).ByteSize()


@pytest.fixture(scope="module")
def job(bench: Bench) -> Job:
    model, context = work(bench, "job")
    return start(model, context, methods=("min-max",), examples=16)


# ------------------------------------------------------------------ the whole step


@pytest.mark.parametrize("mode", ["static", "dynamic", "weights"])
def test_what_costs_nothing_leaves_all_weights_in_the_bits_asked_for(bench: Bench, mode: str):
    sizes: list[int] = []
    for bits in (8, 4, 2):
        model, context = work(bench, f"all {mode} {bits}")
        result = QUANTIZE.apply(model, Params(bits=bits, mode=mode, drop=1.0, examples=16), context)
        details = result.history[-1].details
        assert details["bits"] == dict.fromkeys(NAMES, bits)
        assert len(context.outputs(result)["y"]) > 0
        sizes.append(weighs(result))
    weights = 32 * 64 + 64 * 64 + 64 * 8
    assert sizes[0] - sizes[1] == pytest.approx(weights / 2, rel=0.15)
    assert sizes[1] - sizes[2] == pytest.approx(weights / 4, rel=0.3)


@pytest.mark.parametrize("mode", ["static", "static-layers", "dynamic"])
def test_weights_have_7_bits_on_x86_without_vnni(bench: Bench, mode: str):
    plain = replace(bench, target=replace(bench.target, features=("avx2",)))
    model, context = work(plain, f"plain {mode}")
    result = QUANTIZE.apply(model, Params(mode=mode, drop=1.0, examples=16), context)
    step = result.history[-1]
    assert step.details["bits"] == dict.fromkeys(NAMES, 7)
    assert "weights of 7 bits: without VNNI, x86 multiplies those of 8 more slowly" in step.notes
    stored = [onnx.numpy_helper.to_array(t) for t in onnxkit.read(result.graph).graph.initializer if len(t.dims) == 2]
    assert [int(np.abs(codes.astype(int)).max()) for codes in stored] == [63, 63, 63]


def test_other_targets_have_weights_of_8_bits(bench: Bench):
    arm = replace(bench.target, isa="aarch64", features=())
    assert [quick_bits(target) for target in (bench.target, arm)] == [8, 8]


def test_a_bound_raises_the_layers_that_need_it_and_holds(bench: Bench):
    model, context = work(bench, "bound")
    few = QUANTIZE.apply(model, Params(bits=3, mode="static", drop=1.0, examples=16), context)
    before, least = (context.score(each).value or 0.0 for each in (model, few))
    drop = (before - least) / 200
    result = QUANTIZE.apply(model, Params(bits=3, mode="static", drop=drop, examples=16), context)
    assert least < before - 100 * drop <= (context.score(result).value or 0.0)
    step = result.history[-1]
    assert step.details["bits"]["two"] > 3
    assert min(step.details["bits"].values()) < 8
    assert any("two to" in note for note in step.notes)
    assert step.notes[-1].startswith("file ")
    assert weighs(result) < weighs(model) / 2


def test_a_bound_that_only_eight_bits_hold_ships_eight_bits(bench: Bench):
    model, context = work(bench, "tight")
    eight = QUANTIZE.apply(model, Params(mode="weights", drop=1.0, examples=16), context)
    lost = (context.score(model).value or 0.0) - (context.score(eight).value or 0.0)
    result = QUANTIZE.apply(model, Params(bits=2, mode="weights", drop=lost / 100, examples=16), context)
    assert min(result.history[-1].details["bits"].values()) >= 4
    assert (context.score(result).value or 0.0) >= (context.score(eight).value or 0.0)


def test_weights_alone_keep_the_arithmetic_of_the_original(bench: Bench):
    model, context = work(bench, "alone")
    result = QUANTIZE.apply(model, Params(bits=4, mode="weights", drop=1.0, examples=16), context)
    found = onnxkit.operators(onnxkit.read(result.graph))
    assert "QuantizeLinear" not in found
    assert found["DequantizeLinear"] == 3


# ------------------------------------------------------------------ the order


def test_the_most_harmful_weights_come_first():
    proto = prepared(network())
    layers = layers_of(proto)
    feeds = [{"x": np.random.default_rng(2).standard_normal((1, 32)).astype(np.float32)} for _ in range(8)]
    choices = [
        (each.name, bits, {each.weight: encode_closest(Grid(bits), weight, 1).rounded(weight)})
        for each in layers
        for weight in [constant(proto, each.weight)]
        for bits in (2, 4, 8)
    ]
    ranked = rank_weights(proto, choices, feeds, lambda done, total: None)
    assert [entry[2] for entry in ranked] == sorted((entry[2] for entry in ranked), reverse=True)
    loss = {(name, bits): each for name, bits, each in ranked}
    for name in NAMES:
        assert loss[name, 2] > loss[name, 4] > loss[name, 8]
    assert loss["two", 4] > 10 * loss["two", 8]
    assert (ranked[0][0], ranked[0][1]) == max(loss, key=lambda choice: loss[choice])


def test_steps_stand_by_worth_and_those_of_a_layer_in_order(job: Job):
    # `two` has 4096 weights and gains most in all, `three` has 512 and gains most per byte.
    losses = {"one": (1e-3, 1e-4, 1e-5), "two": (0.08, 1e-3, 1e-5), "three": (0.05, 0.04, 1e-6)}
    ranked = [(name, bits, each) for name, row in losses.items() for bits, each in zip((2, 4, 8), row, strict=True)]
    steps = by_worth(job, Scheme("static"), ranked, (2, 4, 8))
    assert [(step.layer, step.before, step.bits) for step in steps] == [
        ("three", 2, 4),
        ("three", 4, 8),
        ("two", 2, 4),
        ("one", 2, 4),
        ("two", 4, 8),
        ("one", 4, 8),
    ]


def test_steps_that_cost_no_bytes_come_first(job: Job):
    ranked = [(name, bits, 1.0 / bits) for name in NAMES for bits in (3, 4, 8)]
    steps = by_worth(job, Scheme("static"), ranked, (3, 4, 8))
    assert {(step.before, step.bits) for step in steps[:3]} == {(3, 4)}


@pytest.mark.parametrize("least", [1, 2, 7, 13])
def test_fewest_finds_where_it_begins_to_hold(least: int):
    tried: list[int] = []

    def holds(count: int) -> bool:
        tried.append(count)
        return count >= least

    assert fewest(13, holds) == least
    assert len(tried) <= 4


def test_the_closest_rounding_is_what_the_job_uses(job: Job):
    layer = layers_of(job.proto)[0]
    found = job.encoding(layer, Scheme("static"), 4)
    values = constant(job.proto, layer.weight)
    assert found is job.encoding(layer, Scheme("static"), 4)
    assert float(np.abs(found.rounded(values) - values).max()) < float(np.abs(values).max()) / 4
