"""Chains run in one arena: what one stage is done with the next one takes, and no answer changes by it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgewright_runtime import load
from edgewright_runtime.ort import ORT

MakeBundle = Callable[..., Path]

MEGABYTES = 32
HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def stage(name: str, takes: str, gives: str) -> str:
    """A graph that needs 32 MB while it runs and not afterwards; y is the largest of tanh(2 * x)."""
    return f"""{HEAD}
    {name} (float[1, 4] {takes}) => (float[1] y{f", float[1, 4] {gives}" if gives else ""})
    <int64[2] shape = {{{MEGABYTES << 16}, 4}}> {{
      wide = Expand({takes}, shape)
      twice = Add(wide, wide)
      squashed = Tanh(twice)
      top = ReduceMax<axes = [0], keepdims = 1>(squashed)
      y = ReduceMax<axes = [1], keepdims = 0>(top)
      {f"{gives} = Neg({takes})" if gives else ""}
    }}"""


GROWTH = """
import json, sys
from pathlib import Path
import numpy as np
from edgewright_runtime import load

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

loaded = [load(path) for path in sys.argv[1:]]
sessions = [session for each in loaded for session in each.sessions]
x = np.ones((1, 4), np.float32)
grown = []
for session in sessions:
    before = resident()
    session.run({session.inputs[0]: x})
    grown.append(resident() - before)
print(json.dumps(grown))
"""


def growth(*bundles: Path) -> list[float]:
    """By how many MB a fresh process grows when the sessions of these bundles run for the first time, in order."""
    done = subprocess.run([sys.executable, "-c", GROWTH, *bundles], capture_output=True, text=True, check=True)
    return [grown / 2**20 for grown in json.loads(done.stdout)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find how large a process is")
def test_stages_of_a_chain_take_turns_in_the_same_memory(make_bundle: MakeBundle) -> None:
    chain = make_bundle(stage("front", "x", "h"), stage("back", "h", ""), carries=[("h",), ()])
    first, second = growth(chain)
    assert first > 0.9 * MEGABYTES
    assert second < 0.2 * MEGABYTES
    apart = [make_bundle(stage(name, "x", ""), name=name) for name in ("one", "other")]
    assert min(growth(*apart)) > 0.9 * MEGABYTES, "models of one stage have an arena each"


def test_answers_are_those_of_sessions_with_memory_of_their_own(make_bundle: MakeBundle) -> None:
    chain = load(make_bundle(stage("front", "x", "h"), stage("back", "h", ""), carries=[("h",), ()]))
    files = [str(chain.bundle.path / "artifacts" / f"stage{number}.onnx") for number in (0, 1)]
    front, back = (ORT.open(file, {"threads": 1}) for file in files)
    kept: list[tuple[float, float]] = []
    results = []
    for x in np.random.default_rng(0).standard_normal((6, 1, 4)).astype(np.float32):
        _, h = front.run({"x": x})
        (wanted,) = back.run({"h": h})
        results.append((chain.run(x, through=0).outputs["y"], chain.run(x).outputs["y"]))
        kept.append((float(np.tanh(2 * x).max()), float(wanted[0])))
        assert results[-1][1].tobytes() == wanted.tobytes()
    found = [(float(early[0]), float(late[0])) for early, late in results]
    np.testing.assert_allclose(found, kept, rtol=1e-6, err_msg="answers stay while others use the memory")
