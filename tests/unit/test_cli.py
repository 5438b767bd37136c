"""The command line: quick to help, and one sentence with exit code 2 for whatever cannot be used."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.cli import VERBS

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"


def write_model(path: Path, *, opset: int = 17, shape=("batch", 4), external: str | None = None) -> Path:
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    if external:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", external
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def write_data(path: Path, shape=(40, 4), fill: float = 0.0, **changes) -> Path:
    np.savez(path, **{"x": np.full(shape, fill, np.float32), "y": np.zeros(shape[0], int), **changes})
    return path


def test_help_is_quick_and_imports_nothing_heavy():
    code = "import sys; sys.argv=['engine','--help']\nfrom edgewright.cli import main\ntry: main()\n"
    code += "except SystemExit: pass\nprint(sorted(sys.modules), file=sys.stderr)"
    worked = []
    for _ in range(5):
        before = processor_seconds()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        worked.append(processor_seconds() - before)
    assert min(worked) < 0.3
    assert not {"torch", "onnx", "onnxruntime", "tvm", "onnxscript", "numpy"} & set(eval(done.stderr))
    for verb in VERBS:
        assert verb in done.stdout


def processor_seconds() -> float:
    """What ended processes of this one have worked: unlike the time that passed, it does not count others' work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_tells_what_it_takes(engine, verb):
    code, out, _ = engine(verb, "--help")
    assert code == 0
    assert "Usage: engine " + verb in out


def test_every_table_command_prints_one_json_document(engine):
    for argv, kind in ((("targets",), "targets"), (("targets", "pi"), "target"), (("plugins",), "plugins")):
        code, out, _ = engine(*argv, "--json")
        document = json.loads(out)
        assert (code, document["kind"], document["schema"]) == (0, kind, 1)


def test_clean_says_what_it_freed(engine, tmp_path):
    write_model(tmp_path / "m.onnx")
    assert engine("predict", "m.onnx", "--target", "pi")[0] == 0
    code, out, _ = engine("clean")
    assert code == 0
    assert "removed" in out
    assert not (tmp_path / "cache" / "edgewright").exists()


def test_doctor_tells_what_is_there(engine):
    code, out, _ = engine("doctor", "--json")
    findings = {f["what"]: f for f in json.loads(out)["findings"]}
    assert code == 0
    assert findings["onnxruntime"]["state"] == "ok"
    assert findings["runtime ort"]["state"] == "ok"


def test_a_prediction_carries_its_interval_and_says_what_it_is(engine, tmp_path):
    write_model(tmp_path / "m.onnx")
    code, out, _ = engine("predict", "m.onnx", "--target", "raspberry-pi-4", "--json")
    latency = json.loads(out)["predictions"][0]
    low, high = latency["interval"]
    assert (code, latency["kind"]) == (0, "predicted")
    assert low < latency["value"] < high


# ------------------------------------------------------------------ bad input

BAD_MODELS = {
    "truncated": (lambda p: p.write_bytes((DIGITS / "digits.onnx").read_bytes()[:5000]), "truncated.onnx"),
    "no onnx": (lambda p: p.write_text("hello, this is a letter"), "no onnx.onnx"),
    "empty": (lambda p: p.write_bytes(b""), "empty.onnx"),
    "external": (lambda p: write_model(p, external="weights.bin"), "weights.bin"),
    "opset": (lambda p: write_model(p, opset=99), "99"),
    "dynamic": (lambda p: write_model(p, shape=("batch", "length")), "--shape x:1x"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_model_that_cannot_be_used_is_one_sentence(engine, tmp_path, name):
    write, says = BAD_MODELS[name]
    write(tmp_path / f"{name}.onnx")
    refused(engine("deploy", f"{name}.onnx", "--target", "cpu"), tmp_path, says)


BAD_ARGUMENTS = [
    (("--target", "cqu"), "did you mean 'cpu'"),
    (("--target", "cpu", "--apply", "quantise"), "did you mean 'quantize'"),
    (("--target", "cpu", "--apply", "quantize:mod=static"), "did you mean 'mode'"),
    (("--target", "cpu", "--apply", "quantize:mode=statik"), "did you mean 'static'"),
    (("--target", "cpu", "--apply", "quantize:examples=0"), "out of range"),
    (("--target", "cpu", "--batch", "0"), "--batch 0 is out of range; allowed: 1 to 65536"),
    (("--target", "cpu", "--threads", "1000"), "--threads 1000 is out of range; allowed: 1 to "),
    (("--target", "raspberry-pi-4", "--threads", "5"), "allowed: 1 to 4, the CPUs of raspberry-pi-4"),
    (("--target", "cpu", "--max-drop", "120%"), "--max-drop '120%'"),
    (("--target", "cpu", "--max-latency", "fast"), "write 10ms"),
    (("--target", "cpu", "--runtime", "ortt"), "did you mean 'ort'"),
    (("--target", "cpu", "--exporter", "onxx"), "did you mean 'onnx'"),
    (("--target", "cpu", "--shape", "x"), "write image:1x3x224x224"),
    (("--target", "cpu", "--shape", "z:1x4"), "x"),
    (("--target", "cpu", "--task", "none.npz"), "no file at none.npz"),
    (("--target", "cpu", "--task", "none.csv"), "allowed: an .npz file"),
    (("--target", "cpu", "--recipe", "none.toml"), "no recipe file"),
    (("--target", "cpu", "--on", "telnet://x"), "telnet"),
    (("--target", "raspberry-pi-4", "--on", "local"), "name the target that it is"),
    (("--target", "cpu", "--no-plugin", "nobody"), "names 'nobody', which is not installed"),
    (("--target", "none.toml"), "none.toml cannot be read"),
    ((), "no target was named"),
]


@pytest.mark.parametrize(("argv", "says"), BAD_ARGUMENTS)
def test_an_argument_that_cannot_be_used_is_one_sentence(engine, tmp_path, argv, says):
    write_model(tmp_path / "m.onnx")
    refused(engine("deploy", "m.onnx", *argv), tmp_path, says)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ((), "no model was named"),
        (("n.onnx", "--target", "cpu"), "no file at n.onnx; did you mean 'm.onnx'?"),
        (("gone/m.onnx", "--target", "cpu"), "there is no folder gone"),
        (("m.onnx", "--target", "cpu", "--task", "dat.npz"), "no file at dat.npz; did you mean 'data.npz'?"),
    ],
)
def test_a_file_that_is_not_there_is_told_with_the_nearest_one(engine, tmp_path, argv, says):
    write_model(tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", x=np.zeros((1, 4), np.float32))
    refused(engine("deploy", *argv), tmp_path, says)


@pytest.mark.parametrize(
    ("shape", "fill", "changes", "says"),
    [
        ((40, 5), 0.0, {}, "gives float32 [5] per example for 'x', but the model takes float32 [4]"),
        ((40, 4), float("nan"), {}, "is NaN or infinite at [0, 0]"),
        ((40, 4), 0.0, {"y": np.zeros(3, int)}, "different length"),
        ((2, 4), 0.0, {}, "too few to split"),
    ],
)
def test_data_that_does_not_fit_is_one_sentence(engine, tmp_path, shape, fill, changes, says):
    write_model(tmp_path / "m.onnx")
    write_data(tmp_path / "d.npz", shape, fill, **changes)
    refused(engine("deploy", "m.onnx", "--target", "cpu", "--task", "d.npz"), tmp_path, says)


def test_an_output_folder_that_cannot_be_written_is_refused_before_any_work(engine, tmp_path):
    write_model(tmp_path / "m.onnx")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("years")
    refused(engine("deploy", "m.onnx", "--target", "cpu", "--out", "taken"), tmp_path, "holds something else")
    refused(engine("deploy", "m.onnx", "--target", "cpu", "--out", "/proc/x/out"), tmp_path, "cannot write the bundle")


def test_a_full_disk_is_one_sentence(engine, tmp_path):
    write_model(tmp_path / "m.onnx")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(small)], capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        (small / "filler").write_bytes(b"x" * 4096)
        refused(engine("deploy", "m.onnx", "--target", "cpu", "--out", str(small / "out")), tmp_path, "disk is full")
        assert [p.name for p in small.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_unknown_verb_or_flag_helps(engine, tmp_path):
    code, _, err = engine("deplyo")
    assert (code, "did you mean 'deploy'" in err) == (2, True)
    code, _, err = engine("deploy", "--taget", "cpu")
    assert (code, "--target" in err) == (2, True)
    refused(engine("deploy", "--target", "cpu"), tmp_path, "no model was named")
    refused(engine("deploy", "net.tflite", "--target", "cpu"), tmp_path, "no loader reads 'net.tflite'")
    refused(engine("verify", "nowhere"), tmp_path, "is not a bundle")
    refused(engine("compare", "a", "b", "--fail-if", "speed"), tmp_path, 'write "latency>+3%"')


def test_a_pytorch_file_that_fails_is_told_as_the_users_own(engine, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text("def model():\n    raise ValueError('no weights')\n")
    refused(engine("deploy", "net.py:model", "--target", "cpu"), tmp_path, "no weights")


def refused(outcome: tuple[int, str, str], folder: Path, says: str) -> None:
    """Exit 2, one sentence that says it, no traceback, and no bundle or part of one."""
    code, out, err = outcome
    last = err.strip().splitlines()[-1]
    assert (code, out) == (2, ""), err
    assert last.startswith("error: ")
    assert says in last
    assert "Traceback" not in err
    left = [p for p in folder.rglob("*") if p.name == "manifest.json" or p.name.endswith(".partial")]
    assert [p for p in left if "cache" not in p.parts] == []
