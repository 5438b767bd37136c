"""Sparse attention that costs time is measured, said, and not shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from commands import engine
from edgewright.bundle import open_bundle
from edgewright_runtime import load

pytest.importorskip("torch")
pytest.importorskip("transformers")

DATA = Path(__file__).parents[2] / "examples" / "digits" / "digits.npz"
NET = Path(__file__).parents[1] / "trained" / "deit.py"

pytestmark = pytest.mark.slow


def test_attention_that_is_sparse_and_slower_is_not_shipped(tmp_path: Path) -> None:
    done = engine(
        tmp_path, "deploy", f"{NET}:model", "--target", "cpu", "--task", str(DATA), "--apply", "sparsifiner:epochs=0",
        "--max-drop", "off", "--preset", "quick:seconds=0.2,rounds=3", "--out", "out", "--json",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    sparse, original = (next(e for e in report["candidates"] if e["name"] == n) for n in ("sparsifiner", "original"))
    low, high = sparse["speedup"]["interval"]
    assert low < high < 0.95  # a mask in a plain graph computes all pairs, and chooses too
    assert report["verdict"]["shipped"] == "original"
    assert report["verdict"]["left_out"][0].startswith("sparsifiner: speed-up 0.")
    assert sparse["metric"]["value"] > original["metric"]["value"] - 10
    data = np.load(DATA)
    name = open_bundle(tmp_path / "out").signature.outputs[0].name
    bundle = load(tmp_path / "out")
    right = [bundle.run(x[None]).outputs[name].argmax() == y for x, y in zip(data["x_test"], data["y_test"])]
    assert 100 * np.mean(right) == pytest.approx(original["metric"]["value"])
