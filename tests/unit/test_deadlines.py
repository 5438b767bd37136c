"""Runs with a deadline: what stages take is found out and kept, and no stage starts that would end too late."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.bundle import open_bundle
from edgewright.cli import main
from edgewright.errors import InputError
from edgewright.types import Gate, StageCost, State
from edgewright_runtime import load
from edgewright_runtime.calibration import Witness, calibrate, interrupted
from edgewright_runtime.costs import high_ms, parse_costs, stage_cost
from edgewright_runtime.device import find_device
from edgewright_runtime.examples import cycle, open_stream
from edgewright_runtime.policy import Policy

MakeBundle = Callable[..., Path]

WIDTH, DEPTH = 256, 12


def stage(name: str, takes: str, carries: str) -> str:
    """A stage of a dozen layers that share 256 KB; its score is the first of what it takes."""
    layers = [f"m0 = MatMul({takes}, w) t0 = Tanh(m0)"]
    layers += [f"m{i} = MatMul(t{i - 1}, w) t{i} = Tanh(m{i})" for i in range(1, DEPTH)]
    gives = f", float[1, {WIDTH}] {carries}, float[1] score" if carries else ""
    after = f"{carries} = Add(t{DEPTH - 1}, {takes}) first = Slice({takes}, zero, one, one) score = Squeeze(first, one)"
    return f"""
    <ir_version: 8, opset_import: ["" : 17]>
    {name} (float[1, {WIDTH}] {takes}) => (float[1, {WIDTH}] y{gives})
    <int64[2] shape = {{{WIDTH}, {WIDTH}}}, int64[1] zero = {{0}}, int64[1] one = {{1}}> {{
      w = ConstantOfShape<value = float[1] {{0.004}}>(shape)
      {" ".join(layers)}
      y = Identity(t{DEPTH - 1})
      {after if carries else ""}
    }}"""


CHAIN = (stage("first", "x", "h"), stage("second", "h", "g"), stage("third", "g", ""))
SHUT = Gate("score", "max-probability", 1e9)
AJAR = Gate("score", "max-probability", 0.7)
X = np.full((1, WIDTH), 0.25, np.float32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgewright" / "costs"


@pytest.fixture
def chain(make_bundle: MakeBundle) -> Callable[..., Path]:
    """The chain above as a bundle."""

    def make(gate: Gate = SHUT, **given: Any) -> Path:
        return make_bundle(*CHAIN, carries=[("h",), ("g",), ()], gates=[gate, gate], **given)

    return make


def entry(threads: int = 1, device: str = "", **times: tuple[float, float]) -> dict[str, Any]:
    """Costs as a manifest lists them: (median, high) in ms by stage."""
    stages = [asdict(StageCost(name, low, low, high, 1000)) for name, (low, high) in times.items()]
    return {"device": device or find_device().fingerprint, "variant": "main", "threads": threads, "stages": stages}


def costs(first: float, second: float, third: float) -> dict[str, Any]:
    """Costs of the chain: what each stage stays below, in ms."""
    return entry(stage0=(0, first), stage1=(0, second), stage2=(0, third))


# ------------------------------------------------------------------ how far a run goes


@pytest.mark.parametrize(
    ("highs", "deadline_ms", "ends_at"),
    [
        ((1, 1, 1), 0, 0),
        ((1, 1e5, 1), 9e4, 0),
        ((1, 1, 1e5), 9e4, 1),
        ((1e5, 1, 1), 9e4, 2),
        ((1, 1, 1), float("inf"), 2),
        ((1, 4e4, 4e4), 9e4, 2),
    ],
)
def test_a_stage_starts_only_if_it_would_end_in_time(
    chain: Callable[..., Path], highs: tuple[float, float, float], deadline_ms: float, ends_at: int
) -> None:
    result = load(chain(extra={"costs": [costs(*highs)]})).run(X, deadline_ms=deadline_ms)
    assert result.exits == (ends_at,)
    assert len(result.stages_ms) == ends_at + 1
    assert 0 < sum(result.stages_ms) <= result.spent_ms


def test_the_answer_is_that_of_the_last_stage_that_ran(chain: Callable[..., Path]) -> None:
    loaded = load(chain(extra={"costs": [costs(1, 1e5, 1)]}))
    assert np.array_equal(loaded.run(X, deadline_ms=10).outputs["y"], loaded.run(X, through=0).outputs["y"])
    assert not np.array_equal(loaded.run(X).outputs["y"], loaded.run(X, through=0).outputs["y"])


def test_gates_open_before_a_deadline(chain: Callable[..., Path]) -> None:
    loaded = load(chain(AJAR, extra={"costs": [costs(1, 1, 1)]}))
    sure = np.full((1, WIDTH), 0.75, np.float32)
    assert loaded.run(sure, deadline_ms=1e6).exits == (0,)
    assert loaded.run(X, deadline_ms=1e6).exits == (2,)
    assert loaded.run(X, deadline_ms=1e6, through=1).exits == (1,)


def test_a_deadline_at_load_caps_every_run(chain: Callable[..., Path]) -> None:
    loaded = load(chain(extra={"costs": [costs(1, 5e4, 1e5)]}), deadline_ms=9e4)
    assert loaded.run(X).exits == (1,)
    assert loaded.run(X, deadline_ms=1e9).exits == (1,)
    assert loaded.run(X, deadline_ms=10).exits == (0,)


@pytest.mark.parametrize("deadline_ms", [-1.0, float("nan")])
def test_a_deadline_that_is_none_is_refused(chain: Callable[..., Path], deadline_ms: float) -> None:
    path = chain(extra={"costs": [costs(1, 1, 1)]})
    for ask in (lambda: load(path).run(X, deadline_ms=deadline_ms), lambda: load(path, deadline_ms=deadline_ms)):
        with pytest.raises(InputError, match=r"a deadline of (-1\.0|nan) ms cannot be met; give 0 or more"):
            ask()


def test_one_stage_runs_whatever_the_deadline(make_bundle: MakeBundle, own_cache: Path) -> None:
    loaded = load(make_bundle(), deadline_ms=0)
    assert loaded.run(np.ones((3, 4), np.float32)).exits == (0, 0, 0)
    assert not own_cache.exists()


def test_getting_ready_leaves_the_state_of_a_model_of_one_stage_alone(make_bundle: MakeBundle) -> None:
    sums = """
    <ir_version: 8, opset_import: ["" : 17]>
    sums (float[N] x, float[N] s) => (float[N] y, float[N] t) { y = Add(x, s) t = Identity(y) }
    """
    loaded = load(make_bundle(sums, state=[State("t", "s")]))
    x = np.ones(3, np.float32)
    loaded.run(x)
    assert loaded.run(x, deadline_ms=1e5).outputs["y"].tolist() == [2, 2, 2]
    loaded.calibrate(0.01)
    assert loaded.run(x).outputs["y"].tolist() == [3, 3, 3]


def test_a_chain_that_keeps_state_takes_no_deadline(make_bundle: MakeBundle) -> None:
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    first = f"""{head}
    a (float[1] x, float[1] s) => (float[1] y, float[1] t, float[1] h) {{ y = Neg(x) t = Add(x, s) h = Neg(x) }}
    """
    second = f"{head} b (float[1] h) => (float[1] y, float[1] t) {{ y = Neg(h) t = Identity(h) }}"
    path = make_bundle(first, second, carries=[("h",), ()], state=[State("t", "s")])
    with pytest.raises(InputError, match="has to run to its end, because it keeps 's' from run to run"):
        load(path, deadline_ms=5)


# ------------------------------------------------------------------ what stages take


def test_the_first_deadline_calibrates_and_the_cache_keeps_it(chain: Callable[..., Path], own_cache: Path) -> None:
    path = chain()
    loaded = load(path)
    assert loaded.costs == ()
    start = perf_counter()
    result = loaded.run(X, deadline_ms=1e5)
    passed_ms = 1e3 * (perf_counter() - start)
    assert result.exits == (2,)
    assert result.spent_ms < passed_ms - 2000, "the two seconds of calibration are not counted"
    found = loaded.costs
    assert [cost.stage for cost in found] == ["stage0", "stage1", "stage2"]
    for cost in found:
        assert 0 < cost.median_ms <= cost.high_ms
        assert cost.n >= 10
    assert found[0].n > found[2].n
    (file,) = own_cache.iterdir()
    assert file.name == f"{loaded.bundle.digest}-{find_device().fingerprint}-1.json"
    assert load(path).costs == found
    assert load(path, cache=False).costs == ()
    assert load(path, threads=2).costs == ()


def test_what_cannot_be_kept_is_measured_again(chain: Callable[..., Path], own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text("a file where the folder should be")
    path = chain()
    assert len(load(path).calibrate(0.01)) == 3
    assert load(path).costs == ()


def test_a_stage_needs_a_tenth_more_than_999_of_1000_took(chain: Callable[..., Path]) -> None:
    """The second stage stays below 2 ms: it starts with 2.3 ms left, and with 2.1 ms left no more."""
    bundle = open_bundle(chain(extra={"costs": [costs(1, 2, 3)]}))
    policy = Policy(bundle, bundle.plan.placements, cap_ms=None, cache=False)
    policy.learn(load(bundle.path).costs)
    assert policy.limits(0, 2.3, None).highs_ns[1] == pytest.approx(2.2e6)
    assert not policy.limits(0, 2.3, None).stop(0, 1)
    assert policy.limits(0, 2.1, None).stop(0, 1)


def test_a_spoilt_cache_counts_as_none(chain: Callable[..., Path], own_cache: Path) -> None:
    path = chain()
    load(path).calibrate(0.01)
    (file,) = own_cache.iterdir()
    for text in ("{", "[]", "null", '[{"stage": "stage0"}]', json.dumps(costs(1, 1, 1)["stages"][:2])):
        file.write_text(text)
        assert load(path).costs == ()


def test_the_manifest_goes_before_the_cache_and_only_for_this_device(chain: Callable[..., Path]) -> None:
    listed = load(chain(extra={"costs": [costs(1, 2, 3)]}))
    listed.calibrate(0.01)
    assert [cost.high_ms for cost in load(listed.bundle.path).costs] == [1, 2, 3]
    times = {"stage0": (0, 1), "stage1": (0, 2), "stage2": (0, 3)}
    for other in (entry(device="another", **times), entry(threads=4, **times)):
        assert load(chain(name="other", extra={"costs": [other]}), cache=False).costs == ()


def test_calibration_takes_the_inputs_it_is_given(chain: Callable[..., Path]) -> None:
    loaded = load(chain(AJAR), cache=False)
    stream = {"x": np.random.default_rng(0).random((7, WIDTH), np.float32)}
    assert all(cost.n >= 10 for cost in loaded.calibrate(0.02, stream))
    with pytest.raises(InputError, match=r"x is float32 \[1, 3\]; the model takes x float32 \[1, 256\]"):
        loaded.calibrate(0.02, {"x": np.zeros((7, 3), np.float32)})
    with pytest.raises(InputError, match=r"as many rows, one at least, of every input; found \[0\]"):
        loaded.calibrate(0.02, {"x": np.zeros((0, WIDTH), np.float32)})


def test_high_is_what_999_of_1000_stay_below() -> None:
    taken = [1.0] * 1998 + [5.0, 9.0]
    assert high_ms(taken) == 5.0
    assert high_ms([1.0] * 10) == 1.0
    few = [1.0] * 30 + [2.0]
    assert high_ms(few) == pytest.approx(2.5), "1.5 times the excess that one in a hundred has"
    assert high_ms([*few * 10, 50.0]) == pytest.approx(2.5), "one that was disturbed unnoticed"
    assert stage_cost("a", [1.0, 2.0, 6.0]).mean_ms == 3.0


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60))
def test_high_is_never_below_what_was_seen(taken: list[float]) -> None:
    assert high_ms(taken) >= max(taken) * (1 - 1e-12)


def test_costs_survive_json() -> None:
    found = (stage_cost("a", [1.0, 2.0]), stage_cost("b", [0.5]))
    assert parse_costs(json.loads(json.dumps([asdict(cost) for cost in found])), ["a", "b"]) == found
    assert parse_costs([asdict(cost) for cost in found], ["b", "a"]) == ()


def test_runs_end_at_every_depth() -> None:
    depths: list[int] = []

    def run(fed: Any, depth: int) -> list[int]:
        depths.append(depth)
        return [1000 * (number + 1) for number in range(depth + 1)]

    found = calibrate(run, cycle({"x": X}, 1), ["a", "b", "c"], 0.02)
    assert set(depths) == {0, 1, 2}
    assert [cost.median_ms for cost in found] == [0.001, 0.002, 0.003]
    assert found[0].n > found[1].n > found[2].n >= 10


@pytest.mark.parametrize(
    ("put_aside", "waited", "passed_ns", "worked_ns", "said"),
    [
        (0, 0, 1_000_000, 990_000, False),
        (1, 0, 1_000_000, 990_000, True),
        (0, 0, 1_000_000, 600_000, True),
        (0, 1, 1_000_000, 600_000, False),
        (0, 0, 15_000, 1_000, False),
    ],
)
def test_a_processor_that_was_taken_away_shows(
    put_aside: int, waited: int, passed_ns: int, worked_ns: int, said: bool
) -> None:
    assert interrupted(Witness(5, 5, 0, 0), Witness(5 + put_aside, 5 + waited, passed_ns, worked_ns)) is said


# ------------------------------------------------------------------ streams


def test_a_stream_goes_on_and_starts_again(make_bundle: MakeBundle) -> None:
    feeds = cycle({"x": np.arange(5), "z": np.arange(5) * 2}, 2)
    seen = [next(feeds) for _ in range(4)]
    assert [each["x"].tolist() for each in seen] == [[0, 1], [2, 3], [4, 0], [1, 2]]
    assert seen[2]["z"].tolist() == [8, 0]


def test_a_bundle_without_a_stream_repeats_its_example(make_bundle: MakeBundle) -> None:
    bundle = load(make_bundle()).bundle
    assert bundle.example_stream is None
    feeds = open_stream(bundle)
    assert np.array_equal(next(feeds)["x"], next(feeds)["x"])
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    with_stream = load(make_bundle(name="more", files={"example/stream.npz": {"x": rows}})).bundle
    assert with_stream.example_stream is not None
    stream = open_stream(with_stream)
    assert [next(stream)["x"][0, 0] for _ in range(4)] == [0, 4, 8, 0]


# ------------------------------------------------------------------ engine run


def ran(*argv: str) -> int:
    """The exit code of `engine run`."""
    with pytest.raises(SystemExit) as stopped:
        main(("run", *argv))
    return int(stopped.value.code or 0)


def test_run_tells_where_rows_left_and_what_was_late(
    chain: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(chain(AJAR, extra={"costs": [costs(1, 1, 1)]}))
    np.savez(tmp_path / "x.npz", x=np.concatenate([X, X + 0.5, X]))
    given = (path, "--input", str(tmp_path / "x.npz"))
    assert ran(*given) == 0
    said = capsys.readouterr().out
    assert "left at stage0: 1 of 3 rows\nleft at stage1: 0 of 3 rows\nleft at stage2: 2 of 3 rows\n" in said
    assert "(3 runs)" in said
    assert ran(*given, "--deadline", "1us", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["exits"] == {"stage0": 3, "stage1": 0, "stage2": 0}
    assert (found["deadline_ms"], found["misses"], found["runs"]) == (0.001, 3, 3)
    assert found["times_ms"]["p50"] > 0.001
    assert ran(*given, "--deadline", "soon") == 2
    assert "--deadline 'soon' has no value with a unit; write 12ms" in capsys.readouterr().err


def test_run_says_nothing_of_exits_where_there_are_none(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((3, 4), np.float32))
    assert ran(str(make_bundle()), "--input", str(tmp_path / "x.npz"), "--deadline", "60s") == 0
    said = capsys.readouterr().out
    assert "left at" not in said
    assert "later than 60 s: 0 of 3 runs" in said
