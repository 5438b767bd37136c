"""A network and a task so small that an emulated device is through with them at once."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewright.cli import main

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[N, 16] x) => (float[N, 4] y) {
  wide = MatMul(x, first)
  bent = Relu(wide)
  y = MatMul(bent, second)
}
"""


def write_small(folder: Path) -> tuple[Path, Path]:
    """The model, and a task that it is right about in most cases."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((16, 32), np.float32), rng.standard_normal((32, 4), np.float32)
    model = onnx.parser.parse_model(GRAPH)
    model.graph.initializer.extend([numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")])
    onnx.save(model, folder / "small.onnx")
    x = rng.standard_normal((120, 16), np.float32)
    y = (np.maximum(x @ first, 0) @ second).argmax(1)
    y[::10] = (y[::10] + 1) % 4
    np.savez(folder / "small.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    return folder / "small.onnx", folder / "small.npz"


SHORT = "quick:seconds=0.05,runs=4,rounds=1,fresh=1"
"""Speed means nothing under emulation, and each process there takes seconds to start."""
SHORTEST_INTERVAL = "quick:seconds=0.05,runs=4,rounds=2,fresh=1"
"""Where an interval is asked for."""


def engine(*words: str) -> subprocess.CompletedProcess[str]:
    """What a user's command says, that runs in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main(words)
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), out.getvalue(), err.getvalue())


def deploy(folder: Path, *more: str) -> Sequence[str]:
    """The words of a deployment that is over quickly, and ships what the method made however slow the host is."""
    model, task = write_small(folder)
    about = ["--task", str(task), "--preset", SHORT, "--apply", "simplify", "--cache", str(folder / "cache")]
    return ["deploy", str(model), *about, "--min-speedup", "off", *more]


def small_bundle(folder: Path) -> Path:
    """The network as a bundle, deployed on this host."""
    out = folder / "bundle"
    done = engine(*deploy(folder, "--target", "cpu", "--out", str(out)))
    assert out.exists(), done.stderr
    return out
