"""The search for schedules: killed, it leaves no process and loses no record, and what it found is used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser

from edgewright_exporters.onnx_kernels.workers import perform
from edgewright_exporters.tir.isa import Isa
from edgewright_exporters.whole_model import tuning
from edgewright_exporters.whole_model.exporting import COMMAND
from edgewright_runtime.tvm import TVM
from kills import descendants, kill_when, left_of

pytestmark = pytest.mark.slow

GRAPH = (
    '<ir_version: 8, opset_import: ["" : 17]> g (float[16,48] x) => (float[16,48] y) { a = Softmax(x) y = Mul(a, a) }'
)
SEARCH = """
import json, sys
from edgewright_exporters.onnx_kernels.workers import perform
from edgewright_exporters.tir.isa import isa_named
from edgewright_exporters.whole_model.exporting import COMMAND
for _ in perform([json.loads(sys.argv[2])], isa_named(sys.argv[1]), command=COMMAND): pass
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_killed_search_leaves_no_process_and_goes_on_with_what_it_found(isa: Isa, tmp_path: Path):
    onnx.save(parser.parse_model(GRAPH), str(tmp_path / "graph.onnx"))
    folder = tmp_path / "schedules"
    records = folder / tuning.RECORDS
    task = {"do": "tune", "graph": str(tmp_path / "graph.onnx"), "schedules": str(folder)}

    command = [sys.executable, "-c", SEARCH, isa.name, json.dumps({**task, "seconds": 600})]

    def ready(pid: int) -> bool:
        """Something was found, and the process that times candidates is at work."""
        found = records.read_bytes().count(b"\n") if records.exists() else 0
        return found >= tuning.BATCH and len(descendants(pid)) > 1

    had = kill_when(command, ready)
    assert len(had) >= 2
    assert not left_of(had)

    found = records.read_bytes()
    found = found[: found.rfind(b"\n") + 1]
    records.write_bytes(found + found[:40])  # as a kill in the middle of a line leaves it
    count, said = found.count(b"\n"), list[str]()
    spent = float((folder / tuning.SPENT).read_text())
    (outcome,) = perform([{**task, "seconds": spent + 1}], isa, command=COMMAND, hear=said.append)
    assert not outcome.error
    assert said[0].startswith(f"{count} records of schedules are there; 1 functions are tuned for 1 s")
    assert records.read_bytes().startswith(found)
    assert outcome.value["records"] == records.read_bytes().count(b"\n")

    said.clear()
    (again,) = perform([{**task, "seconds": spent}], isa, command=COMMAND, hear=said.append)
    assert (again.value, said) == (outcome.value, []), "what was spent counts"
    assert_it_is_used(isa, task, tmp_path)


@pytest.mark.parametrize(
    ("name", "intrinsic"),
    [
        ("x86-64-v4-vnni", "dot_16x4_vnni"),
        ("x86-64-v4", "dot_16x4_avx512"),
        ("armv8.2-a-dot", "dot_4x4_i8i8s32_sdot"),
    ],
)
def test_the_instructions_that_a_search_may_take_are_known(name: str, intrinsic: str):
    asks = (
        "import sys; from edgewright_exporters.tir.isa import isa_named; "
        "from edgewright_exporters.whole_model.tuning import read_intrinsics; read_intrinsics(isa_named(sys.argv[1])); "
        "from tvm.s_tir import TensorIntrin; TensorIntrin.get(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", asks, name, intrinsic], check=True, timeout=120)


def assert_it_is_used(isa: Isa, task: Any, folder: Path) -> None:
    """The compiled model differs from the one without schedules, and answers alike."""
    compiled = [
        {**task, "do": "compile", "objects": [], "schedules": schedules, "place": str(folder / name)}
        for name, schedules in (("plain.tvm", ""), ("tuned.tvm", task["schedules"]))
    ]
    assert not [each.error for each in perform(compiled, isa, command=COMMAND) if each.error]
    assert (folder / "plain.tvm").read_bytes() != (folder / "tuned.tvm").read_bytes()
    x = np.random.default_rng(0).standard_normal((16, 48), np.float32)
    (wanted,) = ort.InferenceSession(task["graph"], providers=["CPUExecutionProvider"]).run(None, {"x": x})
    (answer,) = TVM.open(str(folder / "tuned.tvm"), {}).run({"x": x})
    np.testing.assert_allclose(answer, wanted, rtol=1e-4)
