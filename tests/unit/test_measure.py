"""The measuring protocol on real agents: what is reached, what is recorded, and that a slow-down is found."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.agents.agent import Agent, start_agent
from edgewright.errors import RecipeError
from edgewright.measuring import stats
from edgewright.measuring.measure import (
    FIRST_LOOK,
    UNDISTURBED,
    Candidate,
    compare,
    device_lock,
    measure_one,
)
from edgewright.measuring.presets import PRESETS, Preset, find_preset, in_passing
from edgewright_devices.local import LOCAL

MakeBundle = Callable[..., Path]

SHORT = Preset(name="short", seconds=0.2, runs=100, rounds=3)

WORK = """
<ir_version: 8, opset_import: ["" : 17]>
work (float[48, 48] x) => (float[48, 48] y) {
  a = MatMul(x, x) b = Tanh(a) c = MatMul(b, x) d = Tanh(c) e = MatMul(d, x) y = Tanh(e)
}
"""

EIGHT_TIMES = """
from edgewright_runtime.ort import ORT

class Session:
    def __init__(self, session):
        self.session, self.inputs, self.outputs = session, session.inputs, session.outputs
    def run(self, feeds):
        for _ in range(7):
            self.session.run(feeds)
        return self.session.run(feeds)

class EightTimes:
    name, formats = "ort", ("onnx",)
    def open(self, path, options):
        return Session(ORT.open(path, options))

EIGHT_TIMES = EightTimes()
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A real agent on this machine."""
    link = LOCAL.open("")
    with start_agent(link, tmp_path_factory.mktemp("agents")) as started:
        yield started
    link.close()


@pytest.fixture
def eight_times(tmp_path: Path) -> dict[str, Any]:
    """Options that make a candidate run everything eight times: more than any disturbance of its turns."""
    (tmp_path / "eight_runtime.py").write_text(EIGHT_TIMES)
    return {"runtimes": {"ort": "eight_runtime:EIGHT_TIMES"}, "path": [str(tmp_path)]}


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
    agent: Agent, make_bundle: MakeBundle, eight_times: dict[str, Any]
) -> None:
    """What an interval is worth is shown on made-up runs, in test_timings.py: these here are too few for it."""
    bundle = make_bundle(WORK)
    candidates = {"slow": Candidate(bundle, eight_times), "original": Candidate(bundle), "same": Candidate(bundle)}
    seen: list[tuple[str, int, int]] = []
    found = compare(agent, candidates, SHORT, reference="original", progress=lambda *step: seen.append(step))
    ratios = {name: measured.ratio for name, measured in found.items()}
    assert ratios["original"] is not None
    assert ratios["same"] is not None
    assert ratios["slow"] is not None
    assert (ratios["original"].value, ratios["original"].interval) == (1.0, (1.0, 1.0))
    assert ratios["slow"].value is not None
    assert ratios["same"].value is not None
    assert ratios["slow"].value < 0.4 < ratios["same"].value < 2.5, "an eighth of the speed, and the same"
    for name, ratio in ratios.items():
        assert ratio is not None
        assert ratio.n == SHORT.rounds
        assert (ratio.value, ratio.interval) == worked_out(found["original"].runs_ns, found[name].runs_ns)
        assert ratio.interval is not None
        assert ratio.interval[0] <= ratio.value <= ratio.interval[1]
    assert all(len(measured.runs_ns) == SHORT.rounds for measured in found.values())
    assert all(measured.latency["p50"].n >= SHORT.runs for measured in found.values())
    assert found["slow"].latency["p50"].interval is not None
    assert [step[1:] for step in seen] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("reference", "rounds"), [("quick", {"quick": 5, "slow": FIRST_LOOK}), ("slow", None)])
def test_a_race_leaves_behind_who_cannot_win_and_never_the_reference(
    agent: Agent, make_bundle: MakeBundle, eight_times: dict[str, Any], reference: str, rounds: dict[str, int] | None
) -> None:
    bundle, five = make_bundle(WORK), Preset(name="five", seconds=0.1, runs=50, rounds=5)
    found = compare(
        agent,
        {"quick": Candidate(bundle), "slow": Candidate(bundle, eight_times)},
        five,
        reference=reference,
        race=True,
    )
    wanted = rounds or dict.fromkeys(found, five.rounds)
    assert {name: len(measured.runs_ns) for name, measured in found.items()} == wanted
    for name, measured in found.items():
        assert measured.ratio is not None
        assert measured.ratio.n == wanted[name]
        shared = found[reference].runs_ns[: wanted[name]]
        assert (measured.ratio.value, measured.ratio.interval) == worked_out(shared, measured.runs_ns)


def worked_out(reference: Any, other: Any) -> tuple[float, tuple[float, float] | None]:
    """The ratio and its interval from the runs themselves, round by round."""
    first, second = ([float(np.percentile(runs, UNDISTURBED)) for runs in each] for each in (reference, other))
    return stats.ratio_over_rounds([math.log(a / b) for a, b in zip(first, second, strict=True)])


def test_unknown_names_are_refused(agent: Agent, make_bundle: MakeBundle) -> None:
    with pytest.raises(RecipeError, match="there is no preset 'quik'; allowed: default, quick, thorough; did you mean"):
        find_preset("quik")
    with pytest.raises(
        RecipeError,
        match=r"--preset quick has no parameter 'round'; allowed: fresh, rounds, runs, seconds; did you mean 'rounds'",
    ):
        find_preset("quick:round=3")
    with pytest.raises(RecipeError, match="--preset quick: rounds=0 is out of range; allowed: 1 to 100"):
        find_preset("quick:rounds=0")
    with pytest.raises(RecipeError, match="no candidate 'b' to compare with; allowed: a"):
        compare(agent, {"a": Candidate(make_bundle())}, SHORT, reference="b")


def test_a_preset_takes_figures_of_ones_own() -> None:
    text = "quick:seconds=5,rounds=12"
    assert find_preset(text) == Preset(name=text, seconds=5.0, runs=30, rounds=12, fresh=2)


def test_a_race_takes_no_longer_than_what_was_asked_for() -> None:
    brief = "quick:seconds=0.05,runs=4,rounds=1"
    assert [in_passing(asked) for asked in ("quick", brief)] == ["quick", brief]
    assert {in_passing(asked) for asked in ("default", "quick:seconds=5", "thorough:runs=5")} == {"quick"}


def test_presets_grow() -> None:
    quick, default, thorough = (PRESETS[name] for name in ("quick", "default", "thorough"))
    assert (quick.seconds, quick.runs) == (1, 30)
    assert (default.seconds, default.runs) == (10, 100)
    assert (thorough.seconds, thorough.runs) == (60, 1000)
    assert 5 <= quick.rounds < default.rounds < thorough.rounds


def _hold(folder: Path, held: Any, waited_for: Any) -> None:
    with device_lock(folder, "local"):
        held.set()
        waited_for.wait(60)


def test_only_one_measurement_at_a_time(tmp_path: Path) -> None:
    """The other one goes on until this one says that it waits."""
    context = multiprocessing.get_context("fork")
    held, waited_for = context.Event(), context.Event()
    messages: list[str] = []

    def told(message: str, done: int, total: int) -> None:
        messages.append(message)
        waited_for.set()

    other = context.Process(target=_hold, args=(tmp_path, held, waited_for))
    other.start()
    assert held.wait(60)
    with device_lock(tmp_path, "local", told):
        waited_for.set()
        assert set(messages) == {"waiting for another measurement on local"}
        with device_lock(tmp_path, "ssh://pi"):
            pass
    other.join()
