"""The agent for real: processes that crash, hang, print and are killed, and what the host is told."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewright.agents.agent import Agent, Opened, start_agent
from edgewright.agents.agentfile import build_agent
from edgewright.agents.conversation import Conversation
from edgewright.errors import BundleError, DeviceError, EdgewrightError, InputError, PluginError
from edgewright.protocol import answer, decode, encode, failure, read_array, result_of, write_array
from edgewright_devices.local import LOCAL, LocalLink
from processes import alive, children, wait_until, workers
from unit.conftest import ones

MakeBundle = Callable[..., Path]

ACME = """
import os, signal, sys, time
from edgewright_runtime.ort import ORT

class Session:
    def __init__(self, session, options):
        self.session, self.inputs, self.outputs = session, session.inputs, session.outputs
        self.acts, self.runs = options.get("acts"), 0
    def run(self, feeds):
        self.runs += 1
        print("a library that prints", flush=True)
        os.write(1, b"and another\\n")
        if self.runs > 1:
            self.act()
        return self.session.run(feeds)
    def act(self):
        if self.acts == "raise":
            raise OSError("the accelerator is on fire")
        if self.acts == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.acts == "exit":
            sys.stderr.write("giving up\\n"); os._exit(3)
        if self.acts == "hang":
            time.sleep(600)

class Acme:
    name, formats = "acme", ("onnx",)
    def open(self, path, options):
        return Session(ORT.open(path, options), options)

ACME = Acme()
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packed agent is kept."""
    return tmp_path_factory.mktemp("agents")


@pytest.fixture(scope="module")
def agent(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A real agent on this machine, that keeps what it finds out in a cache of its own."""
    link = LOCAL.open("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with start_agent(link, cache) as started:
            yield started
    link.close()


@pytest.fixture
def acme(tmp_path: Path) -> dict[str, Any]:
    """How to open a bundle with a third party's runtime."""
    (tmp_path / "acme_runtime.py").write_text(ACME)
    return {"runtimes": {"acme": "acme_runtime:ACME"}, "path": [str(tmp_path)]}


def test_the_device_is_this_machine(agent: Agent) -> None:
    device = agent.device()
    assert device.python == sys.version.split()[0]
    assert device.features == tuple(sorted(device.features))
    assert device is agent.device()


def test_several_bundles_stay_open_beside_each_other(agent: Agent, make_bundle: MakeBundle) -> None:
    first, second = agent.open(make_bundle()), agent.open(make_bundle(name="null", runtime="null"))
    assert agent.infer(first, {"x": ones(1, 4)})["y"].sum() == 6
    assert agent.infer(second, {"x": ones(1, 4)})["y"].sum() == 0
    assert first.handle != second.handle


@pytest.mark.parametrize(
    ("acts", "says"),
    [
        ("raise", "the runtime acme failed in 'infer': OSError: the accelerator is on fire"),
        ("kill", "was ended by SIGKILL (the system may have run out of memory) during 'infer'"),
        ("exit", "ended with exit status 3 during 'infer'; it last said: giving up"),
    ],
)
def test_a_crash_is_reported_and_survived(
    agent: Agent, make_bundle: MakeBundle, acme: dict[str, Any], acts: str, says: str
) -> None:
    opened = agent.open(make_bundle(runtime="acme", options={"acts": acts}), **acme)
    with pytest.raises(PluginError) as caught:
        agent.infer(opened, {"x": ones(1, 4)})
    assert says in str(caught.value)
    agent.close(opened)
    other = agent.open(make_bundle(name="sound"))
    assert agent.infer(other, {"x": ones(1, 4)})["y"].shape == (1, 3)


def test_what_libraries_print_does_not_reach_the_host(
    agent: Agent, make_bundle: MakeBundle, acme: dict[str, Any]
) -> None:
    opened = agent.open(make_bundle(runtime="acme"), **acme)
    assert agent.infer(opened, {"x": ones(3, 4)})["y"].shape == (3, 3)


def test_a_device_that_hangs_is_given_up(cache: Path, make_bundle: MakeBundle, acme: dict[str, Any]) -> None:
    link = LOCAL.open("")
    with start_agent(link, cache) as agent:
        opened = agent.open(make_bundle(runtime="acme", options={"acts": "hang"}), **acme)
        with pytest.raises(DeviceError, match=r"the agent at local did not answer 'infer' within 0\.5 s"):
            agent.infer(opened, {"x": ones(1, 4)}, timeout=0.5)
        with pytest.raises(DeviceError, match="the agent at local was lost during 'memory'"):
            agent.memory(opened)
    link.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find the processes")
@pytest.mark.parametrize("how", ["eof", "killed", "killed while a worker hangs"])
def test_no_process_is_left_over(cache: Path, make_bundle: MakeBundle, acme: dict[str, Any], how: str) -> None:
    acts = "hang" if how.endswith("hangs") else "nothing"
    supervisor = subprocess.Popen(
        [sys.executable, str(build_agent(cache))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    bundle = make_bundle(runtime="acme", options={"acts": acts})
    supervisor.stdin.write(encode({"id": 1, "op": "open", "handle": "a", "bundle": str(bundle), **acme}))
    supervisor.stdin.flush()
    assert "result" in decode(supervisor.stdout.readline())
    (worker,) = workers(supervisor.pid)
    if acts == "hang":
        supervisor.stdin.write(encode({"id": 2, "op": "time", "handle": "a", "least_runs": 1, "least_ns": 0}))
        supervisor.stdin.flush()
    if how == "eof":
        supervisor.stdin.close()
    else:
        supervisor.kill()
    assert wait_until(lambda: not alive(worker))
    supervisor.wait(120)
    supervisor.stdin.close()
    supervisor.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find the processes")
def test_workers_are_forked_from_one_process(cache: Path, make_bundle: MakeBundle) -> None:
    with start_agent(LocalLink(), cache) as agent:
        supervisor = agent.ask("hello", protocol=1)["pid"]
        one, two = agent.open(make_bundle()), agent.open(make_bundle(name="other"))
        (nursery,) = children(supervisor)
        assert len(children(nursery)) == 2
        assert agent.infer(two, {"x": ones(1, 4)})["y"].shape == (1, 3)
        agent.close(two)
        assert len(children(nursery)) == 1
        fresh = agent.open(make_bundle(), fresh=True)
        assert len(children(supervisor)) == 2
        assert agent.infer(one, {"x": ones(1, 4)})["y"] == pytest.approx(agent.infer(fresh, {"x": ones(1, 4)})["y"])
    assert wait_until(lambda: not alive(nursery))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find the processes")
@pytest.mark.parametrize("starts", [True, False])
def test_a_process_with_threads_is_not_forked(
    cache: Path, make_bundle: MakeBundle, tmp_path: Path, starts: bool
) -> None:
    code = (
        ACME
        + "\n\ndef prepare():\n    import threading, time\n"
        + ("    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n" if starts else "")
    )
    (tmp_path / "acme_threads.py").write_text(f"{code}\nACME.prepare = prepare\n")
    with start_agent(LocalLink(), cache) as agent:
        supervisor = agent.ask("hello", protocol=1)["pid"]
        agent.open(
            make_bundle(runtime="acme", options={"acts": "nothing"}),
            runtimes={"acme": "acme_threads:ACME"},
            path=[str(tmp_path)],
        )
        assert len(children(supervisor)) == (2 if starts else 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find what is open")
def test_what_workers_are_forked_from_holds_neither_the_agents_pipes_nor_its_lock(
    cache: Path, make_bundle: MakeBundle
) -> None:
    with start_agent(LocalLink(), cache) as agent:
        supervisor = agent.ask("hello", protocol=1)["pid"]
        agent.open(make_bundle())
        (nursery,) = children(supervisor)
        shared = opened_by(supervisor) & opened_by(nursery)
    assert {each for each in shared if each != os.devnull and not each.endswith(" (deleted)")} == set()


def opened_by(process: int) -> set[str]:
    """What the descriptors of a process lead to; its errors go to a file without a name."""
    return {os.readlink(each) for each in Path(f"/proc/{process}/fd").iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find the processes")
def test_a_nursery_that_died_is_followed_by_another(cache: Path, make_bundle: MakeBundle) -> None:
    with start_agent(LocalLink(), cache) as agent:
        supervisor = agent.ask("hello", protocol=1)["pid"]
        opened = agent.open(make_bundle())
        (nursery,) = children(supervisor)
        os.kill(nursery, signal.SIGKILL)
        with pytest.raises(PluginError, match="the process that ran the model ended during 'warm'"):
            agent.warm(opened)
        opened = agent.open(make_bundle())
        assert agent.infer(opened, {"x": ones(1, 4)})["y"].shape == (1, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to find the processes")
def test_an_agent_that_is_killed_is_a_lost_device(cache: Path) -> None:
    link = LOCAL.open("")
    with start_agent(link, cache) as agent:
        os.kill(agent.ask("hello", protocol=1)["pid"], signal.SIGKILL)
        with pytest.raises(DeviceError, match=r"the agent at local was lost during 'device' \(exit status"):
            agent.device()
    link.close()


def test_an_interrupt_while_a_bundle_is_timed_stays_an_interrupt(cache: Path, make_bundle: MakeBundle) -> None:
    def interrupted(agent: Agent) -> None:
        opened = agent.open(make_bundle())
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            agent.time(opened, least_runs=1, least_ns=120_000_000_000)
        finally:  # as every caller does; the answer to `time` has not come, and must not be taken for this one
            agent.close(opened)

    before, started = signal.getsignal(signal.SIGALRM), time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt), start_agent(LocalLink(), cache) as agent:
            interrupted(agent)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 90


def test_an_interrupt_at_any_line_of_a_request_leaves_no_answer_for_the_next(cache: Path) -> None:
    """Callers close what they opened whatever happens; that must not end in an error that hides the interrupt."""
    nothing = Opened("0-0", "0", 0, 0, None, None)
    for line in itertools.count(1):
        with start_agent(LocalLink(), cache) as agent:
            ended = interrupted_at(line, lambda agent=agent: agent.conditions())
            agent.close(nothing)
        if ended is None:
            break
        assert ended is KeyboardInterrupt
    assert line > 10


PENDING = [getattr(Conversation, name).__code__ for name in ("_ask", "_send", "_next")]
"""What runs while the answer to a request is still to come."""


def interrupted_at(line: int, work: Callable[[], object]) -> type[BaseException] | None:
    """What `work` ends with when Ctrl-C comes at that line, of all that a request runs through."""
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code not in PENDING:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    except (KeyboardInterrupt, EdgewrightError) as error:
        return type(error)
    finally:
        sys.settrace(None)
    return None


def test_the_supervisor_answers_nonsense_with_a_sentence(agent: Agent) -> None:
    with pytest.raises(InputError, match=r"the agent has no operation 'tim'; allowed: .*; did you mean 'time'"):
        agent.ask("tim")
    with pytest.raises(DeviceError, match="the host speaks protocol 99, the agent 1; update the older one"):
        agent.ask("hello", protocol=99)
    assert agent.ask("hello", protocol=1)["protocol"] == 1


def test_a_program_that_is_no_agent_is_a_device_error(tmp_path: Path) -> None:
    link = LocalLink()
    agent = Agent(link, link.start([sys.executable, "-c", "print(input()[:7])"]), tmp_path, tmp_path)
    with pytest.raises(DeviceError, match=r"""expected a message of protocol 1, found '{"id":1'"""):
        agent.ask("device")
    agent.stop()
    with pytest.raises(DeviceError, match="cannot be started on this machine"):
        link.start([str(tmp_path / "nothing")])
    link.close()


def test_the_agent_is_packed_once(tmp_path: Path) -> None:
    first = build_agent(tmp_path / "a")
    written = first.stat().st_mtime_ns
    assert build_agent(tmp_path / "a") == first
    assert first.stat().st_mtime_ns == written
    assert build_agent(tmp_path / "b").read_bytes() == first.read_bytes()


# ------------------------------------------------------------------ messages and arrays


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.text()), max_size=5))
def test_messages_survive_the_trip(message: dict[str, Any]) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message


@given(st.binary(max_size=200).filter(lambda line: not line.strip().startswith(b"{")))
def test_bytes_that_are_no_message_are_a_device_error(line: bytes) -> None:
    with pytest.raises(DeviceError, match=r"\Aexpected a message of protocol 1, found .*\Z"):
        decode(line)


@pytest.mark.parametrize("kind", [InputError, BundleError, PluginError, DeviceError])
def test_errors_keep_their_kind(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="what happened") as caught:
        result_of(failure({"id": 1}, kind("what happened")))
    assert type(caught.value) is kind


def test_foreign_errors_are_a_plugin_s() -> None:
    with pytest.raises(PluginError, match="ZeroDivisionError: by zero"):
        result_of(failure({"id": 1}, ZeroDivisionError("by zero")))
    assert result_of(answer({"id": 1}, {"a": 2})) == {"a": 2}


@given(
    hnp.arrays(
        st.sampled_from(["float32", "float16", "int64", "uint8", "bool"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_arrays_survive_the_trip(tmp_path_factory: pytest.TempPathFactory, array: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "arrays"
    name = write_array(folder, array)
    found = read_array(folder / name)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


def test_a_changed_array_is_noticed(tmp_path: Path) -> None:
    name = write_array(tmp_path, ones(3))
    (tmp_path / name).write_bytes(b"other")
    with pytest.raises(DeviceError, match="was changed on its way"):
        read_array(tmp_path / name)
    with pytest.raises(DeviceError, match="cannot be read: No such file"):
        read_array(tmp_path / "none.npy")


# ------------------------------------------------------------------ the local connection


def test_the_local_link_runs_and_copies(tmp_path: Path) -> None:
    link = LOCAL.open("")
    assert link.run([sys.executable, "-c", "print(input())"], b"hi\n") == (0, b"hi\n", b"")
    (tmp_path / "a").write_text("here")
    place = link.put(tmp_path / "a", "a")
    link.get(place, tmp_path / "b")
    assert (tmp_path / "b").read_text() == "here"
    with pytest.raises(DeviceError, match="cannot be copied"):
        link.get(str(tmp_path / "missing"), tmp_path / "c")
    with pytest.raises(DeviceError, match="took more than"):
        link.run([sys.executable, "-c", "import time; time.sleep(9)"], timeout=0.2)
    root = link.root
    link.close()
    assert not root.exists()


def test_the_local_connection_takes_no_address() -> None:
    with pytest.raises(DeviceError, match="local takes no address, found '/dev/sda'"):
        LOCAL.open("/dev/sda")
