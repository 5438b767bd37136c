"""The measuring protocol on real agents: what is reached, what is recorded, and that a slow-down is found."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.agent import Agent, start_agent
from edgewright.errors import RecipeError
from edgewright.measure import PRESETS, Candidate, Preset, compare, device_lock, find_preset, measure_one
from edgewright_devices.local import LOCAL

MakeBundle = Callable[..., Path]

SHORT = Preset("short", seconds=0.2, runs=100, rounds=3)

WORK = """
<ir_version: 8, opset_import: ["" : 17]>
work (float[48, 48] x) => (float[48, 48] y) {
  a = MatMul(x, x) b = Tanh(a) c = MatMul(b, x) d = Tanh(c) e = MatMul(d, x) y = Tanh(e)
}
"""

TWICE = """
from edgewright_runtime.ort import ORT

class Session:
    def __init__(self, session):
        self.session, self.inputs, self.outputs = session, session.inputs, session.outputs
    def run(self, feeds):
        self.session.run(feeds)
        return self.session.run(feeds)

class Twice:
    name, formats = "ort", ("onnx",)
    def open(self, path, options):
        return Session(ORT.open(path, options))

TWICE = Twice()
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """A real agent on this machine."""
    link = LOCAL.open("")
    with start_agent(link, tmp_path / "agents") as started:
        yield started
    link.close()


@pytest.fixture
def twice(tmp_path: Path) -> dict[str, Any]:
    """Options that make a candidate run everything two times."""
    (tmp_path / "twice_runtime.py").write_text(TWICE)
    return {"runtimes": {"ort": "twice_runtime:TWICE"}, "path": [str(tmp_path)]}


def test_one_candidate_is_measured_to_both_limits(agent: Agent, make_bundle: MakeBundle) -> None:
    seen: list[tuple[str, int, int]] = []
    found = measure_one(agent, Candidate(make_bundle(WORK)), SHORT, lambda *step: seen.append(step))
    p50 = found.latency["p50"]
    assert p50.n == len(found.runs_ns[0]) >= SHORT.runs
    assert sum(found.runs_ns[0]) >= SHORT.seconds * 1e9
    assert {"p50", "p90", "mean"} <= set(found.latency)
    assert "p99.9" not in found.latency or p50.n >= 10000
    assert p50.value is not None
    assert p50.interval is not None
    assert p50.interval[0] <= p50.value <= p50.interval[1]
    assert found.load.value is not None
    assert found.first.value is not None
    assert found.memory.value is not None
    assert found.memory.value > found.memory.conditions["before_load_bytes"]
    assert found.ratio is None
    assert seen[-1][1] >= seen[-1][2]
    device = agent.device()
    assert p50.kind == ("simulated" if device.emulated else "measured")
    assert p50.conditions["governor"] == device.governor
    assert p50.conditions["placements"][0]["options"]["threads"] == 1
    assert p50.conditions["before"]["load_average"] >= 0


def test_candidates_are_compared_with_the_reference(
    agent: Agent, make_bundle: MakeBundle, twice: dict[str, Any]
) -> None:
    bundle = make_bundle(WORK)
    candidates = {"original": Candidate(bundle), "same": Candidate(bundle), "double": Candidate(bundle, twice)}
    seen: list[tuple[str, int, int]] = []
    found = compare(agent, candidates, SHORT, reference="original", progress=lambda *step: seen.append(step))
    ratios = {name: measured.ratio for name, measured in found.items()}
    assert ratios["original"] is not None
    assert ratios["same"] is not None
    assert ratios["double"] is not None
    assert (ratios["original"].value, ratios["original"].interval) == (1.0, (1.0, 1.0))
    assert ratios["same"].value == pytest.approx(1.0, abs=0.25)
    assert ratios["double"].value == pytest.approx(0.5, abs=0.15)
    assert ratios["double"].interval is not None
    assert ratios["double"].interval[1] < 1
    assert ratios["double"].n == SHORT.rounds
    assert all(len(measured.runs_ns) == SHORT.rounds for measured in found.values())
    assert all(measured.latency["p50"].n >= SHORT.runs for measured in found.values())
    assert found["double"].latency["p50"].interval is not None
    assert [step[1:] for step in seen] == [(1, 3), (2, 3), (3, 3)]


def test_unknown_names_are_refused(agent: Agent, make_bundle: MakeBundle) -> None:
    with pytest.raises(RecipeError, match="there is no preset 'quik'; allowed: default, quick, thorough; did you mean"):
        find_preset("quik")
    with pytest.raises(RecipeError, match="no candidate 'b' to compare with; allowed: a"):
        compare(agent, {"a": Candidate(make_bundle())}, SHORT, reference="b")


def test_presets_grow() -> None:
    quick, default, thorough = (PRESETS[name] for name in ("quick", "default", "thorough"))
    assert (quick.seconds, quick.runs) == (1, 30)
    assert (default.seconds, default.runs) == (10, 100)
    assert (thorough.seconds, thorough.runs) == (60, 1000)
    assert 5 <= quick.rounds < default.rounds < thorough.rounds


def _hold(folder: Path, seconds: float, ready: Any) -> None:
    with device_lock(folder, "local"):
        ready.set()
        time.sleep(seconds)


def test_only_one_measurement_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=_hold, args=(tmp_path, 0.4, ready))
    other.start()
    assert ready.wait(10)
    messages: list[str] = []
    with device_lock(tmp_path, "local", lambda message, done, total: messages.append(message)):
        assert messages[0] == "waiting for another measurement on local"
    with device_lock(tmp_path, "ssh://pi"):
        pass
    other.join()
