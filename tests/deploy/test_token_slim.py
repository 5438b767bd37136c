"""A DeiT of transformers gets fewer tokens, exits and integers by one command, and answers as the report says."""

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
APPLY = (
    "token-slim:keep=8+4,at=1+2,epochs=2,batch=32,rate=3e-3",
    "early-exit:heads=linear,at=2,batch=32,epochs=1,head_epochs=1,drop=1",
    "quantize",
)

pytestmark = pytest.mark.slow


def test_fewer_tokens_exits_and_integers_go_together(tmp_path: Path) -> None:
    applied = [part for method in APPLY for part in ("--apply", method)]
    done = engine(
        tmp_path, "deploy", f"{NET}:model", "--target", "cpu", "--task", str(DATA), *applied, "--out", "out",
        "--max-drop", "off", "--min-speedup", "off", "--preset", "quick:seconds=0.2,rounds=3", "--json",
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr  # on a machine as slow as CI's int8 may gain no time here
    report = json.loads(done.stdout)
    candidates = {each["name"]: each for each in report["candidates"]}
    integers = [each for each in report["skipped"] if each.startswith("quantize")]
    assert {"token-slim", "token-slim+early-exit"} <= set(candidates)
    assert "token-slim+early-exit+quantize" in candidates or "no int8 form is faster" in integers[0]
    values = {name: each["metric"]["value"] for name, each in candidates.items()}
    assert values["original"] > 85
    assert min(values.values()) > values["original"] - 5
    (slim,) = [step["notes"][0] for step in report["steps"] if step["name"] == "token-slim"]
    assert slim == "16 tokens, 8 after block 1, 4 after block 2"
    data = np.load(DATA)
    loaded = load(tmp_path / "out")
    name = open_bundle(tmp_path / "out").signature.outputs[0].name
    right = [loaded.run(image[None]).outputs[name].argmax() == y for image, y in zip(data["x_test"], data["y_test"])]
    assert 100 * np.mean(right) == pytest.approx(values[report["verdict"]["shipped"]])
