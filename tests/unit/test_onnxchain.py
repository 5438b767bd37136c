"""Stages merged and nested: what is left answers as before, bit for bit, and leaves where it left."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.gates import leaves
from edgewright.onnxchain import dropped, merge, nested
from edgewright.types import Array, Gate, GraphFile, Signature, Stage, TensorSpec, Variant

ROWS = 2000
WIDTH, CLASSES = 8, 5
SIGNATURE = Signature((TensorSpec("x", "float32", (1, WIDTH)),), (TensorSpec("logits", "float32", (1, CLASSES)),))

SCORES = {
    "max-probability": "p = Softmax(logits) s = ReduceMax<axes=[1], keepdims=0>(p)",
    "entropy": "p = Softmax(logits) l = Log(p) pl = Mul(p, l) s = ReduceSum<keepdims=0>(pl, one)",
    "patience": "s = Identity(seen{k})",
}
FIRST_MEMORY = "top{k} = ArgMax<axis=1, keepdims=0>(logits) none = Sub(top{k}, top{k}) seen{k} = Cast<to=1>(none)"
MEMORY = """top{k} = ArgMax<axis=1, keepdims=0>(logits) same = Equal(top{k}, top{b}) more = Add(seen{b}, unit)
    seen{k} = Where(same, more, nil)"""
CONSTANTS = "int64[1] one = {1}, float unit = {1}, float nil = {0}"


class Shelf:
    """Keeps graphs in a folder, as the cache does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, data: bytes, format: str) -> GraphFile:
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / f"{digest}.{format}"
        path.write_bytes(data)
        return GraphFile(path, digest, format)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def weights(rng: np.random.Generator, k: int) -> list[onnx.TensorProto]:
    shapes = {"w": (WIDTH, WIDTH), "head": (WIDTH, CLASSES)}
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made["skip"] = np.eye(WIDTH, dtype=np.float32)  # all stages share it
    return [numpy_helper.from_array(array, name) for name, array in made.items()]


def graph(k: int, last: bool, rule: str, rows: str | int = 1, opset: int = 17) -> onnx.ModelProto:
    """Stage `k` with the same inner names in every stage; it needs the model's input again from stage 1 on."""
    memory = rule == "patience"
    ins = [f"float[{rows}, {WIDTH}] x"] + ([f"float[{rows}, {WIDTH}] h{k - 1}"] if k else [])
    outs = [f"float[{rows}, {CLASSES}] logits"] + ([] if last else [f"float[{rows}, {WIDTH}] h{k}"])
    body = f"a = MatMul({f'h{k - 1}' if k else 'x'}, w) b = MatMul(x, skip) c = Add(a, b) h{k} = Tanh(c)"
    body += f" logits = MatMul(h{k}, head)"
    if memory and k:
        ins += [f"int64[{rows}] top{k - 1}", f"float[{rows}] seen{k - 1}"]
    if memory and not last:
        outs += [f"int64[{rows}] top{k}", f"float[{rows}] seen{k}"]
        body += " " + (MEMORY if k else FIRST_MEMORY).format(k=k, b=k - 1)
    if not last:
        outs.append(f"float[{rows}] s")
        body += " " + SCORES[rule].format(k=k)
    text = f"stage{k} ({', '.join(ins)}) => ({', '.join(outs)}) <{CONSTANTS}> {{ {body} }}"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')
    proto.graph.initializer.extend(weights(np.random.default_rng(k), k))
    return proto


def chain(shelf: Shelf, rule: str, thresholds: tuple[float | None, ...], **how: int | str) -> Variant:
    stages = []
    for k in range(len(thresholds) + 1):
        last = k == len(thresholds)
        carry = () if last else (f"h{k}", *((f"top{k}", f"seen{k}") if rule == "patience" else ()))
        gate = None if last else Gate("s", rule, thresholds[k])
        file = shelf.keep(onnxkit.pack(graph(k, last, rule, **how)), "onnx")
        stages.append(Stage(f"stage{k}", file, ("x",), ("logits",), carry, gate))
    return Variant("main", tuple(stages))


def inputs() -> Array:
    return np.random.default_rng(7).normal(size=(ROWS, WIDTH)).astype(np.float32)


def flow(variant: Variant, rows: Array) -> Iterator[tuple[Array, int]]:
    """Answer and exit of each row, one at a time, stage by stage."""
    sessions = [onnxkit.session(onnxkit.pack(onnxkit.read(stage.graph))) for stage in variant.stages]
    for row in rows:
        carried: list[Array] = []
        for k, (stage, session) in enumerate(zip(variant.stages, sessions, strict=True)):
            given = [row[None], *carried]
            results = session.run(None, dict(zip([i.name for i in session.get_inputs()], given, strict=True)))
            carried = results[1 : 1 + len(stage.carry)]
            if stage.gate is None or leaves(results[-1], stage.gate.threshold)[0]:
                yield results[0], k
                break


def run_nested(proto: onnx.ModelProto, rows: Array) -> list[tuple[Array, int]]:
    session = onnxkit.session(onnxkit.pack(proto))
    found = [session.run(None, {"x": row[None]}) for row in rows]
    assert {tuple(exits.shape) for _, exits in found} == {(1,)}
    return [(logits, int(exits[0])) for logits, exits in found]


def check_same(found: list[tuple[Array, int]], wanted: list[tuple[Array, int]]) -> None:
    assert [exit for _, exit in found] == [exit for _, exit in wanted]
    np.testing.assert_array_equal(np.stack([a for a, _ in found]), np.stack([a for a, _ in wanted]))


CHAINS = {
    "max-probability": (0.9, 0.8, 0.7),
    "entropy": (-0.4, -0.6, -0.8),
    "patience": (1.0, 1.0, 1.0),
}


@pytest.mark.parametrize("rule", CHAINS)
def test_one_graph_decides_as_the_stages_do(shelf: Shelf, rule: str) -> None:
    variant = chain(shelf, rule, CHAINS[rule])
    proto = nested(variant, SIGNATURE)
    onnx.checker.check_model(onnx.load_from_string(onnxkit.pack(proto)), full_check=True)
    wanted = list(flow(variant, inputs()))
    exits = np.bincount([exit for _, exit in wanted], minlength=4)
    assert (exits > 20).sum() >= 3
    check_same(run_nested(proto, inputs()), wanted)


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("rule", CHAINS)
def test_without_exits_the_others_decide_as_before(shelf: Shelf, rule: str, closed: tuple[int, ...]) -> None:
    variant = chain(shelf, rule, CHAINS[rule])
    shut = [
        replace(s, gate=replace(s.gate, threshold=None)) if s.gate and k in closed else s
        for k, s in enumerate(variant.stages)
    ]
    fewer = dropped(variant, closed, shelf.keep)
    assert [stage.name for stage in fewer.stages] == [f"stage{k}" for k in range(4) if k not in closed]
    numbers = [k for k in range(4) if k not in closed]
    rows = inputs()[:300]
    found = [(answer, numbers[exit]) for answer, exit in flow(fewer, rows)]
    check_same(found, list(flow(replace(variant, stages=tuple(shut)), rows)))
    for stage in fewer.stages:
        proto = onnxkit.read(stage.graph)
        onnx.checker.check_model(proto, full_check=True)
        names = (*stage.outputs, *stage.carry, *((stage.gate.score,) if stage.gate else ()))
        assert tuple(value.name for value in proto.graph.output) == names


def test_a_merged_stage_holds_no_head_and_shared_weights_once(shelf: Shelf) -> None:
    variant = dropped(chain(shelf, "max-probability", (0.9, 0.8, 0.7)), (0, 1), shelf.keep)
    proto = onnxkit.read(variant.stages[0].graph)
    shapes = sorted(tuple(tensor.dims) for tensor in proto.graph.initializer)
    assert shapes == sorted([(WIDTH, WIDTH)] * 4 + [(WIDTH, CLASSES)])  # three layers, one skip, one head
    assert onnxkit.operators(proto)["Softmax"] == 1


def test_an_untouched_stage_keeps_its_file(shelf: Shelf) -> None:
    variant = chain(shelf, "max-probability", (0.9, 0.8, 0.7))
    fewer = dropped(variant, (2,), shelf.keep)
    assert fewer.stages[:2] == variant.stages[:2]
    assert dropped(variant, (), shelf.keep) == variant


def test_rows_stay_free_where_they_were(shelf: Shelf) -> None:
    variant = chain(shelf, "max-probability", (0.9, 0.8), rows="rows")
    free = replace(variant, stages=tuple(replace(s, free_rows=True) for s in variant.stages))
    (single,) = dropped(free, (0, 1), shelf.keep).stages
    assert single.free_rows
    (together,) = onnxkit.run(single.graph.path, [{"x": inputs()[:7]}])
    pools = onnxkit.run_stages(variant, [{"x": inputs()[:7]}])
    np.testing.assert_array_equal(together[0], pools[0]["logits"])
    mixed = replace(free, stages=(replace(free.stages[0], free_rows=False), *free.stages[1:]))
    assert not dropped(mixed, (0, 1), shelf.keep).stages[0].free_rows


def test_a_value_handed_through_is_copied(shelf: Shelf) -> None:
    head = '<ir_version: 8, opset_import: ["": 17]>'
    first = onnx.parser.parse_model(
        f"{head} a (float[1, 2] x) => (float[1, 2] y, float[1, 2] m, float[1] s) "
        "{ y = Relu(x) m = Neg(x) s = ReduceMax<axes=[1], keepdims=0>(x) }"
    )
    then = onnx.parser.parse_model(
        f"{head} b (float[1, 2] m) => (float[1, 2] y, float[1, 2] m, float[1] s) "
        "{ y = Exp(m) s = ReduceMax<axes=[1], keepdims=0>(m) }"
    )
    dummy = shelf.keep(b"", "onnx")
    a = Stage("a", dummy, ("x",), ("y",), ("m",), Gate("s", "entropy"))
    b = Stage("b", dummy, (), ("y",), ("m",), Gate("s", "entropy"))
    stage, proto = merge(a, first, b, then)
    onnx.checker.check_model(proto, full_check=True)
    x = np.array([[1.0, -2.0]], np.float32)
    (found,) = onnxkit.run(onnxkit.pack(proto), [{"x": x}], stage.returns)
    assert stage.returns == ("y", "m", "s")
    for each, wanted in zip(found, (np.exp(-x), -x, [2.0]), strict=True):
        np.testing.assert_allclose(each, wanted, rtol=1e-6)


def test_an_input_handed_through_two_stages_is_copied_too(shelf: Shelf) -> None:
    head = '<ir_version: 8, opset_import: ["": 17]>'
    texts = [f"s{k} (float[1] m) => (float[1] y, float[1] m, float[1] s) {{ y = Neg(m) s = Exp(m) }}" for k in (1, 2)]
    first, then = (onnx.parser.parse_model(f"{head} {text}") for text in texts)
    dummy = shelf.keep(b"", "onnx")
    a, b = (Stage(name, dummy, (), ("y",), ("m",), Gate("s", "entropy")) for name in "ab")
    stage, proto = merge(a, first, b, then)
    onnx.checker.check_model(proto, full_check=True)
    assert [value.name for value in proto.graph.input] == ["m"]
    assert "m" not in stage.carry  # nothing may be input and output at once
    assert (stage.outputs, stage.gate) == (("y",), Gate("s", "entropy"))
    (found,) = onnxkit.run(onnxkit.pack(proto), [{"m": np.float32([2])}], stage.returns)
    assert [float(each[0]) for each in found] == [-2.0, 2.0, pytest.approx(np.exp(2))]


def test_an_input_of_the_model_that_comes_late_keeps_its_place(shelf: Shelf) -> None:
    head = '<ir_version: 8, opset_import: ["": 17]>'
    texts = [
        "a (float[1] x) => (float[1] y, float[1] m, float[1] s) { y = Relu(x) m = Neg(x) s = Exp(x) }",
        "b (float[1] z, float[1] m) => (float[1] y, float[1] n, float[1] s) { y = Sub(z, m) n = Exp(m) s = Neg(z) }",
        "c (float[1] n) => (float[1] y) { y = Neg(n) }",
    ]
    files = [shelf.keep(onnxkit.pack(onnx.parser.parse_model(f"{head} {text}")), "onnx") for text in texts]
    stages = (
        Stage("a", files[0], ("x",), ("y",), ("m",), Gate("s", "entropy", 2.0)),
        Stage("b", files[1], ("z",), ("y",), ("n",), Gate("s", "entropy", 0.0)),
        Stage("c", files[2], (), ("y",)),
    )
    variant = Variant("main", stages)
    fewer = dropped(variant, (0,), shelf.keep)
    assert fewer.stages[0].inputs == ("x", "z")
    (found,) = onnxkit.run(fewer.stages[0].graph.path, [{"x": np.float32([3]), "z": np.float32([5])}])
    assert [float(each[0]) for each in found] == [8.0, pytest.approx(np.exp(-3)), -5.0]
    later = dropped(variant, (1,), shelf.keep)
    assert [value.name for value in onnxkit.read(later.stages[1].graph).graph.input] == ["z", "m"]
    specs = [TensorSpec(name, "float32", (1,)) for name in "zxy"]
    proto = nested(variant, Signature(tuple(specs[:2]), tuple(specs[2:])))
    feeds = [{"x": np.float32([x]), "z": np.float32([z])} for x, z in ((1, 1), (0, -1), (0, 1))]
    answers = [(float(y[0]), int(exits[0])) for y, exits in onnxkit.run(onnxkit.pack(proto), feeds)]
    assert answers == [(1.0, 0), (-1.0, 1), (-1.0, 2)]


def test_different_opsets_meet_at_the_higher_one(shelf: Shelf) -> None:
    variant = chain(shelf, "max-probability", (0.9,))
    higher = shelf.keep(onnxkit.pack(graph(1, True, "max-probability", opset=20)), "onnx")
    mixed = replace(variant, stages=(variant.stages[0], replace(variant.stages[1], graph=higher)))
    (stage,) = dropped(mixed, (0,), shelf.keep).stages
    assert onnxkit.opsets(onnxkit.read(stage.graph)) == {"ai.onnx": 20}
    rows = inputs()[:20]
    check_same(list(flow(Variant("m", (stage,)), rows)), [(a, 0) for a, _ in flow(opened(mixed), rows)])


def opened(variant: Variant) -> Variant:
    stages = [replace(s, gate=replace(s.gate, threshold=None)) if s.gate else s for s in variant.stages]
    return replace(variant, stages=tuple(stages))


DOUBLE = """<domain: "own", opset_import: ["": 17]> twice (x) => (y) {{ y = {body} }}"""


def test_functions_of_the_same_name_stay_apart(shelf: Shelf) -> None:
    texts = [
        "a (float[1] x) => (float[1] y, float[1] m, float[1] s) { y = Neg(x) m = own.twice(x) s = Exp(x) }",
        "b (float[1] m) => (float[1] y) { y = own.twice(m) }",
    ]
    protos = []
    for text, body in zip(texts, ("Add(x, x)", "Mul(x, x)"), strict=True):
        proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17, "own": 1]> {text}')
        proto.functions.append(onnx.parser.parse_function(DOUBLE.format(body=body)))
        protos.append(proto)
    stages = (
        Stage("a", shelf.keep(onnxkit.pack(protos[0]), "onnx"), ("x",), ("y",), ("m",), Gate("s", "entropy", 0.1)),
        Stage("b", shelf.keep(onnxkit.pack(protos[1]), "onnx"), (), ("y",)),
    )
    (single,) = dropped(Variant("main", stages), (0,), shelf.keep).stages
    (found,) = onnxkit.run(single.graph.path, [{"x": np.float32([3])}])
    assert found[0].tolist() == [36.0]


def test_thresholds_can_be_edited_in_the_file_and_nan_goes_on(shelf: Shelf) -> None:
    proto = nested(chain(shelf, "max-probability", (0.9, 0.8, 0.7)), SIGNATURE)
    written = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.name.startswith("threshold")}
    assert {name: (a.dtype.name, a.tolist()) for name, a in written.items()} == {
        f"threshold_{k}": ("float32", np.float32(t).item()) for k, t in enumerate((0.9, 0.8, 0.7))
    }
    for tensor in proto.graph.initializer:
        if tensor.name == "threshold_1":
            tensor.CopyFrom(numpy_helper.from_array(np.array(0, np.float32), "threshold_1"))
    assert {exit for _, exit in run_nested(proto, inputs()[:200])} <= {0, 1}
    nan = np.full((1, WIDTH), np.nan, np.float32)
    assert run_nested(nested(chain(shelf, "max-probability", (0.0, 0.0)), SIGNATURE), nan)[0][1] == 2


def test_the_file_names_its_ends_and_loads_without_a_word(shelf: Shelf, capfd: pytest.CaptureFixture[str]) -> None:
    proto = nested(chain(shelf, "patience", (0.5, 0.5), rows="rows"), SIGNATURE, exits="left_at")
    assert [onnxkit.tensor_spec(value) for value in (*proto.graph.input, *proto.graph.output)] == [
        *SIGNATURE.inputs,
        *SIGNATURE.outputs,
        TensorSpec("left_at", "int64", (1,)),
    ]
    options = ort.SessionOptions()
    options.log_severity_level = 2
    ort.InferenceSession(onnxkit.pack(proto), options, providers=["CPUExecutionProvider"])
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_nested_is_refused(shelf: Shelf) -> None:
    variant = chain(shelf, "max-probability", (0.9, None))
    with pytest.raises(RefusedError, match=r"'stage1' has no threshold.*fit the gates first"):
        nested(variant, SIGNATURE)
    batch = replace(SIGNATURE, inputs=(TensorSpec("x", "float32", (4, WIDTH)),))
    with pytest.raises(RefusedError, match=r"x float32 \[4, 8\] has more: deploy with --batch 1"):
        nested(variant, batch)
    with pytest.raises(RefusedError, match="has no exit to drop"):
        dropped(variant, (2,), shelf.keep)
