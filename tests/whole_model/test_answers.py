"""Models that were compiled whole answer as onnxruntime does, and what they are given wrong is one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgewright.errors import InputError
from edgewright_runtime import tvm_adapter
from edgewright_runtime.device import find_device
from edgewright_runtime.tvm import TVM

SAME = 1e-4
"""How far an answer may be from onnxruntime's, as a share of the largest."""

STEP = 1 / 4
"""Two orders of a sum may round a code apart."""

NAMES = {
    **dict.fromkeys(("convolutions", "attention", "transformer", "two in, two out", "free rows", "an old opset"), SAME),
    **dict.fromkeys(("top k", "one kernel, two shapes", "types", "4 bits with a cast", "4 bits"), SAME),
    **dict.fromkeys(("quantised product", "quantised convolution"), STEP),
}


def opened(compiled: Mapping[str, Any], name: str) -> Any:
    place = compiled[name]
    assert isinstance(place, Path), place
    return TVM.open(str(place), {"threads": 1})


def drawn(proto: onnx.ModelProto) -> dict[str, Any]:
    """Something for every input; free axes are 5 long."""
    rng, feeds = np.random.default_rng(1), dict[str, Any]()
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        shape = [each.dim_value or 5 for each in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        feeds[value.name] = np.asarray(4 * rng.standard_normal(shape)).astype(dtype)
    return feeds


def expected(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """What onnxruntime makes of it without rounding weights once more for speed."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_onnxruntime_does(compiled: Mapping[str, Any], graphs: Mapping[str, Any], name: str):
    session, feeds = opened(compiled, name), drawn(graphs[name])
    want, got = expected(graphs[name], feeds), session.run(feeds)
    assert session.outputs == tuple(value.name for value in graphs[name].graph.output)
    for wanted, found in zip(want, got, strict=True):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        apart = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0)
        assert apart <= (NAMES[name] if NAMES[name] == STEP else NAMES[name] * np.abs(wanted).max())


def test_kernels_do_what_they_can(compiled: Mapping[str, Any], graphs: Mapping[str, Any]):
    rows = opened(compiled, "transformer").profile(drawn(graphs["transformer"]), 3)
    called = [row["operator"] for row in rows if row["operator"].startswith("call_")]
    assert sum("attention" in each for each in called) == 2
    assert sum("gemm" in each for each in called) >= 8
    assert all(row["median_us"] > 0 and row["provider"] == "CPU" for row in rows)
    assert len({row["node"] for row in rows}) == len(rows)


def test_outputs_outlive_the_next_run_and_inputs_stay_as_they_were(
    compiled: Mapping[str, Any], graphs: Mapping[str, Any]
):
    session, feeds = opened(compiled, "two in, two out"), drawn(graphs["two in, two out"])
    given = {name: array.copy() for name, array in feeds.items()}
    first = session.run(feeds)
    kept = [array.copy() for array in first]
    session.run({name: -array for name, array in feeds.items()})
    assert all(np.array_equal(feeds[name], given[name]) for name in feeds)
    assert all(map(np.array_equal, first, kept))
    assert all(map(np.array_equal, session.run(feeds), kept)), "the same input, the same bits"


@pytest.mark.parametrize("layout", ["read only", "strided", "off by four bytes"])
def test_arrays_may_lie_in_memory_as_they_like(compiled: Mapping[str, Any], graphs: Mapping[str, Any], layout: str):
    session, feeds = opened(compiled, "attention"), drawn(graphs["attention"])
    want = session.run(feeds)
    tokens = feeds["tokens"]
    wide = np.zeros((1, 8, 32), np.float32)
    wide[:, :, ::2] = tokens
    shifted = np.zeros(tokens.size + 1, np.float32)[1:].reshape(tokens.shape)
    shifted[:] = tokens
    array = {"strided": wide[:, :, ::2], "off by four bytes": shifted}.get(layout, tokens.copy())
    array.flags.writeable = layout != "read only"
    assert all(map(np.array_equal, session.run({"tokens": array}), want))


def test_rows_may_be_as_many_as_they_like(compiled: Mapping[str, Any]):
    session = opened(compiled, "free rows")
    for rows in (1, 7, 3):
        x = np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)
        assert np.array_equal(session.run({"x": x})[1], 2 * x)


# ------------------------------------------------------------------ what cannot be opened or run


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((1, 8, 15), np.float32), r"takes tokens as float32 \[1, 8, 16\], not float32 \[1, 8, 15\]"),
        (np.zeros((8, 16), np.float32), r"not float32 \[8, 16\]"),
        (np.zeros((1, 8, 16), np.float64), r"not float64"),
    ],
)
def test_a_wrong_input_is_one_sentence(compiled: Mapping[str, Any], array: Any, says: str):
    with pytest.raises(InputError, match=says):
        opened(compiled, "attention").run({"tokens": array})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"machine": "riscv64"}, "was compiled for riscv64"),
        ({"requires": ["avx1024"]}, "avx1024, which this processor is not"),
        ({"versions": {"apache-tvm": "0.1"}}, r"needs apache-tvm 0\.1, and here is 0\."),
        ({"versions": {"no-such-package": "1"}}, "needs no-such-package 1, and here is none; pip install"),
    ],
)
def test_what_would_crash_is_not_loaded(compiled: Mapping[str, Any], tmp_path: Path, change: Any, says: str):
    path = tmp_path / "other.tvm"
    shutil.copy(compiled["attention"], path)
    with zipfile.ZipFile(path) as archive:
        about = json.loads(archive.read("about.json"))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("about.json", json.dumps({**about, **change}))
    with pytest.raises(InputError, match=says):
        TVM.open(str(path), {})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"provider": "GPU"}, "no provider 'GPU'; allowed: CPU"),
        ({"threads": 2}, "runs on one thread, and 2 were asked"),
    ],
)
def test_options_that_it_has_not_are_refused(compiled: Mapping[str, Any], options: Any, says: str):
    with pytest.raises(InputError, match=says):
        TVM.open(str(compiled["attention"]), options)


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    path = tmp_path / "model.tvm"
    path.write_bytes(b"\x7fELF and no more")
    with pytest.raises(InputError, match=r"model\.tvm is no model that the exporter tvm wrote"):
        TVM.open(str(path), {})


def test_a_device_without_it_is_told_how_to_get_it():
    device = find_device()
    refusal = TVM.probe(replace(device, versions={"numpy": "2"}))
    assert refusal is not None
    assert "pip install 'edgewright[tvm]'" in refusal.reason
    assert TVM.probe(replace(device, versions={"apache-tvm": "0.27.0.post1"})) is None


@pytest.mark.parametrize(
    ("code", "says"),
    [("import os; os.abort()", "died of SIGABRT"), ("import no_such_tvm", "No module named 'no_such_tvm'")],
)
def test_a_runtime_that_crashes_is_one_sentence(monkeypatch: pytest.MonkeyPatch, code: str, says: str):
    monkeypatch.setattr(tvm_adapter, "TRY", code)
    with pytest.raises(InputError, match=f"cannot be loaded here .*{says}"):
        tvm_adapter._try_first()


def test_offering_it_imports_nothing_heavy():
    code = "import sys, edgewright_runtime.tvm; print('numpy' in sys.modules, 'tvm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
