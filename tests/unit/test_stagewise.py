"""Methods that know no stages, applied to a chain: what each stage is given, how it is judged, what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewright import onnxkit
from edgewright.asking.recipe import Method
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.deploying.steps import run_step
from edgewright.errors import PluginError, RefusedError
from edgewright.gates import depth_of
from edgewright.protocols import Context, NoParams
from edgewright.registry import TRANSFORMS, Registry
from edgewright.stagewise.apply import applied, refused
from edgewright.stagewise.rows import Piece
from edgewright.store import Store
from edgewright.task.metrics import top1
from edgewright.types import Array, Gate, Model, Offer, Refusal, Stage, Step, Target
from edgewright_plugins.qdq.place import Scheme, quantised_nodes
from edgewright_plugins.qdq.prepare import prepare as prepared
from edgewright_plugins.quantize import QUANTIZE

NAMES = ["front", "middle", "back"]


@dataclass(frozen=True)
class Params:
    """Parameters of the method below."""

    keep: tuple[str, ...] = field(default=(), metadata={"help": "nodes to leave", "nodes": True})


@dataclass(frozen=True)
class Watch:
    """A method of somebody else: it rewrites the only graph of a model as it is told, and notes what it saw."""

    change: Callable[[onnx.ModelProto], Any] = lambda proto: None
    look: Callable[[Model, Context, Any], str] = lambda model, context, params: "seen"
    answer: Callable[[Model], Refusal | None] = lambda model: None
    name: str = "watch"
    summary: str = "rewrites one graph"
    Params: type[Any] = NoParams
    takes: str = "onnx"
    gives: str = "onnx"
    needs: str = "calibration"
    reads: tuple[str, ...] = ("task",)

    def check(self, model: Model, target: Target) -> Refusal | None:
        return self.answer(model)

    def apply(self, model: Model, params: Any, context: Context) -> Model:
        proto = onnxkit.read(model.graph)
        self.change(proto)
        note = self.look(model, context, params)
        return model.with_graph(context.keep(onnxkit.pack(proto))).after(Step(self.name, "acme", notes=(note,)))


def work(method: Any, model: Model, bench: Bench, key: str, params: Any = None) -> Model:
    """The chain as the method leaves it; `key` names what may be remembered."""
    return applied(method, model, params or method.Params(), Workbench(bench, key))


def notes(model: Model) -> list[str]:
    return list(model.history[-1].notes)


def scaled(weight: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    """Multiplies an initializer."""

    def change(proto: onnx.ModelProto) -> None:
        for tensor in proto.graph.initializer:
            if tensor.name == weight:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), weight))

    return change


def answers(model: Model, images: Array) -> tuple[list[Array], Array]:
    """The logits of every stage, and the scores of the gates [gates, rows], found without the code under test."""
    logits: list[Array] = []
    scores: list[Array] = []
    fed = images
    for stage in model.stages:
        proto = onnxkit.read(stage.graph)
        found = next(onnxkit.run(onnxkit.pack(proto), [{proto.graph.input[0].name: fed}]))
        logits.append(found[0])
        if stage.gate:
            fed, score = found[1], found[2]
            scores.append(score)
    return logits, np.stack(scores)


def examples(bench: Bench, split: str) -> tuple[Array, Array]:
    """Images and labels of a split."""
    batches = list(bench.task.batches(split, 1000))
    return np.concatenate([batch.inputs["image"] for batch in batches]), np.concatenate([b.labels for b in batches])


def gated(model: Model, *thresholds: float | None) -> Model:
    """The chain with thresholds at its two gates."""
    gates = [Gate("sure", "max-probability", threshold) for threshold in thresholds]
    stages = tuple(replace(s, gate=g) for s, g in zip(model.stages, [*gates, None], strict=True))
    return replace(model, variants=(replace(model.variants[0], stages=stages),))


def halfway(bench: Bench) -> tuple[Model, Array]:
    """The chain with a threshold at which half of the selection split leaves first, and each row's way out."""
    _, scores = answers(bench.original, examples(bench, "selection")[0])
    thresholds = [float(np.median(each)) for each in scores]
    return gated(bench.original, *thresholds), depth_of(scores, thresholds)


# ------------------------------------------------------------------ what comes out


def test_a_method_that_knows_no_stages_rewrites_every_one_and_gates_are_kept(bench: Bench) -> None:
    method = Method(Offer(Watch(scaled("head", 2.0)), "acme", "0.1"), NoParams())
    model = gated(bench.original, 0.9999, None)
    after = run_step(method, model, bench)
    assert [(s.name, s.carry, s.gate, s.free_rows) for s in after.stages] == [
        (s.name, s.carry, s.gate, s.free_rows) for s in model.stages
    ]
    assert all(a.graph.digest != b.graph.digest for a, b in zip(after.stages, model.stages, strict=True))
    [step] = after.history
    assert (step.plugin, step.notes) == ("acme 0.1", tuple(f"{name}: seen" for name in NAMES))
    images, _ = examples(bench, "selection")
    (before, _), (now, _) = answers(model, images), answers(after, images)
    np.testing.assert_allclose(now[0], 2 * before[0] - _shift(model), rtol=1e-4, atol=1e-5)


def _shift(model: Model) -> Array:
    """The bias of the first stage's head."""
    graph = onnxkit.read(model.stages[0].graph).graph
    return next(numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == "shift")


def test_a_method_for_whole_models_gets_the_chain(bench: Bench) -> None:
    @dataclass(frozen=True)
    class Whole(Watch):
        whole: bool = True

        def apply(self, model: Model, params: Any, context: Context) -> Model:
            return model.after(Step(self.name, "acme", notes=(f"{len(model.stages)} stages",)))

    assert notes(work(Whole(), bench.original, bench, "whole")) == ["3 stages"]


def test_a_refused_stage_stays_and_says_so_and_all_refused_is_a_refusal(bench: Bench) -> None:
    def only_front(model: Model) -> Refusal | None:
        return None if model.name.endswith("front") else Refusal("it takes no image")

    after = work(Watch(scaled("head", 2.0), answer=only_front), bench.original, bench, "one refused")
    assert notes(after) == ["front: seen", *(f"{n}: left as it was: it takes no image" for n in NAMES[1:])]
    assert after.stages[1:] == bench.original.stages[1:]
    never = Watch(answer=lambda model: Refusal("it has no bolts in it"))
    assert refused(never, bench.original, bench.target) == Refusal("it has no bolts in it")
    with pytest.raises(RefusedError, match="watch cannot work on chain: it has no bolts in it"):
        run_step(Method(Offer(never, "acme", "0.1"), NoParams()), bench.original, bench)


def test_a_refusal_while_at_work_leaves_the_stage(bench: Bench) -> None:
    def stop(model: Model, context: Context, params: Any) -> str:
        if model.name.endswith("middle"):
            raise RefusedError("nothing to gain here")
        return "done"

    assert notes(work(Watch(look=stop), bench.original, bench, "stopped")) == [
        "front: done",
        "middle: left as it was: nothing to gain here",
        "back: done",
    ]


def test_a_stage_that_no_longer_fits_is_blamed_on_the_plugin(bench: Bench) -> None:
    def rename(proto: onnx.ModelProto) -> None:
        proto.graph.node[-1].output[0] = proto.graph.output[-1].name = "other"

    def fix(proto: onnx.ModelProto) -> None:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    for change, sentence in (
        (rename, "'front' returns"),
        (fix, "'front' no longer takes any number of rows of 'image'"),
    ):
        with pytest.raises(PluginError, match="acme 0.1 failed while applying 'watch' to chain for cpu: .*" + sentence):
            run_step(Method(Offer(Watch(change), "acme", "0.1"), NoParams()), bench.original, bench)


def test_after_a_kill_finished_stages_are_not_done_again(bench: Bench) -> None:
    seen: list[str] = []

    def die_once(model: Model, context: Context, params: Any) -> str:
        seen.append(model.name)
        if seen.count("chain-back") == 1:
            raise KeyboardInterrupt
        return "done"

    method = Method(Offer(Watch(look=die_once, name="dying"), "acme", "0.1"), NoParams())
    model = gated(bench.original, 0.9, None)
    with pytest.raises(KeyboardInterrupt):
        run_step(method, model, bench)
    finished, again = (run_step(method, model, bench) for _ in range(2))
    assert seen == ["chain-front", "chain-middle", "chain-back", "chain-back"]
    assert (again.variants, again.history) == (finished.variants, finished.history)


def test_names_of_nodes_go_to_the_stages_that_have_them(bench: Bench) -> None:
    watch = Watch(look=lambda model, context, params: ",".join(params.keep), Params=Params)
    after = work(watch, bench.original, bench, "nodes", Params(keep=("conv_h2", "no such node")))
    assert notes(after) == ["front: no such node", "middle: conv_h2,no such node", "back: no such node"]


# ------------------------------------------------------------------ what a stage is given


def test_without_thresholds_everything_reaches_every_stage_through_those_before_as_rewritten(bench: Bench) -> None:
    fed: dict[str, Array] = {}

    def look(model: Model, context: Context, params: Any) -> str:
        [name] = [spec.name for spec in model.signature.inputs]
        fed[name] = np.concatenate([feed[name] for feed in context.feed(model, "selection")])
        return str(list(context.outputs(model)))

    after = work(Watch(scaled("w", 1.5), look), bench.original, bench, "fed")
    assert notes(after) == ["front: ['logits', 'h1', 'sure']", "middle: ['logits', 'h2', 'sure']", "back: ['logits']"]
    images, _ = examples(bench, "selection")
    np.testing.assert_array_equal(fed["image"], images)
    for position, name in ((0, "h1"), (1, "h2")):
        proto = onnxkit.read(after.stages[position].graph)
        taken = proto.graph.input[0].name
        [made] = onnxkit.run(onnxkit.pack(proto), [{taken: fed[taken]}], [name])
        np.testing.assert_allclose(fed[name], made[0], rtol=1e-5, atol=1e-6)


def test_only_rows_that_reach_a_stage_are_fed_and_a_few_are_added_where_they_lack(bench: Bench) -> None:
    model, depth = halfway(bench)
    rows: dict[str, list[int]] = {}

    def look(model: Model, context: Context, params: Any) -> str:
        rows[model.name] = [len(list(context.feed(model, split))) for split in ("calibration", "selection")]
        return "seen"

    after = work(Watch(look=look), model, bench, "gated")
    assert rows["chain-front"] == [25, 75]
    assert rows["chain-middle"] == [25, int(np.sum(depth > 0))]
    assert rows["chain-back"] == [25, max(32, int(np.sum(depth > 1)))]
    said = [note for note in notes(after) if "added" in note]
    assert "middle: few rows reach it, so rows that leave before were added" in said[0]
    assert "of 25 (calibration)" in said[0]


# ------------------------------------------------------------------ how a stage is judged


def test_without_thresholds_a_stage_is_judged_by_all_answers_it_has_a_part_in(bench: Bench) -> None:
    def look(model: Model, context: Context, params: Any) -> str:
        assert context.task is not None
        return f"{context.score(model).value:.6f} {context.task.metric.name}"

    found = [note.split(": ")[1].split(" ", 1) for note in notes(work(Watch(look=look), bench.original, bench, "mean"))]
    images, labels = examples(bench, "selection")
    logits, _ = answers(bench.original, images)
    each = [top1({"logits": answer}, labels) for answer in logits]
    assert [float(score) for score, _ in found] == pytest.approx([np.mean(each), np.mean(each[1:]), each[2]], abs=1e-5)
    assert [name for _, name in found] == [
        "top-1 accuracy, mean of 3 exits",
        "top-1 accuracy, mean of 2 exits",
        "top-1 accuracy",
    ]


def test_with_thresholds_the_chain_is_judged_with_the_stage_replaced(bench: Bench) -> None:
    model, _ = halfway(bench)
    thresholds = [stage.gate.threshold for stage in model.stages if stage.gate]
    spoil = scaled("head", -1.0)

    def look(own: Model, context: Context, params: Any) -> str:
        proto = onnxkit.read(own.graph)
        spoil(proto)
        return f"{context.score(own.with_graph(context.keep(onnxkit.pack(proto)))).value:.6f}"

    found = [
        float(note.split(": ")[-1]) for note in notes(work(Watch(look=look), model, bench, "replaced")) if "." in note
    ]
    images, labels = examples(bench, "selection")
    for position, score in enumerate(found):
        stages = list(model.stages)
        proto = onnxkit.read(stages[position].graph)
        spoil(proto)
        stages[position] = replace(stages[position], graph=bench.store.keep(onnxkit.pack(proto)))
        logits, scores = answers(replace(model, variants=(replace(model.variants[0], stages=tuple(stages)),)), images)
        taken = depth_of(scores, thresholds)
        kept = np.stack(logits)[taken, np.arange(len(taken))]
        assert score == pytest.approx(top1({"logits": kept}, labels), abs=1e-5)
    assert len(found) == 3
    assert len(set(found)) > 1


def test_what_early_stages_lose_is_not_there_for_later_ones(bench: Bench) -> None:
    watch = Watch(look=lambda model, context, params: str(context.max_drop))
    assert notes(work(watch, bench.original, bench, "free")) == [f"{name}: 0.01" for name in NAMES]
    spoiling = replace(watch, change=scaled("w", -1.0))
    assert notes(work(spoiling, bench.original, bench, "spent")) == ["front: 0.01", "middle: 0.0", "back: 0.0"]


# ------------------------------------------------------------------ rows


def test_batches_are_filled_up_and_outputs_without_rows_are_refused(bench: Bench, tmp_path: Path) -> None:
    front = bench.original.stages[0]
    images, _ = examples(bench, "selection")
    by_one, by_four = (Piece(front, batch).run([images[:6]]) for batch in (1, 4))
    for one, four in zip(by_one, by_four, strict=True):
        np.testing.assert_allclose(one, four, rtol=1e-5, atol=1e-6)
    text = """<ir_version: 8, opset_import: ["": 17]>
    total (float[n, 4] x) => (float[4] y) { y = ReduceSum <keepdims = 0> (x, axes) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "axes"))
    stage = Stage("total", Store(tmp_path).keep(onnxkit.pack(proto)), ("x",), ("y",))
    with pytest.raises(RefusedError, match=r"'total' .* for 2 examples its 'y' has the shape \[4\]"):
        Piece(stage, 2).run([np.ones((2, 4), np.float32)])


# ------------------------------------------------------------------ quantize


def test_a_score_stays_float_and_other_softmaxes_do_not(bench: Bench) -> None:
    front = prepared(onnxkit.read(bench.original.stages[0].graph))
    assert set(quantised_nodes(front, Scheme("static"))) == {"conv_h1", "relu", "pool", "Reshape_flat", "classify_h1"}
    text = """<ir_version: 8, opset_import: ["": 17]>
    attention (float[1, 4, 4] x) => (float[1, 4, 4] y, float[1, 4] z) {
        [shares] s = Softmax(x) [mix] y = MatMul(s, x) [row] z = ReduceMean <axes = [1], keepdims = 0> (y) }"""
    attention = prepared(onnx.parser.parse_model(text))
    assert "shares" in quantised_nodes(attention, Scheme("static"))


def test_quantize_makes_every_stage_int8_but_a_kept_node_and_keeps_gates_and_scores(bench: Bench) -> None:
    params = QUANTIZE.Params(mode="static", activations="u8", range="min-max", drop=1.0, keep=("conv_h2",))
    after = work(QUANTIZE, bench.original, bench, "quantize", params)
    assert [(s.name, s.outputs, s.carry, s.gate) for s in after.stages] == [
        (s.name, s.outputs, s.carry, s.gate) for s in bench.original.stages
    ]
    for stage in after.stages:
        proto = onnxkit.read(stage.graph)
        integers = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
        assert len(integers) == (1 if stage.name == "middle" else 2)
        assert [value.name for value in proto.graph.output] == list(stage.returns)
    images, _ = examples(bench, "selection")
    (wanted, scores), (found, rounded) = answers(bench.original, images), answers(after, images)
    for want, got in zip(wanted, found, strict=True):
        assert np.abs(want - got).mean() < 0.02 * np.abs(want).max()
        assert np.mean(want.argmax(1) == got.argmax(1)) > 0.9
    assert rounded.dtype == np.float32
    assert np.abs(scores - rounded).mean() < 0.02
    assert len(np.unique(rounded[0])) == len(images)


def test_every_method_here_is_offered_as_one_for_single_graphs() -> None:
    registry = Registry()
    for name in ("simplify", "half", "quantize", "adaquant", "eora", "mixed-bits"):
        assert not getattr(registry.get(TRANSFORMS, name).value, "whole", False)
