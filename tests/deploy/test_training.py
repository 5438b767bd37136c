"""A method that trains, end to end: a kill in the middle of training costs little, and nothing trains twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.bundle import is_bundle

pytest.importorskip("torch")

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
COMMAND = (
    "deploy", str(DIGITS / "digits.onnx"), "--target", "cpu", "--task", str(DIGITS / "digits.npz"),
    "--apply", "tune", "--preset", "quick:seconds=0.2,rounds=3", "--out",
)  # fmt: skip

KILLED_AT, STEPS = 12, 40
"""The step that the first run dies in, and those of 8 epochs of 5."""

PLUGIN = f"""
import copy, os, signal
from pathlib import Path

from edgewright.protocols import NoParams
from edgewright.types import Step, TorchGraph

EDGEWRIGHT_API = 1


class Tune:
    name, summary, takes, gives, needs, reads = "tune", "train on", "torch", "torch", "training", ("task",)
    Params = NoParams

    def check(self, model, target):
        return None

    def decide(self, model, params, context):
        return {{}}

    def rewrite(self, model, decision):
        return model.with_graph(TorchGraph(copy.deepcopy(model.graph.module), "rewritten"))

    def fit(self, model, decision, context):
        from edgewright.torchkit.losses import supervised
        from edgewright.torchkit.train import train
        from edgewright.torchkit.training import Training

        loss, first = supervised(), not Path("steps").exists()

        def objective(module, batch):
            with open("steps", "a") as file:
                file.write("x")
            if first and Path("steps").stat().st_size == {KILLED_AT}:
                os.kill(os.getpid(), signal.SIGKILL)
            return loss(module, batch)

        train(model.graph.module, None, context, Training(epochs=8, batch=200, rate=1e-4), objective=objective)
        return model.after(Step(self.name, "", notes=("trained",)))


def edgewright_transforms():
    return (Tune(),)
"""

pytestmark = pytest.mark.slow


def install(folder: Path) -> Path:
    """The plugin as pip would leave it in a folder."""
    information = folder / "a_tuner-0.1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: a-tuner\nVersion: 0.1\n")
    (information / "entry_points.txt").write_text("[edgewright]\ntuner = a_tuner\n")
    (folder / "a_tuner.py").write_text(PLUGIN)
    return folder


def deploy(folder: Path, out: str) -> tuple[int, int]:
    """Run the command. Returns: its exit code, and how many steps it trained."""
    path = os.pathsep.join([str(folder / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])])
    changes = {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-c", "from edgewright.cli import main; main()", *COMMAND, out]
    steps = folder / "steps"
    before = steps.stat().st_size if steps.exists() else 0
    done = subprocess.run(command, cwd=folder, env={**os.environ, **changes}, capture_output=True, check=False)
    return done.returncode, steps.stat().st_size - before


def events(folder: Path) -> list[str]:
    """What the journal says of the method."""
    texts = [path.read_text() for path in folder.glob("cache/**/journal/*.jsonl")]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return [event["event"] for event in lines if event["step"] == "tune"]


def test_a_kill_in_mid_training_goes_on_and_what_was_trained_is_kept(tmp_path):
    install(tmp_path / "plugins")
    assert (deploy(tmp_path, "out"), events(tmp_path)) == ((-9, KILLED_AT), ["started"])
    assert list(tmp_path.glob("cache/**/training.pt"))
    code, steps = deploy(tmp_path, "out")
    assert code in (0, 3)  # it gains no speed, so that the original may ship
    assert steps == STEPS - 10  # two epochs of five steps were kept, and two more steps lost
    assert events(tmp_path) == ["started", "started", "finished"]
    assert is_bundle(tmp_path / "out")
    assert not list(tmp_path.glob("cache/**/training.pt"))
    code, steps = deploy(tmp_path, "again")
    assert (code in (0, 3), steps) == (True, 0)
