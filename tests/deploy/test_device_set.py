"""The device set, where it has to work: an environment that holds numpy and onnxruntime, and nothing else of ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewright.agents.agent import start_agent
from edgewright_devices.local import LocalLink

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
import numpy as np
import edgewright_runtime
model = edgewright_runtime.load(sys.argv[1])
with np.load(sys.argv[2]) as data:
    logits = [model.run(x).outputs["logits"] for x in data["image"][:, None]]
loaded = {name.split(".")[0] for name in sys.modules}
heavy = sorted(loaded & {"onnx", "onnxscript", "torch", "tvm", "pluggy", "click"})
print(json.dumps([[int(each.argmax()) for each in logits], heavy]))
"""


def python_39() -> str | None:
    """A Python 3.9 of this machine that starts; a version manager's shim may lie on PATH and not work."""
    found = [shutil.which("python3.9"), *map(str, Path.home().glob(".pyenv/versions/3.9.*/bin/python3"))]
    for python in filter(None, found):
        if subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0:
            return python
    return None


@pytest.fixture(scope="module", params=["this python", "python 3.9"])
def device_python(request, tmp_path_factory):
    """The interpreter of a clean environment with numpy, onnxruntime, and `pip install --no-deps edgewright`."""
    python = sys.executable if request.param == "this python" else python_39()
    if python is None:
        pytest.skip("there is no Python 3.9 on this machine")
    folder = tmp_path_factory.mktemp("device")
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    installed = str(folder / "bin" / "python")
    wheel = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheel")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert wheel.returncode == 0, wheel.stderr
    pip = [installed, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if subprocess.run([*pip, "numpy", "onnxruntime"], capture_output=True).returncode:
        pytest.skip("numpy and onnxruntime cannot be installed here: no package index answers")
    subprocess.run([*pip, "--no-deps", str(next((folder / "wheel").glob("*.whl")))], check=True)
    return installed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The digits network as a bundle, made by this host."""
    folder = tmp_path_factory.mktemp("bundle")
    digits = ROOT / "examples" / "digits"
    command = [sys.executable, "-c", "from edgewright.cli import main; main()", "deploy", str(digits / "digits.onnx")]
    arguments = [
        "--target",
        "cpu",
        "--preset",
        "quick:seconds=0.2,rounds=3",
        "--out",
        str(folder / "out"),
        "--cache",
        str(folder / "cache"),
    ]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    with np.load(digits / "digits.npz") as data:
        np.savez(folder / "x.npz", image=data["x_test"][:20])
        np.save(folder / "y.npy", data["y_test"][:20])
    return folder


def test_an_application_loads_and_runs_a_bundle(device_python, bundle):
    done = subprocess.run(
        [device_python, "-c", SCRIPT, str(bundle / "out"), str(bundle / "x.npz")],
        capture_output=True, text=True, cwd=bundle,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers, heavy = eval(done.stdout)
    assert (np.array(answers) == np.load(bundle / "y.npy")).mean() > 0.9
    assert heavy == []


def test_the_agent_measures_there(device_python, bundle, tmp_path):
    link = LocalLink()
    link.python = device_python
    try:
        with start_agent(link, tmp_path) as agent:
            opened = agent.open(bundle / "out")
            assert len(agent.time(opened, least_runs=5, least_ns=0).ns) == 5
    finally:
        link.close()


def test_the_command_line_says_what_it_needs(device_python, tmp_path):
    """It refuses below 3.10; above, it lacks what `--no-deps` left out."""
    code = "import sys; sys.argv = ['engine', 'targets']\nfrom edgewright.cli import main\nmain()"
    done = subprocess.run([device_python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "3.10" in done.stderr or "click" in done.stderr
