"""Code for the GPU of a Jetson: kernels that can be launched, a label that says nobody did, refusals by name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgewright.errors import RefusedError
from edgewright_exporters.tir.isa import Isa
from edgewright_exporters.whole_model.jetson import CUDA, compile_for_jetson

toolkit = pytest.mark.skipif(
    not (Path(os.environ.get("CUDA_PATH", CUDA)) / "nvvm").is_dir(), reason="TVM needs libdevice of a CUDA toolkit"
)


@toolkit
def test_every_kernel_can_be_launched(isa: Isa, graphs: Mapping[str, Any], tmp_path: Path):
    model = tmp_path / "net.onnx"
    onnx.save(graphs["convolutions"], str(model))
    command = [sys.executable, "-m", "edgewright_exporters.whole_model.jetson", str(model), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "net.ptx").read_text()
    kernels = re.findall(r"^\.visible \.entry (\w+)\(", text, re.MULTILINE)
    assert len(kernels) == len(re.findall(r"^\.visible", text, re.MULTILINE)) > 2
    assert text.startswith("// compiled for sm_87 by TVM, not run\n")
    assert all(line.endswith("compiled for sm_87, not run") for line in done.stdout.splitlines())
    if (CUDA / "bin" / "ptxas").is_file():
        binary = (tmp_path / "net.cubin").read_bytes()
        assert binary[:4] == b"\x7fELF"
        assert all(kernel.encode() in binary for kernel in kernels)


def test_what_tvm_cannot_do_is_refused_by_name(tmp_path: Path):
    text = '<ir_version: 8, opset_import: ["" : 17]> g (uint8[1,1,3,3] x, uint8[1,1,1,1] w) => (int32[1,1,3,3] y) {'
    onnx.save(onnx.parser.parse_model(f"{text} y = ConvInteger(x, w) }}"), str(tmp_path / "net.onnx"))
    with pytest.raises(RefusedError, match=r"net\.onnx: TVM cannot import ConvInteger"):
        compile_for_jetson(tmp_path / "net.onnx", tmp_path / "out")
