"""`engine profile`: a chain whose gate is a known function of its input, on an example alone and on real inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.bundle import open_bundle
from edgewright.cli import main
from edgewright.realinputs import LEAST, draw_inputs, open_task, rows_from, with_inputs
from edgewright.types import Gate

MakeBundle = Callable[..., Path]

WIDTH = 256
GIVES = f"float[1, {WIDTH}] y, float[1, {WIDTH}] h, float[1] score"
FIRST = f"""
<ir_version: 8, opset_import: ["" : 17]>
first (float[1, {WIDTH}] x) => ({GIVES})
<int64[1] zero = {{0}}, int64[1] one = {{1}}> {{
  y = Neg(x) h = Identity(x) cut = Slice(x, zero, one, one) score = Squeeze(cut, one)
}}
"""
LAYERS = " ".join(f"m{i} = MatMul({'h' if i == 0 else f't{i - 1}'}, w) t{i} = Tanh(m{i})" for i in range(12))
LAST = f"""
<ir_version: 8, opset_import: ["" : 17]>
last (float[1, {WIDTH}] h) => (float[1, {WIDTH}] y)
<int64[2] shape = {{{WIDTH}, {WIDTH}}}> {{
  w = ConstantOfShape<value = float[1] {{0.004}}>(shape) {LAYERS} y = Identity(t11)
}}
"""
DECIDES = """
<ir_version: 8, opset_import: ["" : 17]>
decides (float[1, 256] x) => (float[1, 256] y, int64[1] left)
<int64[1] zero = {0}, int64[1] one = {1}, float nothing = {0}> {
  y = Neg(x) cut = Slice(x, zero, one, one) score = Squeeze(cut, one)
  low = Less(score, nothing) left = Cast<to = 7>(low)
}
"""


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs the verb in a folder of its own: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(("profile", *argv, "--preset", "quick"))
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


def gated(make_bundle: MakeBundle, **given: Any) -> Path:
    """Rows whose first number is not negative leave at the first stage; the last one takes many times as long."""
    gates = [Gate("score", "max-probability", 0.0), None]
    return make_bundle(FIRST, LAST, carries=[("h",), ()], gates=gates, **given)


def data(folder: Path, count: int = 100) -> None:
    """Sorted, three in four leave early; 60 % of them are the test split."""
    x = np.zeros((count, WIDTH), np.float32)
    x[: count // 4, 0] = -1
    np.savez(folder / "data.npz", x=x)


def test_real_inputs_tell_shares_and_latency_of_each_exit(
    profile: Callable[..., Any], make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle = gated(make_bundle)
    data(tmp_path)
    code, out, err = profile(str(bundle), "--task", "data.npz", "--per-op", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["bundle"] == open_bundle(bundle).digest
    assert found["inputs"] == {"task": "data", "split": "test", "examples": 60}
    assert found["notes"] == []
    task = open_task(open_bundle(bundle), "data.npz")
    late = sum(int(batch.inputs["x"][0, 0] < 0) for batch in task.batches("test"))
    first, last = found["exits"]
    assert (first["name"], first["rows"], last["name"], last["rows"]) == ("stage0", 60 - late, "stage1", late)
    assert first["share"] == pytest.approx(1 - late / 60)
    runs, depths = found["runs_ns"][0], found["depths"][0]
    assert (first["latency"]["mean"]["n"], last["latency"]["mean"]["n"]) == (depths.count(0), depths.count(1))
    assert len(runs) == len(depths)
    assert last["latency"]["p50"]["value"] > 2 * first["latency"]["p50"]["value"]
    assert depths.count(1) / len(depths) == pytest.approx(late / 60, abs=0.05), "runs take the inputs in turn"
    rows = {m["quantity"]: m for m in found["measurements"]}
    assert set(rows) >= {"latency", "latency of runs to the end", "latency to the end", "peak memory"}
    assert rows["latency"]["conditions"]["cov"] < 0.5, "that some runs go deeper is no unrest"
    assert rows["latency to the end"]["value"] > first["latency"]["p50"]["value"]
    assert found["deadline"] is None
    assert {o["operator"] for o in found["operators"] if o["stage"] == "stage1"} >= {"MatMul", "Tanh"}
    assert "MatMul" not in {o["operator"] for o in found["operators"] if o["stage"] == "stage0"}


def test_the_table_has_a_row_for_each_exit(
    profile: Callable[..., Any], make_bundle: MakeBundle, tmp_path: Path
) -> None:
    data(tmp_path)
    code, out, _ = profile(str(gated(make_bundle)), "--task", "data.npz", "--examples", "20", "--deadline", "1us")
    assert code == 0
    lines = out.splitlines()
    assert lines[1] == "real inputs: 20, from the test split of data"
    head = next(number for number, line in enumerate(lines) if line.startswith("left at"))
    assert lines[head].split()[:6] == ["left", "at", "examples", "share", "runs", "p50"]
    counts = [int(lines[head + 1 + number].split()[1]) for number in (0, 1)]
    assert sum(counts) == 20
    assert 0 < counts[1] < 20
    (late,) = (line for line in lines if line.startswith("with a deadline of 1 µs: "))
    runs = int(late.split(" of ")[2].split()[0])
    assert f": {runs} of {runs} runs were late, and {runs} loops that did nothing; " in late
    assert f"; {runs} ended at stage0; 0 ended at stage1; p50 " in late


def test_without_a_task_the_depth_of_the_example_is_named(profile: Callable[..., Any], make_bundle: MakeBundle) -> None:
    code, out, _ = profile(str(gated(make_bundle)))
    assert code == 0
    assert "left at" not in out
    assert out.splitlines()[-1] == (
        "these figures are for the example input alone, which leaves at stage0 (exit 1 of 2); "
        "other inputs may cost more or less: give real ones with --task"
    )


def test_inputs_that_the_bundle_carries_are_told_from_its_example(
    profile: Callable[..., Any], make_bundle: MakeBundle
) -> None:
    stream = np.zeros((4, WIDTH), np.float32)
    stream[1, 0] = -1
    code, out, _ = profile(str(gated(make_bundle, files={"example/stream.npz": {"x": stream}})), "--json")
    assert code == 0
    found = json.loads(out)
    assert found["inputs"] is None
    (note,) = found["notes"]
    assert "the inputs that it carries, which leave at stage0 (exit 1 of 2) and stage1 (exit 2 of 2)" in note


def test_a_graph_that_decides_inside_numbers_its_exits(
    profile: Callable[..., Any], make_bundle: MakeBundle, tmp_path: Path
) -> None:
    data(tmp_path)
    bundle = str(make_bundle(DECIDES, exits="left"))
    code, out, _ = profile(bundle, "--task", "data.npz", "--json")
    assert code == 0
    found = json.loads(out)
    assert [way["name"] for way in found["exits"]] == ["exit 0", "exit 1"]
    assert sum(way["rows"] for way in found["exits"]) == 60
    (whole,) = (m for m in found["measurements"] if m["quantity"] == "latency to the end")
    assert "decides inside" in whole["reason"]


def test_a_model_without_gates_runs_one_real_input(
    profile: Callable[..., Any], make_bundle: MakeBundle, tmp_path: Path
) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((20, 4), np.float32))
    code, out, _ = profile(str(make_bundle()), "--task", "data.npz", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["exits"], found["depths"], found["inputs"]["examples"]) == ([], [[]], 1)
    assert found["notes"] == [
        "every run takes the same way through the model, so one real input is run again and again"
    ]


def test_data_that_does_not_fit_is_one_sentence(
    profile: Callable[..., Any], make_bundle: MakeBundle, tmp_path: Path
) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((20, 5), np.float32))
    code, _, err = profile(str(gated(make_bundle)), "--task", "data.npz")
    assert code == 2
    assert "gives float32 [5] per example for 'x', but the model takes float32 [256]" in err


# ------------------------------------------------------------------ drawing


def test_examples_are_drawn_from_all_over_the_split_and_always_the_same(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    data(tmp_path, 400)
    task = open_task(open_bundle(gated(make_bundle)), str(tmp_path / "data.npz"))
    drawn = draw_inputs(task, "test", 40, 1 << 30)["x"]
    assert 0 < (drawn[:, 0] < 0).sum() < 25, "the data is sorted, so the first 40 would be all alike"
    assert np.array_equal(drawn, draw_inputs(task, "test", 40, 1 << 30)["x"])
    assert len(draw_inputs(task, "test", 10**6, 1 << 30)["x"]) == task.size("test")
    assert len(draw_inputs(task, "test", 40, 10 * WIDTH * 4)["x"]) == 10
    assert len(draw_inputs(task, "test", 40, 1)["x"]) == LEAST


def test_the_copy_carries_the_inputs_and_is_otherwise_the_same(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = open_bundle(gated(make_bundle))
    x = np.arange(3 * WIDTH, dtype=np.float32).reshape(3, WIDTH)
    copied = open_bundle(with_inputs(bundle, {"x": x}, tmp_path / "copies").path)
    assert [a.digest for a in copied.artifacts] == [a.digest for a in bundle.artifacts]
    assert (copied.plan, copied.signature, copied.extra) == (bundle.plan, bundle.signature, bundle.extra)
    assert np.array_equal(np.load(copied.example_inputs)["x"], x[:1])
    assert copied.example_stream is not None
    assert np.array_equal(np.load(copied.example_stream)["x"], x)
    assert rows_from({"x": np.arange(3)}, 2, 3)["x"].tolist() == [2, 0, 1]
