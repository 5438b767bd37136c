"""One suite for every program that answers the agent's messages: the Python agent, and the native runner built here."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.agents.agent import Agent, start_agent
from edgewright.agents.agentfile import build_agent
from edgewright.agents.runnerfile import Machine, build_runner
from edgewright.errors import BundleError, DeviceError, EdgewrightError, InputError, PluginError, RefusedError
from edgewright.protocol import write_array
from edgewright.protocols import Link, Process
from edgewright.toolchain.ortheader import headers_place
from edgewright.types import Gate, Source, State
from edgewright_devices.local import LocalLink
from edgewright_runtime.circumstances import conditions
from processes import alive, wait_until, workers
from unit.conftest import ones
from unit.test_steadiness import BIG_LITTLE, NVPMODEL, VCGENCMD, tree

MakeBundle = Callable[..., Path]

KINDS = ("python", "native")
NAN = float("nan")

HALF = """
<ir_version: 8, opset_import: ["" : 17]>
half (float[N, 1] x) => (float[N, 1] y, float[N, 1] h, float[N] score)
<int64[1] one = {1}> { y = Neg(x) h = Identity(x) score = Squeeze(x, one) }
"""
REST = """
<ir_version: 8, opset_import: ["" : 17]>
rest (float[N, 1] h) => (float[N, 1] y) { y = Add(h, h) }
"""
COUNTER = """
<ir_version: 8, opset_import: ["" : 17]>
counter (float[N, 2] x, float[N, 2] before) => (float[N, 2] y, float[N, 2] after)
{ after = Add(x, before) y = Exp(after) }
"""
STEPWISE = """
<ir_version: 8, opset_import: ["" : 17]>
stepwise (float[N, 1, 2] x, float[N, 1, 2] before, float[N, 2] level)
  => (float[N, 1, 2] y, float[N, 2] last, float[N, 1, 2] after)
<int64[1] one = {1}>
{ after = Add(x, before) flat = Squeeze(after, one) last = Add(flat, level) y = Exp(after) }
"""
TURNS = """
<ir_version: 8, opset_import: ["" : 17]>
turns (int64[N] x) => (float[64, 64] y)
<bool go = {1}, int64[2] size = {64, 64}, int64[1] first = {0}, float[1] seed = {0.001}>
{
  count = ReduceMax <keepdims = 0> (x)
  start = Expand(seed, size)
  y = Loop <body = turn (int64 i, bool on, float[64, 64] v) => (bool still, float[64, 64] w)
    { still = Identity(on) w = MatMul(v, v) }> (count, go, start)
}
"""


class OwnCache(LocalLink):
    """This machine with a cache of its own, so that nothing is found that an earlier test measured."""

    def start(self, argv: Sequence[str]) -> Process:
        return super().start(["env", f"XDG_CACHE_HOME={self.root}", *argv])


class NativeLink(OwnCache):
    """The same as if it had no Python."""

    python = ""


class Pipe:
    """An agent's process, spoken to in bytes."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line: bytes) -> dict[str, Any]:
        """The answer to a line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """The answer to a request."""
        return self.ask(json.dumps({"id": 1, "op": op, **fields}).encode())

    def end(self) -> int:
        """Close its input; its exit status."""
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        return self.process.wait(60)


@pytest.fixture(scope="session")
def runner() -> Path:
    """The native runner, or a skip with the reason why it cannot be built here."""
    try:
        return build_runner(Machine(platform.machine()), headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))


@pytest.fixture(scope="module", autouse=True)
def library() -> Iterator[None]:
    """The native runner takes the library that this Python has."""
    found = next(iter((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_ONNXRUNTIME", str(found))
        yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each kind in turn."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS, scope="module")


@pytest.fixture(scope="module")
def link_to() -> Callable[[str], Link]:
    """A way to where an agent of a kind runs."""
    return lambda kind: OwnCache() if kind == "python" else NativeLink()


@pytest.fixture(scope="module")
def python_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sequence[str]]:
    """What starts an agent of a kind that is not native."""
    packed = build_agent(tmp_path_factory.mktemp("packed"))
    return lambda kind: [sys.executable, str(packed)]


@pytest.fixture(scope="module")
def command(kind: str, request: pytest.FixtureRequest) -> Sequence[str]:
    """What starts an agent of each kind in turn."""
    if kind == "native":
        return [str(request.getfixturevalue("runner"))]
    return request.getfixturevalue("python_of")(kind)


@pytest.fixture(scope="module")
def agents(
    link_to: Callable[[str], Link], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Agent]]:
    """An agent of each kind, started when it is first asked for."""
    with ExitStack() as stack:
        started: dict[str, Agent] = {}

        def agent_of(kind: str) -> Agent:
            if kind not in started:
                link = link_to(kind)
                stack.callback(link.close)
                started[kind] = stack.enter_context(start_agent(link, tmp_path_factory.mktemp("agents")))
            return started[kind]

        yield agent_of


@pytest.fixture(scope="module")
def agent(kind: str, command: Sequence[str], agents: Callable[[str], Agent]) -> Agent:
    """Each kind in turn, where there is one."""
    return agents(kind)


@pytest.fixture
def pipe(command: Sequence[str]) -> Iterator[Pipe]:
    """A process of its own, of each kind in turn."""
    talking = Pipe(command)
    yield talking
    if talking.process.poll() is None:
        assert talking.end() == 0


@pytest.fixture(scope="module")
def standing(command: Sequence[str]) -> Iterator[Pipe]:
    """A process of each kind in turn that survives whatever it is told."""
    talking = Pipe(command)
    yield talking
    assert talking.end() == 0


@pytest.fixture
def gated(make_bundle: MakeBundle) -> Path:
    """Two stages: a positive input leaves at the first. Its stream leaves at the first every third time."""
    stream = {"x": np.array([[-1], [-2], [3]], np.float32)}
    gates = [Gate("score", "max-probability", 0.0), None]
    return make_bundle(
        HALF, REST, carries=[("h",), ()], gates=gates, free_rows=True, files={"example/stream.npz": stream}
    )


@pytest.fixture
def counter(make_bundle: MakeBundle) -> Path:
    """Adds up what it was given since it was reset."""
    return make_bundle(COUNTER, name="counter", state=[State("after", "before")])


# ------------------------------------------------------------------ what goes well


def test_a_bundle_is_opened_run_and_timed(agent: Agent, make_bundle: MakeBundle) -> None:
    opened = agent.open(make_bundle())
    assert min(opened.load_ms, opened.first_ms) > 0
    assert opened.placements[0]["runtime"] == "ort"
    assert opened.peak_bytes is not None
    assert opened.baseline_bytes is not None
    assert opened.peak_bytes >= opened.baseline_bytes > 1 << 20
    assert agent.infer(opened, {"x": ones(5, 4)}, batch=2)["y"].tolist() == [[2, 2, 2]] * 5
    taken, _ = agent.warm(opened, rules={"least_ns": 1_000_000})
    assert len(taken) >= 10
    timed = agent.time(opened, least_runs=8, least_ns=0, settle_ns=1000, inputs={"x": ones(2, 4)})
    assert (len(timed.ns), timed.depths, timed.stages_ns) == (8, [], [])
    (row,) = agent.profile(opened, runs=3)
    assert (row.operator, row.provider, row.median_us >= 0) == ("MatMul", "CPUExecutionProvider", True)
    assert min(agent.spin(opened, ms=0.05, runs=4)) >= 0.05
    assert agent.memory(opened)["peak_bytes"] >= opened.peak_bytes  # pyright: ignore[reportOptionalOperand]
    agent.close(opened)
    with pytest.raises(InputError, match="nothing is open under the handle"):
        agent.memory(opened)


def test_without_gates_too_each_run_takes_the_next_of_a_stream(agent: Agent, make_bundle: MakeBundle) -> None:
    """What a graph costs may depend on values: here it multiplies never, or four hundred times."""
    files = {"example/stream.npz": {"x": np.array([0, 400])}, "example/inputs.npz": {"x": np.array([0])}}
    opened = agent.open(make_bundle(TURNS, name="turns", files=files))
    timed = agent.time(opened, least_runs=8, least_ns=0, settle_ns=1000)
    assert min(timed.ns[1::2]) > 5 * max(timed.ns[::2]) or min(timed.ns[::2]) > 5 * max(timed.ns[1::2])


def test_a_runtime_of_ours_may_be_named(agent: Agent, make_bundle: MakeBundle) -> None:
    """As every verb does, which knows it by its entry point."""
    opened = agent.open(make_bundle(name="named"), runtimes={"ort": "edgewright_runtime.ort:ORT"})
    assert agent.infer(opened, {"x": ones(1, 4)})["y"].tolist() == [[2, 2, 2]]


def test_rows_leave_a_chain_where_they_are_sure(agent: Agent, gated: Path) -> None:
    opened = agent.open(gated, turn=1)
    x = {"x": np.array([[-1], [2], [-3], [NAN]], np.float32)}
    for batch in (1, 2, 3, 4):
        outputs, exits = agent.infer_exits(opened, x, batch=batch)
        assert outputs["y"].ravel()[:3].tolist() == [-2, -2, -6]
        assert np.isnan(outputs["y"][3])
        assert (exits.dtype, exits.tolist()) == (np.int64, [1, 0, 1, 1])
    halfway = agent.infer_all(opened, x, through=0)
    assert halfway.outputs["y"].ravel()[:3].tolist() == [1, -2, 3]
    assert (halfway.exits.tolist(), len(halfway.spent_ms)) == ([0, 0, 0, 0], 4)
    assert agent.infer_all(opened, x, through=0, batch=4).exits.tolist() == [0, 0, 0, 0]
    first, last = agent.explore(opened, {"x": np.array([[-1], [2], [-3]], np.float32)}, batch=2)
    assert {name: each.ravel().tolist() for name, each in first.items()} == {"y": [1, -2, 3], "score": [-1, 2, -3]}
    assert {name: each.ravel().tolist() for name, each in last.items()} == {"y": [-2, 4, -6]}
    assert [node.operator for node in agent.profile(opened, runs=2, stage=1)] == ["Add"]


def test_runs_of_a_chain_end_where_they_should(agent: Agent, gated: Path) -> None:
    opened = agent.open(gated)
    blocks = [agent.time(opened, least_runs=2, least_ns=0) for _ in range(3)]
    assert [depth for block in blocks for depth in block.depths] == [1, 1, 0, 1, 1, 0]
    for block in blocks:
        assert [len(stages) for stages in block.stages_ns] == [depth + 1 for depth in block.depths]
        assert all(sum(stages) <= taken for stages, taken in zip(block.stages_ns, block.ns, strict=True))
    assert agent.time(opened, least_runs=6, least_ns=0, through=[0, 1, 1]).depths == [0, 1, 0, 0, 1, 0]
    found = agent.calibrate(opened, seconds=0.02)
    assert [cost.stage for cost in found] == ["stage0", "stage1"]
    assert all(0 < cost.median_ms <= cost.high_ms and cost.n >= 10 for cost in found)
    assert agent.time(opened, least_runs=3, least_ns=0, deadline_ms=0).depths == [0, 0, 0]
    assert agent.time(opened, least_runs=3, least_ns=0, deadline_ms=60_000, inputs={"x": -ones(1, 1)}).depths == [1] * 3
    assert agent.time(opened, least_runs=2, least_ns=0, settle_ns=1000, inputs={"x": -ones(1, 1)}).depths == [1, 1]


def test_both_answer_bit_for_bit_alike(
    agents: Callable[[str], Agent], runner: Path, gated: Path, counter: Path, make_bundle: MakeBundle
) -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((50, 1)).astype(np.float32)
    scores[[3, 7]], scores[11] = NAN, -0.0
    for bundle, inputs, batches in (
        (make_bundle(name="linear"), {"x": rng.standard_normal((9, 4)).astype(np.float32)}, (1, 4)),
        (gated, {"x": scores}, (1, 7, 50)),
        (counter, {"x": rng.standard_normal((6, 2)).astype(np.float32)}, (1, 4)),
    ):
        opened = [(each, each.open(bundle)) for each in map(agents, KINDS)]
        for batch in batches:
            found = [each.infer_all(there, inputs, batch=batch) for each, there in opened]
            one, other = ({**answer.outputs, "": answer.exits} for answer in found)
            assert {name: each.tobytes() for name, each in one.items()} == {
                name: each.tobytes() for name, each in other.items()
            }


def test_state_goes_from_run_to_run_and_not_from_block_to_block(agent: Agent, counter: Path) -> None:
    opened = agent.open(counter)
    assert agent.infer(opened, {"x": ones(4, 2)}).keys() == {"y"}
    assert np.allclose(agent.infer(opened, {"x": ones(4, 2)})["y"], np.e)


def test_a_bundle_whose_example_has_many_steps_runs_them_in_turn(agent: Agent, make_bundle: MakeBundle) -> None:
    rng = np.random.default_rng(0)
    example = {"x": ones(1, 5, 2), "level": ones(1, 2)}
    bundle = make_bundle(
        STEPWISE, name="steps", state=[State("after", "before")], files={"example/inputs.npz": example}
    )
    opened = agent.open(bundle)
    x, level = rng.standard_normal((3, 4, 2)).astype(np.float32), rng.standard_normal((3, 2)).astype(np.float32)
    for batch in (1, 2, 3):
        found = agent.infer(opened, {"x": x, "level": level}, batch=batch)
        assert found.keys() == {"y", "last"}
        np.testing.assert_allclose(found["y"], np.exp(x.cumsum(1)), rtol=1e-5)
        np.testing.assert_allclose(found["last"], x.sum(1) + level, rtol=1e-5)
    one = agent.infer(opened, {"x": x[:, :1], "level": level})
    np.testing.assert_allclose(one["y"], np.exp(x[:, :1]), rtol=1e-5)
    short, long = (
        min(sum(agent.infer_all(opened, {"x": ones(1, steps, 2), "level": ones(1, 2)}).spent_ms) for _ in range(5))
        for steps in (1, 400)
    )
    assert long > 20 * short, "the time of a text is that of all of its steps"


def test_steps_that_differ_in_number_are_refused(agent: Agent, make_bundle: MakeBundle) -> None:
    both = STEPWISE.replace("float[N, 2] level", "float[N, 1, 2] level").replace(
        "Add(flat, level)", "Squeeze(level, one)"
    )
    opened = agent.open(make_bundle(both, name="both", state=[State("after", "before")]))
    with pytest.raises(InputError, match=r"different numbers of steps on axis 1: .*; give as many of each"):
        agent.infer(opened, {"x": ones(1, 3, 2), "level": ones(1, 4, 2)})


def test_a_rest_may_be_one_of_work(agent: Agent) -> None:
    def worked() -> int:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))

    pid, ticks = agent.ask("hello", protocol=1)["pid"], os.sysconf("SC_CLK_TCK")
    begin, before = worked(), agent.rest(0.3)
    assert before[1] - before[0] >= 300_000_000
    slept = worked() - begin
    agent.rest(2.0, busy=True)
    assert worked() - begin - slept > slept + ticks / 10


def test_a_meter_is_read_beside_the_runs(agent: Agent, make_bundle: MakeBundle, tmp_path: Path) -> None:
    chip = tmp_path / "sys" / "chip0"
    chip.mkdir(parents=True)
    for name, text in (("label", "VDD_IN"), ("volt", "5000"), ("ampere", "1.5"), ("limit", "1000000"), ("ms", "10")):
        (chip / name).write_text(f"{text}\0\n")
    (tmp_path / "sys" / "chip1").mkdir()
    (tmp_path / "sys" / "chip1" / "label").write_text("NC\n")
    common = {"scope": "", "kind": "power", "unit": "mV mA", "scale": 1e-6, "period_ns": 5_000_000}
    files = {"folder": "/sys/chip*", "label": "label", "values": ("volt", "ampere"), "wrap": "limit", "period": "ms"}
    chips = Source("chip", **common, **files, skip=("NC",), whole=("VDD_*",))  # pyright: ignore[reportArgumentType]
    said = Source("said", **common, argv=("echo", "a=2.5 W"), values=(r"\ba=([0-9.]+)",))  # pyright: ignore[reportArgumentType]
    gone = Source("gone", **common, folder="/sys/none", values=("x",))  # pyright: ignore[reportArgumentType]
    mute = Source("mute", **common, argv=("true",), values=("x([0-9])",))  # pyright: ignore[reportArgumentType]
    rails, absent = agent.meter([chips, said, gone, mute], root=str(tmp_path))
    found = [(rail["rail"], rail["wrap"], rail["whole"], rail["source"]["period_ns"]) for rail in rails]
    assert found == [("VDD_IN", 1_000_000, True, 10_000_000), ("said", None, False, 5_000_000)]
    assert absent == ["/sys/none is not there", "true does not tell mute"]
    timed = agent.time(agent.open(make_bundle(name="metered")), least_runs=3, least_ns=20_000_000)
    (chip / "volt").unlink()
    begin, end = agent.rest(0.05)
    assert end - begin >= 50_000_000
    told = agent.unmeter()
    volts, watts = told["samples"]
    assert {tuple(values) for _, *values in volts} == {(5000, 1.5)}
    assert {tuple(values) for _, *values in watts} == {(2.5,)}
    assert volts[0][0] < timed.begin_ns < timed.end_ns < begin < watts[-1][0]
    assert sum(timed.ns) <= timed.end_ns - timed.begin_ns
    assert list(told["missed"][0]) == ["No such file or directory"]
    assert told["missed"][1] == {}
    assert 0 < told["cpu"] < 1
    with pytest.raises(InputError, match="no meter is being read; start with 'meter'"):
        agent.unmeter()


def test_a_meter_without_a_rail_is_not_read(agent: Agent, runner: Path) -> None:
    found = agent.ask("meter", sources=[], meter="", root="", path=[])
    assert found == {"rails": [], "absent": []}
    with pytest.raises(InputError, match="no meter is being read"):
        agent.unmeter()


def test_what_the_native_runner_cannot_meter_is_said(runner: Path) -> None:
    pipe = Pipe([str(runner)])
    (said,) = pipe.request("meter", meter="acme:METER", sources=[])["result"]["absent"]
    assert said.startswith("the meter acme:METER is a Python module, which the native runner cannot run; ")
    source = {"rail": "r", "argv": ["echo", "1"], "values": ["(?P<one>1)"], "period_ns": 5}
    (said,) = pipe.request("meter", sources=[source])["result"]["absent"]
    assert said == "the native runner does not read the patterns of r"
    for wrong in ({"ns": -1}, {"ns": "x"}, {"ns": NAN}, {}):
        assert pipe.request("rest", **wrong)["error"]["kind"] == "InputError"
    for wrong in ({"sources": 7}, {"sources": [{}]}, {"sources": [{**source, "values": ["1"], "period_ns": 0}]}, {}):
        assert "error" in pipe.request("meter", **wrong) or not pipe.request("meter", **wrong)["result"]["rails"]
    assert pipe.end() == 0


def test_the_runner_puts_a_library_in_its_place(runner: Path, tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / "sites" / name).mkdir(parents=True)
        (tmp_path / "sites" / name / "libonnxruntime.so.1").touch()
    place = lambda name: subprocess.run([runner, "place", tmp_path, name], capture_output=True, text=True)  # noqa: E731
    assert place("new").returncode == 0
    assert os.readlink(tmp_path / "site") == "sites/new"
    assert not (tmp_path / "sites" / "old").exists()
    pipe = Pipe([str(runner)])
    assert "result" in pipe.request("hello", protocol=1, lock=str(tmp_path / "lock"), owner="ann")
    busy = place("")
    assert (busy.returncode, "in use by ann" in busy.stderr) == (75, True)
    pipe.end()
    assert place("").returncode == 0
    assert not (tmp_path / "site").is_symlink()
    assert place("nothing/here").returncode == 1


def test_the_runner_says_with_which_library_it_would_run(
    agents: Callable[[str], Agent], runner: Path, tmp_path: Path
) -> None:
    python = agents("python").device()
    told = json.loads(subprocess.run([runner, "probe"], capture_output=True, check=True).stdout)
    assert (told["version"], told["trouble"]) == (python.versions["onnxruntime"], "")
    assert told["providers"] == list(python.providers)
    (tmp_path / "no.so").write_bytes(b"nothing")
    env = {**os.environ, "EDGEWRIGHT_ONNXRUNTIME": str(tmp_path / "no.so")}
    told = json.loads(subprocess.run([runner, "probe"], capture_output=True, check=True, env=env).stdout)
    assert told["version"] == ""
    assert "cannot be opened" in told["trouble"]


def test_the_device_is_this_machine(agents: Callable[[str], Agent], runner: Path) -> None:
    python, native = (agents(kind).device() for kind in KINDS)
    for field in ("isa", "cpu", "cores", "memory_bytes", "os", "libc", "features", "governor", "emulated", "providers"):
        assert getattr(native, field) == getattr(python, field), field
    assert (native.python, native.versions) == ("", {"onnxruntime": python.versions["onnxruntime"]})


# ------------------------------------------------------------------ what goes wrong


def test_what_the_user_gave_wrong_comes_back_as_such(agent: Agent, make_bundle: MakeBundle, gated: Path) -> None:
    opened, chain = agent.open(make_bundle(name="sound")), agent.open(gated)
    with pytest.raises(InputError, match=r"x is float64 \[1, 4\]; the model takes x float32 \[N, 4\]"):
        agent.infer(opened, {"x": np.ones((1, 4))})
    with pytest.raises(InputError, match=r"x is float32 \[1, 5\]; the model takes x float32 \[N, 4\]"):
        agent.infer(opened, {"x": ones(1, 5)})
    with pytest.raises(InputError, match="the model has no input 'xs'; allowed: x; did you mean 'x'"):
        agent.infer(opened, {"xs": ones(1, 4)})
    with pytest.raises(InputError, match="give every input as many examples"):
        agent.infer(opened, {"x": ones(0, 4)})
    with pytest.raises(InputError, match="there is no stage 2 to stop at; allowed: 0 to 1"):
        agent.infer_exits(chain, {"x": ones(1, 1)}, through=2)
    with pytest.raises(InputError, match="profiled by operator one stage at a time; say which"):
        agent.profile(chain)
    with pytest.raises(InputError, match=r"a deadline of -1(\.0)? ms cannot be met"):
        agent.infer_exits(chain, {"x": ones(1, 1)}, deadline_ms=-1)
    with pytest.raises(InputError, match=r"the agent has no operation 'tim'; allowed: .*; did you mean 'time'"):
        agent.ask("tim")
    with pytest.raises(DeviceError, match="the host speaks protocol 99, the agent 1; update the older one"):
        agent.ask("hello", protocol=99)
    with pytest.raises(BundleError, match="is not a bundle"):
        agent.ask("open", handle="nowhere", bundle="/nowhere")
    assert agent.infer(opened, {"x": ones(1, 4)})["y"].shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"raw": b"not a model"}, r"stage0\.onnx cannot be loaded by onnxruntime"),
        ({"provider": "NoSuchProvider"}, "onnxruntime .* here has no NoSuchProvider; allowed: "),
        ({"options": {"graph": "al"}}, "graph='al' is no level of graph optimisation; .*did you mean 'all'"),
        ({"runtime": "or"}, "the bundle asks for the runtime 'or', which .*; allowed: .*; did you mean 'ort'"),
    ],
)
def test_what_cannot_be_opened_is_refused(
    agent: Agent, make_bundle: MakeBundle, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        agent.open(make_bundle(**options))


def _tamper(bundle: Path, how: str) -> None:
    """What was promised of a bundle no longer holds."""
    place = bundle / "manifest.json"
    manifest = json.loads(place.read_text())
    if how == "artifact":
        (bundle / "artifacts/stage0.onnx").write_bytes(b"other")
    elif how == "missing":
        (bundle / "artifacts/stage0.onnx").unlink()
    elif how == "no json":
        place.write_text("{")
    elif how == "schema":
        place.write_text(json.dumps({**manifest, "schema": 2}))
    elif how == "name":
        place.write_text(json.dumps({**manifest, "name": "another"}))
    elif how == "link":
        (bundle / "artifacts/stage0.onnx").unlink()
        (bundle / "artifacts/stage0.onnx").symlink_to("/etc/passwd")
    else:
        manifest["files"] = {"../../etc/passwd": "0", **manifest["files"]}
        _sign(place, manifest)


def _sign(place: Path, manifest: dict[str, Any]) -> None:
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    place.write_text(json.dumps({**rest, "digest": digest}))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("artifact", r"stage0\.onnx was changed after the bundle was written"),
        ("missing", r"lacks artifacts/stage0\.onnx, which its manifest lists"),
        ("no json", r"manifest\.json cannot be read: "),
        ("schema", r"has schema 2; this version reads schema 1"),
        ("name", r"manifest\.json was changed after it was written"),
        ("link", r"is a link that leaves the bundle; it was not opened"),
        ("traversal", r"names the path '\.\./\.\./etc/passwd', which leaves its folder; it was not opened"),
    ],
)
def test_a_bundle_that_is_not_what_it_was_is_not_opened(
    agent: Agent, make_bundle: MakeBundle, how: str, says: str
) -> None:
    bundle = make_bundle(name=how.replace(" ", "-"))
    _tamper(bundle, how)
    with pytest.raises(BundleError, match=says):
        agent.ask("open", handle=how, bundle=str(bundle))


def test_numbers_in_a_manifest_keep_its_digest(agent: Agent, make_bundle: MakeBundle) -> None:
    numbers = [0.1, 1e300, 5e-324, -0.0, 1e16, 123456789.0, 1e-5, 0.0001, 2**70, -7, 1 / 3, float("inf"), 100.0, 1e22]
    extra = {"numbers": numbers, "text": 'ü \U0001f600 \ud800 \x7f " \\ /', "none": None, "nested": [{}, [], True]}
    assert agent.open(make_bundle(name="numbers", extra=extra)).load_ms > 0


def test_a_worker_that_is_killed_is_reported_and_survived(agent: Agent, make_bundle: MakeBundle) -> None:
    supervisor = agent.ask("hello", protocol=1)["pid"]
    before = set(workers(supervisor))
    opened = agent.open(make_bundle(name="short-lived"))
    (worker,) = set(workers(supervisor)) - before
    os.kill(worker, signal.SIGSEGV)
    with pytest.raises(PluginError, match=r"was ended by SIGSEGV \(the runtime crashed\) during 'infer'"):
        agent.infer(opened, {"x": ones(1, 4)})
    agent.close(opened)
    assert agent.infer(agent.open(make_bundle(name="sound")), {"x": ones(1, 4)})["y"].shape == (1, 3)


def test_no_process_is_left_over(pipe: Pipe, make_bundle: MakeBundle) -> None:
    assert "result" in pipe.request("open", handle="a", bundle=str(make_bundle()))
    (worker,) = workers(pipe.process.pid)
    pipe.end()
    assert wait_until(lambda: not alive(worker))


def test_no_process_is_left_over_of_one_that_is_killed(pipe: Pipe, make_bundle: MakeBundle) -> None:
    assert "result" in pipe.request("open", handle="a", bundle=str(make_bundle()))
    (worker,) = workers(pipe.process.pid)
    pipe.process.kill()
    pipe.end()
    assert wait_until(lambda: not alive(worker))


def test_a_device_tells_what_it_is_like(agent: Agent, make_bundle: MakeBundle, tmp_path: Path) -> None:
    found = agent.conditions()
    assert found["load_average"] >= 0
    assert found["temperature_c"] is None or -40 < found["temperature_c"] < 150
    assert set(found) < set(agent.open(make_bundle(name="told")).conditions)
    files = tree(tmp_path / "big little", BIG_LITTLE)
    found = agent.ask("conditions", root=str(files))
    assert (len(found["clocks"]), found["throttled"]) == (2, "cpufreq-cpu4 at step 3")
    for root in (files, tmp_path / "nothing"):
        told, wanted = agent.ask("conditions", root=str(root)), conditions(root)
        assert {**told, "load_average": 0} == {**wanted, "load_average": 0}


def test_the_tools_of_boards_are_asked(command: Sequence[str], tmp_path: Path) -> None:
    for name, text in (("nvpmodel", NVPMODEL), ("vcgencmd", VCGENCMD)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        pipe = Pipe(command)
    found = pipe.request("conditions", root=str(tmp_path))["result"]
    assert (found["power_mode"], found["throttled"]) == ("15W", "under-voltage, throttled")
    assert pipe.end() == 0


def test_a_device_is_one_client_s_at_a_time(pipe: Pipe, runner: Path, tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    assert "result" in pipe.request("hello", protocol=1, lock=lock, owner="ann, run 7", idle_s=600)
    late = Pipe([str(runner)])
    found = late.request("hello", protocol=1, lock=lock, owner="bob")
    assert found["error"]["kind"] == "DeviceError"
    who = r"the device is in use by ann, run 7; it came \d+ s ago, and loses the device in (59\d|600) s unless"
    assert re.match(who, found["error"]["message"])
    assert pipe.request("ping")["result"] == {}
    pipe.end()
    assert "result" in late.request("hello", protocol=1, lock=lock, owner="bob", idle_s=0.2)
    assert late.process.wait(60) == 0
    late.end()


# ------------------------------------------------------------------ nonsense

NONSENSE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"op": "hello", "protocol": 1',
    b'{"op": "memory", "handle": "\\ud800"}',
    b'{"op": "memory", "handle": "\xff"}',
    b'{"op": "memory", "handle": "a\x00b"}',
    b'{"op": 7}',
    b'{"op": {"op": []}}',
    b'{"op": "open", "handle": "n", "bundle": 7}',
    b'{"op": "open", "handle": "n"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"op": "' + b"x" * 5_000_000 + b'"}',
    b'{"op": "memory", "handle": 1e999999}',
    b'{"op": "time", "handle": "a", "least_runs": "many", "least_ns": 0}',
    b'{"op": "infer", "handle": "a", "inputs": []}',
    b'{"op": "infer", "handle": "a", "inputs": {"x": "/nowhere"}, "folder": "/"}',
    b'{"op": "infer", "handle": "a", "inputs": {}, "folder": "/tmp", "batch": -1}',
    b'{"op": "profile", "handle": "a", "runs": 0}',
]


def test_nonsense_is_answered_with_an_error_and_survived(standing: Pipe, make_bundle: MakeBundle) -> None:
    assert "result" in standing.request("open", handle="a", bundle=str(make_bundle()))
    for line in NONSENSE:
        assert standing.ask(line)["error"]["message"], line[:60]
    assert standing.request("memory", handle="a")["result"]["peak_bytes"] > 0


def test_random_messages_are_answered_with_errors(runner: Path) -> None:
    pipe = Pipe([str(runner)])
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
    def holds(line: bytes) -> None:
        assert "error" in pipe.ask(line.replace(b"\n", b" "))

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(values)
    def echoes(value: Any) -> None:
        found = pipe.ask(json.dumps({"id": value, "op": "ping"}).encode())
        assert json.dumps(found["id"]) == json.dumps(value)

    holds()
    echoes()
    assert pipe.end() == 0


def _named(folder: Path, data: bytes) -> str:
    place = folder / f"{hashlib.sha256(data).hexdigest()}.npy"
    place.write_bytes(data)
    return str(place)


def _header(descr: str = "'<f4'", order: str = "False", shape: str = "(1, 4)", data: bytes = bytes(16)) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


BROKEN = [
    b"",
    b"\x93NUMPY",
    b"\x93NUMPY\x01\x00\xff\xff{}",
    b"\x93NUMPY\x09\x00\x02\x00{}",
    _header()[:-1],
    _header("'>f4'"),
    _header("'|O'"),
    _header("[('a', '<f4')]"),
    _header(order="True"),
    _header(shape="(-1, 4)"),
    _header(shape="(4611686018427387904, 16)"),
    _header(shape="(99999999999999999999, 1)"),
    _header(shape="(1, 4"),
    _header(shape="4"),
]


def test_arrays_that_are_none_are_refused(runner: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    pipe = Pipe([str(runner)])
    assert "result" in pipe.request("open", handle="a", bundle=str(make_bundle()))
    for data in BROKEN:
        place = _named(tmp_path, data)
        found = pipe.request("infer", handle="a", inputs={"x": place}, folder=str(tmp_path))
        assert found["error"]["kind"] == "InputError", data
        assert found["error"]["message"].startswith(f"the array {place} cannot be read: "), data
    assert pipe.end() == 0


def test_mangled_arrays_never_end_the_worker(runner: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    pipe = Pipe([str(runner)])
    assert "result" in pipe.request("open", handle="a", bundle=str(make_bundle()))
    sound = bytearray((tmp_path / write_array(tmp_path, ones(1, 4))).read_bytes())

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(st.lists(st.tuples(st.integers(0, len(sound) - 1), st.integers(0, 255)), min_size=1, max_size=4))
    def holds(changes: list[tuple[int, int]]) -> None:
        data = bytearray(sound)
        for where, byte in changes:
            data[where] = byte
        place = _named(tmp_path, bytes(data))
        found = pipe.request("infer", handle="a", inputs={"x": place}, folder=str(tmp_path))
        assert "result" in found or found["error"]["kind"] == "InputError"

    holds()
    assert "result" in pipe.request("memory", handle="a")
    assert pipe.end() == 0


def test_an_array_that_was_changed_on_its_way_is_noticed(
    standing: Pipe, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    assert "result" in standing.request("open", handle="changed", bundle=str(make_bundle()))
    name = write_array(tmp_path, ones(1, 4))
    (tmp_path / name).write_bytes(b"other")
    found = standing.request("infer", handle="changed", inputs={"x": str(tmp_path / name)}, folder=str(tmp_path))
    assert found["error"]["kind"] == "DeviceError"
    assert "was changed on its way" in found["error"]["message"]


# ------------------------------------------------------------------ building it


def test_a_compiler_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    with pytest.raises(RefusedError, match=r"`apt-get install g\+\+-aarch64-linux-gnu` installs one"):
        build_runner(Machine("aarch64"), tmp_path)
    with pytest.raises(RefusedError, match=r"needs its NDK .*; unpack one and name its folder with ANDROID_NDK_HOME"):
        build_runner(Machine("aarch64", android=True), tmp_path)


def test_a_library_that_cannot_be_opened_is_told(runner: Path, make_bundle: MakeBundle) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_ONNXRUNTIME", "/nowhere/libonnxruntime.so")
        pipe = Pipe([str(runner)])
    found = pipe.request("open", handle="a", bundle=str(make_bundle()))
    assert found["error"]["kind"] == "InputError"
    assert "the onnxruntime that EDGEWRIGHT_ONNXRUNTIME names cannot be opened" in found["error"]["message"]
    device = pipe.request("device")["result"]
    assert (device["versions"], device["providers"]) == ({}, [])
    assert pipe.end() == 0


def test_every_error_has_a_kind_the_host_knows(standing: Pipe) -> None:
    found = standing.request("memory", handle="nope")["error"]
    assert issubclass(getattr(__import__("edgewright.errors", fromlist=["x"]), found["kind"]), EdgewrightError)
