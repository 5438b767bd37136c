"""The main job, end to end, with the real agent, runtime and data: what ships, what is said, what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from commands import engine
from edgewright.bundle import is_bundle, open_bundle
from edgewright_runtime import load

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "examples" / "digits" / "digits.onnx")
DATA = str(ROOT / "examples" / "digits" / "digits.npz")
SOON = "quick:seconds=0.2,rounds=3"
"""For what is not about speed."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """The digits network, quantised for this host: (folder, the JSON report, what people saw)."""
    folder = tmp_path_factory.mktemp("deploy")
    done = engine(
        folder, "deploy", DIGITS, "--target", "cpu", "--task", DATA, "--preset", "quick", "--out", "out", "--json"
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def test_int8_ships_when_it_is_faster_and_keeps_the_metric(deployed):
    _, report, _ = deployed
    rows = {row["quantity"]: row for row in report["rows"]}
    latency, size, accuracy = rows["latency p50"], rows["size"], rows["top-1 accuracy"]
    assert "quantize" in report["verdict"]["shipped"]
    low, high = latency["ratio"]["interval"]
    assert low <= latency["ratio"]["value"] <= high
    assert latency["ratio"]["value"] > 1.2, "about twice as fast; how narrow the interval is, the day decides"
    assert size["candidate"]["value"] < 0.5 * size["original"]["value"]
    assert accuracy["original"]["value"] - accuracy["candidate"]["value"] <= 1.0
    assert rows["agreement with the original"]["candidate"]["value"] > 98
    assert (rows["energy"]["candidate"]["value"], bool(rows["energy"]["candidate"]["reason"])) == (None, True)


def test_the_bundle_is_whole_and_answers_as_it_should(deployed):
    folder, report, _ = deployed
    bundle = open_bundle(folder / "out")
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(bundle.artifacts[0].operators)
    assert 0 < bundle.artifacts[0].numerics["max_abs"] < 5
    assert bundle.extra["task"]["splits"]["test"] == report["rows"][0]["candidate"]["n"] or bundle.extra["task"]
    assert (folder / "out" / "report.md").read_text().count("|") > 20
    verified = engine(folder, "verify", "out", "--json")
    assert json.loads(verified.stdout)["agrees"] is True


def test_the_report_looks_closer_at_the_original_and_at_what_ships(deployed):
    _, report, _ = deployed
    assert [each["name"] for each in report["closeups"]] == ["original", report["verdict"]["shipped"]]
    p50 = next(row for row in report["rows"] if row["quantity"] == "latency p50")
    for each, side in zip(report["closeups"], ("original", "candidate"), strict=True):
        spread, kernels = each["spread"], {kernel["name"]: kernel for kernel in each["kernels"]}
        assert spread["ms"] == sorted(spread["ms"])
        assert (spread["ms"][50], spread["n"]) == (pytest.approx(p50[side]["value"], rel=0.01), p50[side]["n"])
        convolved = [node for node in each["operators"] if "Conv" in node["operator"]]
        assert len(convolved) == 4
        assert all(kernels[node["kernel"]]["operator"] == "Conv" and node["median_us"] > 0 for node in convolved)
        assert each["predicted"][0]["kind"] == "predicted"


def test_the_bundle_runs_on_an_npz_of_examples(deployed):
    folder, _, _ = deployed
    with np.load(DATA) as data:
        x, y = data["x_test"][:50], data["y_test"][:50]
    np.savez(folder / "x.npz", image=x)
    done = engine(folder, "run", "out", "--input", "x.npz", "--out", "y.npz")
    assert done.returncode == 0, done.stderr
    with np.load(folder / "y.npz") as answer:
        assert (answer["logits"].argmax(1) == y).mean() > 0.9


def test_the_second_run_takes_every_step_from_the_cache(deployed):
    folder, _, _ = deployed
    done = engine(
        folder, "deploy", DIGITS, "--target", "cpu", "--task", DATA, "--preset", "quick", "--out", "again", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert "calibrating" not in done.stderr
    assert "racing" not in done.stderr
    first, second = open_bundle(folder / "out"), open_bundle(folder / "again")
    assert first.artifacts[0].digest == second.artifacts[0].digest


def test_a_bundle_is_a_model_too(deployed):
    folder, _, _ = deployed
    done = engine(folder, "deploy", "out", "--target", "jetson", "--apply", "simplify", "--out", "nano", "--json")
    assert done.returncode in (0, 3), done.stderr
    assert json.loads(done.stdout)["verdict"]["status"].startswith("predicted")
    assert open_bundle(folder / "nano").plan.placements[0].provider == "TensorrtExecutionProvider"


def test_a_written_bound_that_is_not_met_ships_the_best_legal_model_and_exits_3(deployed):
    folder, _, _ = deployed
    done = engine(
        folder, "deploy", DIGITS, "--target", "cpu", "--task", DATA, "--preset", "quick", "--out", "dream",
        "--min-speedup", "50", "--json",
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert done.returncode == 3
    assert (report["verdict"]["shipped"], report["verdict"]["status"]) == ("original", "not met")
    assert is_bundle(folder / "dream")


def test_profile_and_compare_measure_the_bundle(deployed):
    folder, _, _ = deployed
    done = engine(folder, "profile", "out", "--preset", SOON, "--per-op", "--json")
    profile = json.loads(done.stdout)
    assert any(o["operator"] == "QLinearConv" for o in profile["operators"])
    told = {m["quantity"] for m in profile["measurements"]}
    assert told >= {"latency", "load", "first inference", "peak memory", "energy"}
    done = engine(folder, "compare", DIGITS, "out", "--preset", SOON, "--fail-if", "size>-10%", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["changes"]["latency"][0] < -0.2, "about half the time"
    done = engine(folder, "compare", DIGITS, "out", "--preset", SOON, "--fail-if", "size<-10%")
    assert done.returncode == 3


def test_a_tampered_bundle_is_refused_by_every_verb(deployed, tmp_path):
    folder, _, _ = deployed
    copied = tmp_path / "tampered"
    subprocess.run(["cp", "-r", str(folder / "out"), str(copied)], check=True)
    artifact = next((copied / "artifacts").iterdir())
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"\0")
    np.savez(tmp_path / "x.npz", image=np.zeros((1, 1, 8, 8), np.float32))
    for argv in (
        ("verify", "tampered"),
        ("run", "tampered", "--input", "x.npz"),
        ("profile", "tampered"),
        ("deploy", "tampered", "--target", "cpu"),
    ):
        done = engine(tmp_path, *argv)
        assert (done.returncode, "was changed" in done.stderr.splitlines()[-1]) == (2, True), argv


# ------------------------------------------------------------------ kills

MOMENTS = ("quantize: racing", "comparing original", "outputs on test")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_at_any_step_leaves_no_half_bundle_and_the_next_run_goes_on(tmp_path, how):
    for moment in MOMENTS:
        code = killed_at(tmp_path, moment, how)
        assert code == (-signal.SIGKILL if how is signal.SIGKILL else 130)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".*.partial"))
    done = engine(tmp_path, *COMMAND)
    assert done.returncode == 0, done.stderr
    assert "calibrating" not in done.stderr
    assert is_bundle(tmp_path / "out")


COMMAND = ("deploy", DIGITS, "--target", "cpu", "--task", DATA, "--preset", SOON, "--out", "out")


def killed_at(folder: Path, moment: str, how: signal.Signals) -> int:
    """Start the deploy, and send the signal as soon as it says that it is there."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-c", "from edgewright.cli import main; main()", *COMMAND]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if moment in line:
            process.send_signal(how)
            break
    process.stderr.read()
    process.stderr.close()
    return process.wait(timeout=600)


def test_nothing_is_left_running_after_a_kill(tmp_path):
    killed_at(tmp_path, "comparing", signal.SIGKILL)
    deadline = time.monotonic() + 120
    while agents_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert agents_of(tmp_path) == set()


def agents_of(folder: Path) -> set[str]:
    """The ids of the processes whose agent lies in this folder's cache."""
    found: set[str] = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder / "cache").encode() in path.read_bytes():
                found.add(path.parent.name)
        except OSError:
            continue
    return found


# ------------------------------------------------------------------ other kinds of models


def test_several_outputs_a_users_metric_and_a_lower_is_better_direction(tmp_path):
    """Two outputs, no labels: the metric compares with the original's own outputs."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["a"], name="second"),
        helper.make_node("MatMul", ["r", "u"], ["b"], name="third"),
    ]
    weights = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n)
        for n, s in (("w", (64, 256)), ("v", (256, 64)), ("u", (256, 64)))
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, (1, 64))],
        [value("a", TensorProto.FLOAT, (1, 64)), value("b", TensorProto.FLOAT, (1, 64))], weights,
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "two.onnx"
    )
    (tmp_path / "task.py").write_text(
        "import numpy as np\n"
        "from edgewright import Metric, Task\n"
        "def distance(outputs, reference):\n"
        "    assert set(outputs) == set(reference) == {'a', 'b'}\n"
        "    return float(np.mean([np.abs(outputs[k] - reference[k]).mean() for k in outputs]))\n"
        "def both():\n"
        "    x = np.random.default_rng(1).standard_normal((60, 64)).astype(np.float32)\n"
        "    return Task.from_arrays({'x': x}, None, score=distance,\n"
        "        metric=Metric('mean distance', 'u', 'lower', 10.0))\n"
    )
    done = engine(
        tmp_path, "deploy", "two.onnx", "--target", "cpu", "--task", "task.py:both", "--apply", "quantize:mode=static",
        "--max-drop", "20%", "--min-speedup", "off", "--preset", SOON, "--json",
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    (row,) = [row for row in report["rows"] if row["quantity"] == "mean distance"]
    assert (row["original"]["value"], row["candidate"]["unit"]) == (0.0, "u")
    assert 0 < row["candidate"]["value"] <= 2.0
    assert "mean distance" in done.stderr


def test_without_data_only_what_needs_none_runs_and_accuracy_is_null_with_the_reason(tmp_path):
    done = engine(tmp_path, "deploy", DIGITS, "--target", "cpu", "--preset", SOON, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    rows = {row["quantity"]: row for row in report["rows"]}
    assert (rows["accuracy"]["candidate"]["value"], "no task" in rows["accuracy"]["candidate"]["reason"]) == (
        None,
        True,
    )
    assert rows["agreement with the original"]["candidate"]["value"] == 100.0
    assert any("calibration data" in text for text in report["skipped"])


def test_a_project_file_makes_the_command_short(tmp_path):
    (tmp_path / "edgewright.toml").write_text(
        f'model = "{DIGITS}"\ntask = "{DATA}"\npreset = "{SOON}"\nout = "mine"\n[[method]]\nname = "half"\n'
    )
    done = engine(tmp_path, "deploy", "--target", "jetson", "--json")
    assert done.returncode in (0, 3), done.stderr
    assert is_bundle(tmp_path / "mine")
    assert "taking jetson-orin-nano" in done.stderr


def test_a_torch_module_is_lowered_and_deployed(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def model():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 256), torch.nn.ReLU(),"
        " torch.nn.Linear(256, 10))\n"
    )
    done = engine(
        tmp_path, "deploy", "net.py:model", "--target", "cpu", "--task", DATA, "--apply", "simplify",
        "--preset", SOON, "--json",
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    rows = {row["quantity"]: row for row in report["rows"]}
    assert rows["top-1 accuracy"]["candidate"]["value"] == rows["top-1 accuracy"]["original"]["value"]


def test_a_dry_run_checks_everything_and_does_nothing(tmp_path):
    done = engine(tmp_path, "deploy", DIGITS, "--target", "cpu", "--task", DATA, "--dry-run", "--json")
    assert json.loads(done.stdout)["methods"] == "simplify quantize"
    assert not list(tmp_path.glob("digits*"))


def test_a_recurrent_state_is_fed_back_by_the_session(tmp_path):
    """An accumulator whose state the file's metadata names."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "total"], ["next"]), helper.make_node("Mul", ["next", "two"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, (1, 2)), value("total", TensorProto.FLOAT, (1, 2))],
        [value("y", TensorProto.FLOAT, (1, 2)), value("next", TensorProto.FLOAT, (1, 2))],
        [numpy_helper.from_array(np.float32(2), "two")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    entry = model.metadata_props.add()
    entry.key, entry.value = "edgewright.state", json.dumps([["next", "total"]])
    onnx.save(model, tmp_path / "sum.onnx")
    done = engine(tmp_path, "deploy", "sum.onnx", "--target", "cpu", "--preset", SOON, "--out", "out")
    assert done.returncode == 0, done.stderr
    loaded = load(tmp_path / "out")
    one = np.ones((1, 2), np.float32)
    assert [loaded.run(one).outputs["y"][0, 0] for _ in range(3)] == [2, 4, 6]
    loaded.reset()
    assert loaded.run(one).outputs["y"][0, 0] == 2


def test_a_candidate_that_no_runtime_opens_is_left_out_with_its_reason(tmp_path):
    """A third-party method that writes an operator nobody has."""
    (tmp_path / "site" / "odd").mkdir(parents=True)
    (tmp_path / "site" / "odd" / "__init__.py").write_text(
        "from dataclasses import asdict, dataclass\n"
        "EDGEWRIGHT_API = 1\n"
        "@dataclass(frozen=True)\nclass Params:\n    pass\n"
        "class Odd:\n"
        "    name, summary, Params = 'odd', 'writes an operator that nobody has', Params\n"
        "    takes = gives = 'onnx'\n    needs, reads = 'nothing', ()\n"
        "    def check(self, model, target):\n        return None\n"
        "    def apply(self, model, params, context):\n"
        "        import onnx\n        from edgewright.types import Step\n"
        "        proto = onnx.load_from_string(model.graph.path.read_bytes())\n"
        "        proto.graph.node[0].op_type = 'Konv'\n"
        "        kept = context.keep(proto.SerializeToString())\n"
        "        return model.with_graph(kept).after(Step('odd', 'odd'))\n"
        "def edgewright_transforms():\n    return (Odd(),)\n"
    )
    info = tmp_path / "site" / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgewright]\nodd = odd\n")
    os.environ["PYTHONPATH"] = str(tmp_path / "site")
    try:
        done = engine(tmp_path, "deploy", DIGITS, "--target", "cpu", "--apply", "odd", "--preset", SOON, "--json")
    finally:
        del os.environ["PYTHONPATH"]
    report = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    assert report["verdict"]["shipped"] == "original"
    assert any("odd does not run" in text and "Konv" in text for text in report["skipped"])
