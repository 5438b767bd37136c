"""Which bits each layer gets: by the engine's own parts, with latency predicted and scores computed on this host."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

pytest.importorskip("scipy")

from edgewright import onnxkit
from edgewright.asking.bounds import parse_bounds
from edgewright.deploying.context import Workbench
from edgewright.errors import RecipeError
from edgewright.store import key_of
from edgewright.task import Task
from edgewright.testing import Rig
from edgewright.types import Metric, Model, Signature, Stage, Variant
from edgewright_plugins.mixed_bits import MIXED_BITS, Params
from edgewright_plugins.mixed_bits.decide import budget_of, ladder
from edgewright_plugins.mixed_bits.latency import Race, learn, neighbours, random_mixes
from edgewright_plugins.mixed_bits.losses import LEAST, Losses
from edgewright_plugins.mixed_bits.net import FLOAT, Net, usable_layers
from edgewright_plugins.mixed_bits.prices import bitops_of, bytes_of, prices_of
from edgewright_plugins.mixed_bits.start import options_of, start
from edgewright_plugins.qdq.place import Scheme
from edgewright_plugins.qdq.prepare import prepare

DEPTH, WIDTH = 6, 24
TAILED = ("w1", "w4", "head_w")
OPTIONS = Params(average=5, options=(2, 8))


def network() -> onnx.ModelProto:
    """Linear layers with Relu between them. Some hold one magnitude, which 2 bits have, others long tails."""
    lines = [f"[fc{i}] a{i} = Gemm(r{i}, w{i}) [relu{i}] r{i + 1} = Relu(a{i})" for i in range(DEPTH)]
    head = f"[head] y = Gemm(r{DEPTH}, head_w, head_b)"
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        stack (float[1, {WIDTH}] r0) => (float[1, 6] y) {{ {" ".join(lines)} {head} }}"""
    )
    rng = np.random.default_rng(5)
    for name in [f"w{i}" for i in range(DEPTH)] + ["head_w"]:
        values = rng.standard_normal((WIDTH, 6 if name == "head_w" else WIDTH))
        shaped = values**3 / 4 if name in TAILED else np.sign(values)
        weight = (shaped * np.sqrt(2 / WIDTH)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(6, np.float32), "head_b"))
    # Without its mean every class is the answer to some input.
    mean = np.mean([y[0][0] for y in onnxkit.run(onnxkit.pack(proto), noise(64))], axis=0)
    proto.graph.initializer[-1].CopyFrom(onnx.numpy_helper.from_array(-mean, "head_b"))
    return proto


def noise(count: int) -> list[dict[str, Any]]:
    x = np.random.default_rng(0).standard_normal((count, 1, WIDTH)).astype(np.float32)
    return [{"r0": row} for row in x]


def put(rig: Rig, proto: onnx.ModelProto) -> Model:
    inputs, outputs = (
        tuple(onnxkit.tensor_spec(value) for value in values) for values in (proto.graph.input, proto.graph.output)
    )
    stage = Stage("main", rig.store.keep(onnxkit.pack(proto), "onnx"), (inputs[0].name,), (outputs[0].name,))
    return Model(proto.graph.name, Signature(inputs, outputs), (Variant("main", (stage,)),), {})


def own_answers(proto: onnx.ModelProto, count: int) -> Task:
    """Noise, labelled with what the graph itself says."""
    feeds = noise(count)
    answers = np.concatenate([y[0] for y in onnxkit.run(onnxkit.pack(proto), feeds)])

    def score(outputs: Any, labels: Any) -> float:
        return 100.0 * float(np.mean(outputs["y"].argmax(1) == labels))

    metric = Metric("top-1 accuracy", "%", full_scale=100.0)
    return Task.from_arrays(
        {"r0": np.concatenate([feed["r0"] for feed in feeds])}, answers.argmax(1), metric=metric, score=score
    )


def work(rig: Rig, name: str, drop: str = "off") -> tuple[Model, Workbench]:
    """The network with a context in which so much of the metric may be lost."""
    proto = network()
    model, bench = put(rig, proto), next(iter(rig.benches.values()))
    recipe = replace(bench.recipe, bounds=parse_bounds({"max_drop": drop}))
    own = replace(bench, original=model, reference=model, task=own_answers(proto, 240), recipe=recipe)
    return model, Workbench(own, key_of("mixed-bits", name))


def initializers(model: Model) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnxkit.read(model.graph).graph.initializer}


# ------------------------------------------------------------------ the whole step


@pytest.fixture(scope="module")
def five_bits(rig: Rig) -> Model:
    model, context = work(rig, "five")
    return MIXED_BITS.apply(model, OPTIONS, context)


def test_the_budget_is_kept_and_told(five_bits: Model):
    details = five_bits.history[-1].details
    weights = {name: WIDTH * (6 if name == "head" else WIDTH) for name in details["bits"]}
    average = sum(weights[name] * bits for name, bits in details["bits"].items()) / sum(weights.values())
    assert set(details["bits"].values()) == {2, 8}
    assert average <= 5
    assert details["said"] == pytest.approx(average / 8)
    assert details["found"] == pytest.approx(details["said"], rel=1e-6)
    assert [note.split(":")[0] for note in five_bits.history[-1].notes[:2]] == ["2 bits", "8 bits"]


def test_the_file_holds_exactly_the_codes_of_the_mix(rig: Rig, five_bits: Model):
    model, context = work(rig, "codes")
    job = start(model, OPTIONS, context)
    kinds = {2: (onnx.TensorProto.INT2, onnx.TensorProto.INT4), 8: (onnx.TensorProto.INT8,)}
    stored = initializers(five_bits)
    for layer, bits in zip(job.net.layers, five_bits.history[-1].details["bits"].values(), strict=True):
        [tensor] = [t for name, t in stored.items() if name.startswith(layer.weight) and len(t.dims) == 2]
        assert tensor.data_type in kinds[bits]
        encoding = job.net.forms[layer.name, bits].encodings[layer.weight]
        [weight] = [t for t in job.net.proto.graph.initializer if t.name == layer.weight]
        codes = encoding.codes(onnx.numpy_helper.to_array(weight))
        assert np.array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int32), codes)


def test_layers_that_fewer_bits_harm_keep_theirs(five_bits: Model):
    """So it came out for ten seeds of the weights, with a loss at least ten times below any other mix of the size."""
    bits = five_bits.history[-1].details["bits"]
    assert {name for name, own in bits.items() if own == 8} == {"fc1", "fc4", "head"}
    worst = [row["layer"] for row in five_bits.history[-1].details["layers"][:3]]
    assert set(worst) == {"fc1", "fc4", "head"}


def test_the_choice_loses_less_than_other_mixes_of_its_size(rig: Rig, five_bits: Model):
    """By examples that chose nothing."""
    model, context = work(rig, "rivals")
    job = start(model, OPTIONS, context)
    chosen = tuple(five_bits.history[-1].details["bits"].values())
    rng = np.random.default_rng(0)
    equal = {tuple(int(bits) for bits in rng.permutation(chosen[:-1])) for _ in range(6)} - {chosen[:-1]}
    found = [job.loss((*mix, chosen[-1]), "selection") for mix in equal]
    assert len(found) >= 3
    assert job.loss(chosen, "selection") < min(found) / 2


def test_a_budget_that_costs_too_much_of_the_metric_is_raised(rig: Rig):
    model, context = work(rig, "raised", drop="10%")
    step = MIXED_BITS.apply(model, Params(average=2), context).history[-1]
    assert not step.declined
    assert step.details["said"] > 2 / 8
    assert step.notes[-1].startswith("the budget of 0.250 was raised")


def test_where_even_the_most_precise_mix_loses_too_much_nothing_is_changed(rig: Rig):
    model, context = work(rig, "declined", drop="10%")
    result = MIXED_BITS.apply(model, Params(options=(2,), average=2), context)
    assert result.digest == model.digest
    assert result.history[-1].declined
    assert "nothing gained" in result.history[-1].notes[-1]


def test_what_was_found_before_a_kill_is_used_again(rig: Rig):
    model, context = work(rig, "resume")
    first = MIXED_BITS.apply(model, OPTIONS, context)
    told = list[str]()
    env = replace(context.bench.env, progress=lambda message, done, total: told.append(message))
    again = Workbench(replace(context.bench, env=env), context.key)
    assert MIXED_BITS.apply(model, OPTIONS, again).digest == first.digest
    assert "mixed-bits: calibrating" not in told


# ------------------------------------------------------------------ fitted and tuned


def test_fitted_layers_lose_less_than_rounded_ones(rig: Rig):
    """All layers in 2 bits; over ten seeds the loss was 0.12 to 0.48 of that of rounding, with a deviation of 0.12."""
    pytest.importorskip("torch")
    model, context = work(rig, "fitted")
    rounded, fitted = (start(model, Params(options=(2,), adapt=adapt), context) for adapt in (False, True))
    low = rounded.net.uniform(2)
    judge = rounded.judges["selection"]
    assert judge.loss_of(fitted.net.made(low)) < 0.75 * judge.loss_of(rounded.net.made(low))


def test_a_tuned_mix_is_nearer_to_float(rig: Rig):
    """All layers in 2 bits; over ten seeds of the examples the loss was 0.10 to 0.17 of that without."""
    model, context = work(rig, "tuned")
    job = start(model, Params(options=(2,)), context)
    judge, low = job.judges["selection"], job.net.uniform(2)
    plain, tuned = (judge.loss_of(onnxkit.read(job.finished(low, tune=tune).graph)) for tune in (False, True))
    assert tuned < 0.5 * plain
    assert job.finished(low, tune=True).digest == job.finished(low, tune=True).digest


# ------------------------------------------------------------------ latency


def test_predicted_latency_comes_true(rig: Rig):
    """Without a device the predictor's word is the truth that is learnt."""
    model = rig.models("onnx")["conv"]
    step = MIXED_BITS.apply(model, Params(cost="latency", budget=1.2, races=8), rig.context("conv", "latency")).history[
        -1
    ]
    assert set(step.details["bits"].values()) <= {8, FLOAT}
    assert step.details["said"] <= 1.2 + 1e-9
    assert step.details["found"] == pytest.approx(step.details["said"], rel=0.1)


def test_latency_with_borders_is_learnt_from_random_mixes(rig: Rig):
    """Float layers cost 0.02 to 0.07 each and pairs of them save 0.03; one race is off by 0.5 %."""
    net = job_net(rig)
    pairs = neighbours(net)
    assert pairs == [(i, i + 1) for i in range(DEPTH)]
    rng = np.random.default_rng(2)
    costs = 0.02 + 0.05 * rng.random(len(net.layers))

    def truth(mix: tuple[int, ...]) -> float:
        alone = sum(cost for cost, bits in zip(costs, mix) if bits == FLOAT)
        return 1.0 + alone - 0.03 * sum(mix[a] == mix[b] == FLOAT for a, b in pairs)

    races = [Race(mix, truth(mix) * (1 + 0.005 * rng.standard_normal())) for mix in random_mixes(DEPTH + 1, 24, 0)]
    prices = learn(net, races)
    for mix in random_mixes(DEPTH + 1, 20, seed=9):
        assert prices.share(mix) == pytest.approx(truth(mix), rel=0.03)
    assert prices.pairs[0].cost == pytest.approx(-0.03, abs=0.02)
    assert prices.share(net.uniform(8)) == 1.0


def job_net(rig: Rig) -> Net:
    model, context = work(rig, "net")
    return start(model, Params(), context).net


# ------------------------------------------------------------------ the parts


def test_losses_count_from_the_most_precise_mix_and_are_never_below_the_least():
    losses = Losses((2, 8), 0.5, ((0.9, 0.5), (0.4, 0.5)))
    assert losses.increases == [[pytest.approx(0.4), 0.0], [LEAST, 0.0]]
    assert losses.predicted((2, 8)) == pytest.approx(0.9)
    assert losses.predicted((8, 8)) == 0.5


def test_a_ladder_goes_from_the_budget_to_the_most_precise_mix(rig: Rig):
    net = job_net(rig)
    losses = Losses((2, 4, 8), 0.0, tuple((0.3 + i, 0.1 + i / 10, 0.0) for i in range(DEPTH + 1)))
    prices = prices_of(net.layers, (2, 4, 8), bytes_of)
    mixes = ladder(prices, losses, 0.4)
    shares = [prices.share(mix) for mix in mixes]
    assert shares[0] <= 0.4
    assert shares == sorted(shares)
    assert mixes[-1] == net.uniform(8)
    with pytest.raises(
        RecipeError, match=r"budget=0\.2 is too little for the options 2\+4\+8.*the cheapest costs 0\.25"
    ):
        ladder(prices, losses, 0.2)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (Params(average=5, budget=0.5), "say the same thing twice"),
        (Params(average=5, cost="bitops"), "with cost=bitops write budget=SHARE"),
        (Params(options=(4, 16)), "options=16 is no number of bits; allowed: 2 to 8, and 32 for float"),
        (Params(options=(4, 8), cost="latency"), "take as long as 8"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(params: Params, sentence: str):
    with pytest.raises(RecipeError, match=sentence):
        (budget_of(params), options_of(params))


def test_without_scipy_it_says_what_to_install(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    model = rig.models("onnx")["conv"]
    assert MIXED_BITS.check(model, rig.target) is None
    monkeypatch.setitem(sys.modules, "scipy", None)
    refusal = MIXED_BITS.check(model, rig.target)
    assert refusal is not None
    assert "pip install 'edgewright[bits]'" in refusal.reason


def test_bit_operations_count_both_factors():
    layer = next(each for each in usable_layers(prepare(network()), Scheme("static")) if each.name == "fc0")
    assert layer.macs == WIDTH * WIDTH
    assert bitops_of(layer, 4, 8) == WIDTH * WIDTH * 4 * 8
    assert bitops_of(layer, FLOAT, 8) == WIDTH * WIDTH * 32 * 32
