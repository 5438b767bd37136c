"""A network of the user's own gets exits by one command: trained, gated, fitted, deployed; it answers as told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.bundle import open_bundle
from edgewright_runtime import load

torch = pytest.importorskip("torch")

from networks_to_train import program, train_on_digits  # noqa: E402

DATA = Path(__file__).parents[2] / "examples" / "digits" / "digits.npz"
NET = """
from pathlib import Path

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    def __init__(self, width=48, depth=6):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.fc = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)))


def model():
    net = Net()
    net.load_state_dict(torch.load(Path(__file__).with_name("net.pt"), weights_only=True))
    return net.eval()


def example_inputs():
    return torch.zeros(1, 1, 8, 8)
"""
APPLY = "early-exit:heads=linear,at=2+4,batch=32,epochs=4,head_epochs=3,drop=1"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(the folder, the report)."""
    folder = tmp_path_factory.mktemp("early_exit")
    net = program(NET, folder)
    train_on_digits(net, epochs=4, batch=64, rate=2e-3)
    torch.save(net.state_dict(), folder / "net.pt")
    command = ("deploy", "net.py:model", "--target", "cpu", "--task", str(DATA), "--apply", APPLY, "--out", "out")
    done = subprocess.run(
        [sys.executable, "-c", "from edgewright.cli import main; main()", *command, "--preset", "quick", "--json"],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_most_digits_leave_early_and_few_are_lost(deployed):
    _, report = deployed
    rows = {row["quantity"]: row for row in report["rows"]}
    assert report["verdict"]["shipped"] == "early-exit"
    ratio = rows["latency mean"]["ratio"]
    assert ratio["interval"][0] <= ratio["value"] <= ratio["interval"][1]
    assert ratio["value"] > 1
    accuracy = rows["top-1 accuracy"]
    assert accuracy["original"]["value"] - accuracy["candidate"]["value"] <= 1
    *early, last = report["exits"]["exits"]
    assert sum(exit["n"] for exit in (*early, last)) == 540
    assert sum(exit["share"] for exit in early) > 0.5
    assert all(exit["threshold"] is not None for exit in early)
    assert last["threshold"] is None


def test_the_report_says_where_exits_stand(deployed):
    _, report = deployed
    placed, trained, _, judged = report["steps"][0]["notes"]
    assert placed == "exits after blocks 2, 4; heads: linear"
    assert "; heads: loss " in trained
    assert "exit1 " in judged


def test_the_bundle_answers_as_reported(deployed):
    folder, report = deployed
    data = np.load(DATA)
    loaded = load(folder / "out")
    results = [loaded.run(image[None]) for image in data["x_test"]]
    name = open_bundle(folder / "out").signature.outputs[0].name
    right = [int(result.outputs[name].argmax()) == label for result, label in zip(results, data["y_test"], strict=True)]
    rows = {row["quantity"]: row for row in report["rows"]}
    assert 100 * np.mean(right) == pytest.approx(rows["top-1 accuracy"]["candidate"]["value"])
    left = Counter(result.exits[0] for result in results)
    assert [left[number] for number in range(len(loaded.sessions))] == [e["n"] for e in report["exits"]["exits"]]
